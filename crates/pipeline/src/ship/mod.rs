//! From the spool to the service: in order, several at a time, until it says 202.

mod answer;
mod backoff;
mod client;
mod shipper;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

pub use answer::{Verdict, judge, wait};
pub use backoff::{Backoff, Pace};
pub use client::{Courier, Endpoint};

use crate::spool::SharedSpool;
use model::{
    error::{Context as _, Result},
    notes::Notes,
    totals::Totals,
};

/// How the service is doing, for `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The last attempts failed, with this reason.
    pub failing: Option<String>,
    /// The last reason why an entry was rejected.
    pub last_rejected: Option<String>,
    /// Entries that were rejected.
    pub rejected_entries: u64,
    /// Requests so far.
    pub requests: u64,
}

/// [`Health`], shared.
#[derive(Clone, Debug, Default)]
pub struct SharedHealth(Arc<Mutex<Health>>);

impl SharedHealth {
    fn lock(&self) -> MutexGuard<'_, Health> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it is now.
    pub fn now(&self) -> Health {
        self.lock().clone()
    }
}

/// What the sending thread works with.
pub struct Route {
    /// Sends.
    pub courier: Courier,
    /// Has what waits.
    pub spool: SharedSpool,
    /// Says that there is more.
    pub wake: Arc<Notify>,
    /// The books.
    pub totals: Arc<Totals>,
    /// How waits grow.
    pub pace: Pace,
    /// Tells problems to the user.
    pub notes: Notes,
}

/// The thread that sends.
pub struct Shipper {
    thread: JoinHandle<()>,
    stop: watch::Sender<Option<Instant>>,
    health: SharedHealth,
}

impl Shipper {
    /// Starts it.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(route: Route) -> Result<Self> {
        let (stop, stopped) = watch::channel(None);
        let health = SharedHealth::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(4)
            .thread_keep_alive(Duration::from_secs(60))
            .build()
            .failed(|| "cannot start the sender's event loop".to_owned())?;
        let worker = shipper::Worker::new(route, stopped, health.clone());
        let thread = thread::Builder::new()
            .name("teracron-ship".to_owned())
            .spawn(move || {
                runtime.block_on(worker.run());
                // Reads of the spool that are under way are nobody's any more.
                runtime.shutdown_background();
            })
            .failed(|| "cannot start a thread".to_owned())?;
        Ok(Self {
            thread,
            stop,
            health,
        })
    }

    /// How the service is doing.
    pub fn health(&self) -> SharedHealth {
        self.health.clone()
    }

    /// Sends what waits until `deadline`, then ends. Nothing may be added any more.
    pub fn finish(self, deadline: Instant) {
        let _ = self.stop.send(Some(deadline));
        let _ = self.thread.join();
    }
}
