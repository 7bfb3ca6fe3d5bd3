//! One process that delivers, as its agent sees it.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    path::PathBuf,
    process::{Child, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, Sender, channel as mpsc_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    books,
    ledger::Ledger,
    messages::{Answer, Beside, Order},
    queue::Queue,
};
use crate::shut_in::{self, Channel, Part};
use model::{
    error::{Error, Result},
    notes::Notes,
    signal_name, text,
};

/// What the HTTP client looks at in its environment.
const VARIABLES: [&str; 10] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Bytes of a note: the longest are lists of settings.
const MAX_NOTE: usize = 4000;
/// Reading the spool takes a while where it is full and the disk slow.
const LONGEST_START: Duration = Duration::from_secs(120);

/// Makes a project's folder, or finds it.
pub(super) type MakeFolder = Arc<dyn Fn() -> Result<(OwnedFd, PathBuf)> + Send + Sync>;

/// What each process is started with.
pub(super) struct Basis {
    /// The setup, in a file in memory.
    pub setup: File,
    /// `None` where the spool is in memory.
    pub folder: Option<MakeFolder>,
    pub ledger: Arc<Ledger>,
    pub queue: Arc<Queue>,
    pub notes: Notes,
    /// To the process that runs, from whoever has something to tell it.
    pub line: Line,
}

/// The way to the process that runs, beside what is sent to it in order.
#[derive(Clone, Default)]
pub(super) struct Line(Arc<Mutex<Option<Ends>>>);

struct Ends {
    beside: Channel,
    orders: Channel,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, Option<Ends>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells it how long it has.
    pub(super) fn stop(&self, left: Duration) {
        if let Some(ends) = &mut *self.lock() {
            // It may have ended.
            let _ = ends.beside.send(&Beside::Stop(left), &[]);
        }
    }

    /// Waits for it no longer: whoever does is told that it has ended.
    pub(super) fn cut(&self) {
        if let Some(ends) = &*self.lock() {
            ends.orders.close();
        }
    }
}

/// A running process.
pub(super) struct Process {
    child: Child,
    channel: Channel,
    listening: JoinHandle<()>,
    heard: Receiver<Heard>,
}

/// What it said that somebody waits for.
enum Heard {
    Ready,
    Refused(Error),
    Finished,
}

