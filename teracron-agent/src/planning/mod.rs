//! Planning, in a process of its own.
//!
//! Files of targets are written by others, and much is read of them: tables, debug information, names, code. That is
//! done by a child of the same executable that is shut in (`sys::walls`): another user, no capability, no files but
//! those that it is given, no network, bounded memory and processor time. It gets a request and open files, asks for
//! debug files and libraries (`broker`), and gives a plan back. It may die of anything: then the file that it was
//! reading is named and left alone, and the others are planned.
//!
//! What comes back is data. The sites in it are compared with the processes' memory before anything is attached
//! (`run/verify.rs`), and lie in files that this process has opened itself.

mod broker;
mod child;
mod listing;
mod messages;

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, BorrowedFd},
    process::{Child, ExitCode, ExitStatus, Stdio},
    sync::Arc,
};

pub use listing::Listing;

use crate::shut_in::{self, Channel, MAX_FILES, Part};
use broker::Broker;
use image::{FileKey, Image};
use messages::{Answer, Order};
use model::{
    error::{Context as _, Error, Result},
    signal_name, text,
};
use planner::whole::{Files, Planned, Request};

/// Files that may each end a process that plans before nothing is planned any more.
const MAX_LEFT_ALONE: usize = 16;

/// Exit code of a process that plans and may not become another user.
const DENIED: u8 = 3;

/// Does the work of a process that plans. Answers the exit code.
pub(crate) fn work(parent: u32) -> ExitCode {
    match child::work(parent) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => ExitCode::from(DENIED),
        Err(_) => ExitCode::FAILURE,
    }
}

/// A plan, and the files that it means.
pub struct Ready {
    /// The plan.
    pub planned: Planned,
    /// The files.
    pub files: Files,
    /// What to say of files that were left alone, because reading them ended the process that planned.
    pub left_alone: Vec<String>,
}

/// Plans a set of probes. `images` are all that the request names; `request` is made anew for each try, without those
/// files that are left alone.
///
/// # Errors
/// What planning says, or where no process can be started.
pub fn plan(images: &[&Image], mut request: impl FnMut(&[FileKey]) -> Request) -> Result<Ready> {
    let mut left_alone: Vec<FileKey> = Vec::new();
    let mut notes = Vec::new();
    loop {
        let given: Vec<&Image> = images
            .iter()
            .filter(|image| !left_alone.contains(&image.key))
            .copied()
            .collect();
        let request = request(&left_alone);
        let libraries = !request.executables.is_empty();
        let broker = Broker::new(given.iter().copied(), libraries);
        match ask(&given, Order::Plan(Box::new(request)), broker, false)? {
            End::Answer(Answer::Planned(planned), files) => {
                return Ok(Ready {
                    planned: *planned?,
                    files,
                    left_alone: notes,
                });
            }
            End::Answer(..) => return Err(nonsense()),
            End::Died { why, reading } => {
                let culprit = images.iter().find(|image| Some(image.key) == reading);
                let Some(image) = culprit.filter(|_| left_alone.len() < MAX_LEFT_ALONE) else {
                    return Err(Error::Failed(format!("planning failed: {why}")));
                };
                notes.push(format!(
                    "{} is not read: the process that reads files for planning {why}",
                    text::shown(&image.path)
                ));
                left_alone.push(image.key);
            }
        }
    }
}

/// Lists functions on standard output; answers what there is to say of files.
///
/// # Errors
/// Where nothing matches, or no process can be started.
pub fn list(images: &[Image], listing: Listing) -> Result<Vec<String>> {
    let given: Vec<&Image> = images.iter().collect();
    let broker = Broker::new(given.iter().copied(), false);
    match ask(&given, Order::List(Box::new(listing)), broker, true)? {
        End::Answer(Answer::Listed(listed), _) => listed,
        End::Answer(..) => Err(nonsense()),
        End::Died { why, reading } => {
            let image = images.iter().find(|image| Some(image.key) == reading);
            let path = image.map_or("the files", |image| &image.path);
            Err(Error::Failed(format!(
                "{} can't be read: the process that reads files {why}",
                text::shown(path)
            )))
        }
    }
}

