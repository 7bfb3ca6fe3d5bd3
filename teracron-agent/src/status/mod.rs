//! What `teracron-agent status` asks a running agent, over a Unix socket that only its owner can open.

mod ask;
mod describe;
mod question;
mod report;
mod server;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use teracron_common::{Counter, Counters};

pub use ask::status;
pub use report::{StatusReport, WireReport};
pub use server::Server;

use crate::delivering::Ledger;
use model::{ProcessIdentity, totals::KindTotals};
use pipeline::output::InlinedCalls;

/// Name of an agent's socket.
fn socket_name(agent: u32) -> String {
    format!("agent-{agent}.sock")
}

/// Counts of the kernel side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kernel {
    /// Calls seen by an entry site.
    pub entered: u64,
    /// Span records sent to the agent.
    pub sent: u64,
    /// Calls of which no span will come.
    pub lost: u64,
    /// Calls that sampling leaves out.
    pub unsampled: u64,
}

impl From<Counters> for Kernel {
    fn from(counters: Counters) -> Self {
        Self {
            entered: counters.get(Counter::Entered),
            sent: counters.get(Counter::Sent),
            lost: counters.lost(),
            unsampled: counters.get(Counter::Unsampled),
        }
    }
}

/// What the reader knows, once a second.
#[derive(Clone, Debug, Default)]
pub struct Traced {
    /// Processes that are alive.
    pub processes: Vec<Arc<ProcessIdentity>>,
    /// Functions that are probed.
    pub functions: usize,
    /// Spans read.
    pub spans: u64,
    /// Counts of the kernel side.
    pub kernel: Kernel,
    /// Processes that a signal killed, but for SIGTERM, SIGINT and SIGHUP.
    pub killed: u64,
    /// Breakpoints that targets have removed: calls there are not seen.
    pub removed_breakpoints: u64,
    /// Calls that were counted where functions were inlined.
    pub inlined: Vec<InlinedCalls>,
    /// What became of the spans, by sink.
    pub outputs: Vec<(&'static str, KindTotals)>,
}

/// The way to the wire, where there is one.
#[derive(Clone)]
pub struct Wire {
    /// Name of the project.
    pub slug: String,
    /// Host and port.
    pub domain: String,
    /// The books.
    pub ledger: Arc<Ledger>,
    /// The spool's folder; `None`: in memory.
    pub folder: Option<PathBuf>,
}

/// Everything that a status is made of.
#[derive(Clone, Default)]
pub struct Board {
    traced: Arc<Mutex<Traced>>,
    wire: Option<Wire>,
}

impl Board {
    /// With the way to the wire.
    pub fn new(wire: Option<Wire>) -> Self {
        Self {
            traced: Arc::default(),
            wire,
        }
    }

    /// What the reader knows now.
    pub fn update(&self, traced: Traced) {
        *self.traced.lock().unwrap_or_else(PoisonError::into_inner) = traced;
    }

    fn status(&self, uptime: Duration) -> StatusReport {
        let traced = self.traced.lock().unwrap_or_else(PoisonError::into_inner);
        StatusReport::new(uptime.as_secs(), traced.clone(), self.wire.as_ref())
    }
}
