//! What the agent and the process that delivers tell each other.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wire::Span;

use super::Report;
use model::{ProcessSample, error::Error};
use pipeline::{pack::Batching, scrub::ScrubSettings, ship::Endpoint};

/// To the process that delivers.
#[derive(Serialize, Deserialize)]
pub(super) enum Order {
    /// The first one.
    Start(Box<Start>),
    /// Spans to send.
    Spans(Vec<Span>),
    /// Memory samples to send.
    Samples(Vec<ProcessSample>),
    /// Other rules for what comes from now on.
    Change(Box<Handling>),
    /// The project's folder in the spool comes along, and this is its path; or why there is none.
    Folder(Result<String, String>),
    /// What is there is packed and sent, for so long at most.
    Finish(Duration),
}

/// How spans are handled: may change while the agent runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Handling {
    /// Batches.
    pub batching: Batching,
    /// What must not leave.
    pub scrub: ScrubSettings,
}

/// What delivering needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    /// Name of the project.
    pub slug: String,
    /// Its public key, as a `SubjectPublicKeyInfo`.
    pub key: Vec<u8>,
    /// The service.
    pub endpoint: Endpoint,
    /// What the file of certificates has.
    pub certificates: Option<Vec<u8>>,
    /// How spans are handled.
    pub handling: Handling,
    /// Folder of the spool, for people; `None` keeps it in memory.
    pub spool: Option<String>,
    /// Most bytes in it.
    pub spool_max: u64,
    /// Say nothing.
    pub quiet: bool,
    /// Say everything.
    pub debug: bool,
}

/// From the process that delivers.
#[derive(Serialize, Deserialize)]
pub(super) enum Answer {
    /// It is ready, or why it can't be.
    Started(Result<(), Error>),
    /// The folder of the spool is wanted: at the start, and after somebody removed it.
    Folder,
    /// What became of everything so far.
    Report(Box<Report>),
    /// It is done, and so is the process.
    Finished(Box<Report>),
}
