//! What `teracron-agent status` asks a running agent, over a Unix socket that only its owner can open.

mod ask;
mod server;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Serialize;
use teracron_common::{Counter, Counters};

pub use ask::{StatusArgs, status};
pub use server::Server;

use model::totals::{Snapshot, Totals};
use pipeline::{
    output::InlinedCalls,
    ship::{Health, SharedHealth},
    spool::SharedSpool,
};

/// Where the sockets are, unless something else is said.
pub const FOLDER: &str = "/run/teracron";

/// Name of an agent's socket.
fn socket_name(agent: u32) -> String {
    format!("agent-{agent}.sock")
}

/// Counts of the kernel side.
#[derive(Clone, Copy, Debug, Default, Serialize)]
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
#[derive(Clone, Debug, Default, Serialize)]
pub struct Traced {
    /// Processes that are alive.
    pub processes: Vec<u32>,
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inlined: Vec<InlinedCalls>,
}

/// The way to the wire, where there is one.
#[derive(Clone)]
pub struct Wire {
    /// Name of the project.
    pub slug: String,
    /// Host and port.
    pub domain: String,
    /// The books.
    pub totals: Arc<Totals>,
    /// What waits.
    pub spool: SharedSpool,
    /// How the service is doing.
    pub health: SharedHealth,
}

/// Everything that a status is made of.
#[derive(Clone, Default)]
pub struct Board {
    traced: Arc<Mutex<Traced>>,
    wire: Option<Wire>,
}

/// The way to the wire in an answer.
#[derive(Serialize)]
struct WireStatus {
    project: String,
    domain: String,
    totals: Snapshot,
    spool: SpoolStatus,
    service: Health,
}

#[derive(Serialize)]
struct SpoolStatus {
    folder: Option<String>,
    batches: usize,
    bytes: u64,
}

/// An answer.
#[derive(Serialize)]
struct Status {
    agent: u32,
    version: &'static str,
    uptime_s: u64,
    #[serde(flatten)]
    traced: Traced,
    wire: Option<WireStatus>,
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

    fn status(&self, uptime: Duration) -> Status {
        let traced = self.traced.lock().unwrap_or_else(PoisonError::into_inner);
        Status {
            agent: std::process::id(),
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: uptime.as_secs(),
            traced: traced.clone(),
            wire: self.wire.as_ref().map(|wire| {
                let (batches, bytes) = wire.spool.size();
                WireStatus {
                    project: wire.slug.clone(),
                    domain: wire.domain.clone(),
                    totals: wire.totals.snapshot(),
                    spool: SpoolStatus {
                        folder: wire
                            .spool
                            .folder()
                            .map(|folder| folder.to_string_lossy().into_owned()),
                        batches,
                        bytes,
                    },
                    service: wire.health.now(),
                }
            }),
        }
    }
}
