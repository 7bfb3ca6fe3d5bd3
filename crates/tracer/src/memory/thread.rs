//! Sampling in a thread of its own: reading a large process's page tables takes long.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::Sampler;
use model::ProcessSample;
use model::error::{Context as _, Result};

enum Order {
    Watch(Vec<u32>),
    Forget(u32),
    Every(Duration),
}

/// The sampling thread; it ends when this is dropped or [finished](Self::finish).
pub struct Sampling {
    orders: Sender<Order>,
    thread: JoinHandle<()>,
}

impl Sampling {
    /// Samples `pids` now and every `interval`, and hands the samples to `take`.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(
        pids: Vec<u32>,
        interval: Duration,
        take: impl Fn(Vec<ProcessSample>) + Send + 'static,
    ) -> Result<Self> {
        let (orders, received) = channel();
        let thread = thread::Builder::new()
            .name("teracron-sample".to_owned())
            .spawn(move || run(&received, pids, interval, &take))
            .failed(|| "cannot start a thread".to_owned())?;
        Ok(Self { orders, thread })
    }

    /// Samples these processes from now on.
    pub fn watch(&self, pids: Vec<u32>) {
        let _ = self.orders.send(Order::Watch(pids));
    }

    /// A process runs a new program.
    pub fn forget(&self, pid: u32) {
        let _ = self.orders.send(Order::Forget(pid));
    }

    /// Changes the interval.
    pub fn every(&self, interval: Duration) {
        let _ = self.orders.send(Order::Every(interval));
    }

    /// Ends the thread.
    pub fn finish(self) {
        drop(self.orders);
        let _ = self.thread.join();
    }
}

fn run(
    orders: &Receiver<Order>,
    mut pids: Vec<u32>,
    mut interval: Duration,
    take: &impl Fn(Vec<ProcessSample>),
) {
    let mut sampler = Sampler::new();
    let mut due = Instant::now();
    loop {
        match orders.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(Order::Watch(others)) => pids = others,
            Ok(Order::Forget(pid)) => sampler.forget(pid),
            Ok(Order::Every(other)) => {
                due = (due + other).checked_sub(interval).unwrap_or(due);
                interval = other;
            }
            Err(RecvTimeoutError::Timeout) => {
                let samples = sampler.sample(pids.iter().copied());
                if !samples.is_empty() {
                    take(samples);
                }
                // Behind by more than an interval (the machine slept): what was missed is not made up.
                due = (due + interval).max(Instant::now());
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