impl Process {
    /// Starts one and waits until it takes what comes. It dies with the calling thread.
    pub(super) fn start(basis: &Basis, setup: &File) -> Result<Self> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::Failed(format!("cannot start the process that delivers: {error}"))
        };
        let folder = match &basis.folder {
            Some(make) => Some(make()?),
            None => None,
        };
        let began = Self::begin(basis, setup, folder).map_err(|error| failed(&error))?;
        match began.heard.recv_timeout(LONGEST_START) {
            Ok(Heard::Ready) => Ok(began),
            Ok(Heard::Refused(error)) => {
                began.end();
                Err(error)
            }
            Ok(Heard::Finished) | Err(_) => {
                let why = what_happened(began.end());
                Err(failed(&format!("it {why}")))
            }
        }
    }

    fn begin(basis: &Basis, setup: &File, folder: Option<(OwnedFd, PathBuf)>) -> io::Result<Self> {
        let books = books::make()?;
        let (beside, heard_beside) = Channel::pair()?;
        // What it says where it panics may have anybody's words in it.
        let stderr = if log::log_enabled!(log::Level::Debug) {
            Stdio::inherit()
        } else {
            Stdio::null()
        };
        let (mut channel, child) =
            shut_in::start(Part::Delivering, (Stdio::null(), stderr), &VARIABLES)?;
        basis
            .ledger
            .started(child.id(), books::Reader::new(books.try_clone()?));
        let (handle, path) =
            folder.map_or((None, None), |(handle, path)| (Some(handle), Some(path)));
        let mut files: Vec<BorrowedFd<'_>> =
            vec![setup.as_fd(), books.as_fd(), heard_beside.as_fd()];
        files.extend(handle.as_ref().map(OwnedFd::as_fd));
        let listening = Listening {
            channel: channel.again()?,
            line: basis.line.clone(),
            folder: basis.folder.clone(),
            ledger: basis.ledger.clone(),
            queue: basis.queue.clone(),
            notes: basis.notes,
        };
        let sent = channel.send(&Order::Begin(path), &files);
        drop(heard_beside);
        *basis.line.lock() = Some(Ends {
            beside,
            orders: channel.again()?,
        });
        if let Some(deadline) = basis.queue.deadline() {
            basis
                .line
                .stop(deadline.saturating_duration_since(Instant::now()));
        }
        let (tell, heard) = mpsc_channel();
        let listening = thread::Builder::new()
            .name("teracron-hear".to_owned())
            .spawn(move || listening.listen(&tell))?;
        let process = Self {
            child,
            channel,
            listening,
            heard,
        };
        match sent {
            Ok(()) => Ok(process),
            Err(_) => {
                let why = what_happened(process.end());
                Err(io::Error::other(format!("it {why}")))
            }
        }
    }

    /// Gives it something; an error where it has ended.
    pub(super) fn send(
        &mut self,
        order: &impl Serialize,
        files: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        self.channel.send(order, files)
    }

    /// Has it deliver what is there until `deadline` and end; `None` where it did, otherwise what happened to it.
    pub(super) fn finish(mut self, deadline: Instant, grace: Duration) -> Option<String> {
        let left = deadline.saturating_duration_since(Instant::now());
        let asked = self.channel.send(&Order::Finish(left), &[]);
        let finished =
            asked.is_ok() && matches!(self.heard.recv_timeout(left + grace), Ok(Heard::Finished));
        let late = !finished && asked.is_ok();
        let status = self.end();
        match (finished, late && status.signal() == Some(libc::SIGKILL)) {
            (true, _) => None,
            (false, true) => Some("did not end in time".to_owned()),
            (false, false) => Some(what_happened(status)),
        }
    }

    /// Ends it, where it has not ended, and waits until it has; nothing that it said is lost.
    pub(super) fn end(mut self) -> ExitStatus {
        // One that ends by itself says more about why.
        let until = Instant::now() + Duration::from_millis(200);
        self.channel.close();
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(1));
        }
        let _ = self.child.kill();
        let status = self.child.wait().unwrap_or_default();
        let _ = self.listening.join();
        status
    }
}

/// Hears what a process says.
struct Listening {
    channel: Channel,
    line: Line,
    folder: Option<MakeFolder>,
    ledger: Arc<Ledger>,
    queue: Arc<Queue>,
    notes: Notes,
}

impl Listening {
    /// Until it says no more.
    fn listen(mut self, tell: &Sender<Heard>) {
        while let Ok((answer, _)) = self.channel.receive::<Answer>() {
            let heard = match answer {
                Answer::Note(note) => {
                    self.notes.say(&text::escape(&note, MAX_NOTE));
                    continue;
                }
                Answer::Folder => {
                    if self.answer_folder().is_err() {
                        break;
                    }
                    continue;
                }
                Answer::Ready => {
                    self.ledger.is_ready();
                    Heard::Ready
                }
                Answer::Refused(error) => Heard::Refused(error),
                Answer::Finished => Heard::Finished,
            };
            let _ = tell.send(heard);
        }
        self.queue.set_ended(true);
    }

    fn answer_folder(&self) -> io::Result<()> {
        let made = match &self.folder {
            Some(make) => make(),
            None => Err(Error::Failed("the spool is in memory".to_owned())),
        };
        let mut line = self.line.lock();
        let Some(ends) = &mut *line else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        match made {
            Ok((handle, path)) => {
                let answer = Beside::Folder(Ok(path));
                ends.beside.send(&answer, &[handle.as_fd()])
            }
            Err(error) => {
                let answer = Beside::Folder(Err(error.to_string()));
                ends.beside.send(&answer, &[])
            }
        }
    }
}

/// What happened to it, as the rest of a sentence.
pub(super) fn what_happened(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(libc::SIGABRT), _) => "ran out of memory".to_owned(),
        (Some(signal), _) => format!("was killed by {}", signal_name(signal.unsigned_abs())),
        (None, Some(101)) => {
            "failed (this is a mistake of the agent's: please report it)".to_owned()
        }
        (None, Some(SHUT_IN_FAILED)) => "could not be shut in, so it did nothing".to_owned(),
        (None, _) => "ended".to_owned(),
    }
}

/// Its exit code where it could not be shut in.
pub(super) const SHUT_IN_FAILED: i32 = 3;
