//! Batches of memory samples: each of one process only.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use wire::{Sample, metrics_body};

use super::{Batch, Kind, earlier};
use wire::seal::Plaintext;

/// Samples that wait, by process.
pub struct Samples {
    size: usize,
    deadline: Duration,
    waiting: HashMap<u32, Waiting>,
}

struct Waiting {
    runtime: String,
    samples: Vec<Sample>,
    due: Instant,
}

impl Samples {
    /// None yet.
    pub fn new(size: usize, deadline: Duration) -> Self {
        Self {
            size,
            deadline,
            waiting: HashMap::new(),
        }
    }

    /// Takes a sample; answers the batches that are full with it.
    pub fn push(&mut self, pid: u32, runtime: &str, sample: Sample, now: Instant) -> Vec<Batch> {
        let mut batches = Vec::new();
        if self
            .waiting
            .get(&pid)
            .is_some_and(|waiting| waiting.runtime != runtime)
        {
            // The same id, another program.
            batches.extend(self.waiting.remove(&pid).map(Waiting::batch));
        }
        let waiting = self.waiting.entry(pid).or_insert_with(|| Waiting {
            runtime: runtime.to_owned(),
            samples: Vec::new(),
            due: now + self.deadline,
        });
        waiting.samples.push(sample);
        if waiting.samples.len() >= self.size {
            batches.extend(self.waiting.remove(&pid).map(Waiting::batch));
        }
        batches
    }

    /// What is due at `now`.
    pub fn take_due(&mut self, now: Instant) -> Vec<Batch> {
        self.take(|waiting| waiting.due <= now)
    }

    /// Everything that waits.
    pub fn flush(&mut self) -> Vec<Batch> {
        self.take(|_| true)
    }

    fn take(&mut self, wanted: impl Fn(&Waiting) -> bool) -> Vec<Batch> {
        let pids: Vec<u32> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| wanted(waiting))
            .map(|(pid, _)| *pid)
            .collect();
        pids.into_iter()
            .filter_map(|pid| self.waiting.remove(&pid))
            .map(Waiting::batch)
            .collect()
    }

    /// When the first of those that wait is due.
    pub fn due(&self) -> Option<Instant> {
        self.waiting
            .values()
            .fold(None, |due, waiting| earlier(due, Some(waiting.due)))
    }
}

impl Waiting {
    fn batch(self) -> Batch {
        let body = metrics_body(&self.samples, env!("CARGO_PKG_VERSION"), &self.runtime);
        Batch {
            kind: Kind::Metrics,
            count: self.samples.len() as u32,
            plaintext: Plaintext::from_bytes(body),
        }
    }
}