fn nonsense() -> Error {
    Error::Failed("the process that plans answered what it was not asked".to_owned())
}

/// How a process that plans ended.
enum End {
    /// With an answer, and the files that it means.
    Answer(Answer, Files),
    /// Without one.
    Died {
        /// What happened to it, as the rest of a sentence.
        why: String,
        /// What it was reading.
        reading: Option<FileKey>,
    },
}

/// Has a process do some work, and opens files for it.
fn ask(images: &[&Image], order: Order, mut broker: Broker, prints: bool) -> Result<End> {
    let starting = || "cannot start the process that plans".to_owned();
    let (channel, mut child) = start(prints).failed(starting)?;
    let mut reading = None;
    let answer = converse(channel, images, order, &mut broker, &mut reading);
    // It has ended, or does so now that nobody is at the other end; it may be busy with anything else.
    if answer.is_err() {
        let _ = child.kill();
    }
    let status = child
        .wait()
        .failed(|| "the process that plans".to_owned())?;
    if answer.is_err() && status.code() == Some(DENIED.into()) {
        return Err(Error::Missing(
            "the process that reads files of targets may not become another user: CAP_SETUID or CAP_SETGID is missing here \
             (`teracron-agent doctor` lists all)"
                .to_owned(),
        ));
    }
    Ok(match answer {
        Ok(answer) => End::Answer(answer, broker.files),
        Err(_) => End::Died {
            why: what_happened(status),
            reading,
        },
    })
}

fn start(prints: bool) -> io::Result<(Channel, Child)> {
    let stdout = if prints {
        Stdio::inherit()
    } else {
        Stdio::null()
    };
    // What it says where it panics may have anybody's words in it.
    let stderr = if log::log_enabled!(log::Level::Debug) {
        Stdio::inherit()
    } else {
        Stdio::null()
    };
    shut_in::start(Part::Planning, (stdout, stderr), &[])
}

fn converse(
    mut channel: Channel,
    images: &[&Image],
    order: Order,
    broker: &mut Broker,
    reading: &mut Option<FileKey>,
) -> io::Result<Answer> {
    let mut files: Vec<(&FileKey, &Arc<File>)> = images
        .iter()
        .map(|image| (&image.key, &image.file))
        .collect();
    files.sort_by_key(|(key, _)| **key);
    files.dedup_by_key(|(key, _)| **key);
    for files in files.chunks(MAX_FILES) {
        let keys = files.iter().map(|(key, _)| **key).collect();
        let beside: Vec<BorrowedFd<'_>> = files.iter().map(|(_, file)| file.as_fd()).collect();
        channel.send(&Order::Files(keys), &beside)?;
    }
    channel.send(&order, &[])?;
    drop(order);
    loop {
        match channel.receive()? {
            (Answer::Reading(key), _) => *reading = Some(key),
            (Answer::Open(wanted), _) => match broker.open(&wanted) {
                Ok(file) => channel.send(&Order::Opened(Ok(())), &[file.as_fd()])?,
                Err(error) => {
                    let number = error
                        .raw_os_error()
                        .unwrap_or(rustix::io::Errno::ACCESS.raw_os_error());
                    channel.send(&Order::Opened(Err(number)), &[])?;
                }
            },
            (answer, _) => return Ok(answer),
        }
    }
}

fn what_happened(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.signal(), status.code()) {
        (Some(libc::SIGXCPU), _) => "took too long".to_owned(),
        // What the standard library does where there is no memory.
        (Some(libc::SIGABRT), _) => "ran out of memory".to_owned(),
        (Some(signal), _) => format!("was killed by {}", signal_name(signal.unsigned_abs())),
        (None, Some(101)) => {
            "failed (this is a mistake of the agent's: please report it)".to_owned()
        }
        (None, _) => "could not be shut in, so it read nothing".to_owned(),
    }
}
