//! What the agent and the process that delivers tell each other.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::PathBuf,
    time::Duration,
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use model::{ProcessSample, error::Error};
use pipeline::{
    pack::{Batching, Rules},
    scrub::{ScrubSettings, Scrubber},
    ship::Endpoint,
};

use super::packed::Packed;

/// Everything that the process needs to know at its start. It goes there in a file in memory, which outlives the
/// process for the next one: what is secret in it is in no memory of the agent's own.
#[derive(Serialize, Deserialize)]
pub struct Setup {
    /// Name of the project.
    pub slug: String,
    /// Its public key, a `SubjectPublicKeyInfo`.
    pub public_key: Vec<u8>,
    /// The service.
    pub endpoint: Endpoint,
    /// Certificates of a private authority, in PEM.
    pub certificates: Option<Vec<u8>>,
    /// Most bytes in the spool.
    pub spool_max: u64,
    /// Say only errors.
    pub quiet: bool,
    /// Say everything.
    pub debug: bool,
    /// What is done on the way.
    pub rules: RuleSet,
}

/// What may change while the agent runs.
#[derive(Serialize, Deserialize)]
pub struct RuleSet {
    /// What a batch is.
    pub batching: Batching,
    /// What must not leave.
    pub scrub: ScrubSettings,
}

impl RuleSet {
    /// Compiles the rules and starts the user's scrubber.
    pub(super) fn prepare(&self) -> Result<Rules, String> {
        Ok(Rules {
            batching: self.batching.clone(),
            scrubber: Scrubber::new(&self.scrub)?,
        })
    }
}

/// Writes something into a file in memory that nobody can change any more.
pub(super) fn keep<T: Serialize>(what: &T) -> io::Result<File> {
    let bytes = Zeroizing::new(postcard::to_stdvec(what).map_err(io::Error::other)?);
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("teracron-setup", flags)?);
    file.write_all(&bytes)?;
    fcntl_add_seals(
        &file,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(file)
}

/// Reads it again.
pub(super) fn kept<T: for<'de> Deserialize<'de>>(mut file: &File) -> io::Result<T> {
    // Whoever read it before left the place at the end.
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.read_to_end(&mut bytes)?;
    postcard::from_bytes(&bytes).map_err(io::Error::other)
}

/// To the process that delivers.
#[derive(Serialize, Deserialize)]
pub(super) enum Order {
    /// The first: along come the setup, the books, a socket for what it hears beside and, where the spool is on disk,
    /// the project's folder, of this path.
    Begin(Option<PathBuf>),
    /// Spans to send.
    Spans(Packed),
    /// Memory samples to send.
    Samples(Vec<ProcessSample>),
    /// New rules come along.
    Rules,
    /// Deliver what is there for so long, and end.
    Finish(Duration),
}

/// From the process that delivers.
#[derive(Serialize, Deserialize)]
pub(super) enum Answer {
    /// It takes what comes.
    Ready,
    /// It can't begin.
    Refused(Error),
    /// Something to say to the user.
    Note(String),
    /// The project's folder has vanished: another is asked for.
    Folder,
    /// It has done what it could and ends.
    Finished,
}

/// To the process that delivers, beside the orders: it hears these whatever it is busy with.
#[derive(Serialize, Deserialize)]
pub(super) enum Beside {
    /// The project's folder comes along, or why there is none.
    Folder(Result<PathBuf, String>),
    /// What is not sealed in so long is dropped.
    Stop(Duration),
}
