//! Delivering, in a process of its own.
//!
//! What is sent is scrubbed, sealed, kept and shipped by a child of the same executable that has no privileges at all: a
//! user of its own, no capability, the spool's folder and the network. The agent hands it spans and samples through a
//! bounded queue and a socket, and keeps the books over all such processes of a run ([`books`]): one may end at any
//! moment; what was in its memory is lost, counted and told, what lies in the spool is sent by the next one.

mod books;
mod child;
mod messages;
mod parent;

use std::{
    process::ExitCode,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use wire::Span;

pub use messages::{Handling, Start};

use books::Books;
use model::{
    Kind, ProcessSample,
    error::{Context as _, Error, Result},
    notes::Notes,
    text::{counted, grouped, shown},
    totals::{self, Snapshot},
};
use parent::Worker;
use pipeline::ship::Health;

/// Spans that may wait for the process that delivers: about 400 bytes each.
const MAX_QUEUED: usize = 32_768;
/// Samples that may.
const MAX_SAMPLES: usize = 4_096;
/// What it takes to end a process beyond the time that it has for its work.
const GRACE: Duration = Duration::from_secs(2);

/// Does the work of a process that delivers. Answers the exit code.
pub(crate) fn work(parent: u32) -> ExitCode {
    match child::work(parent) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// What became of everything, and how the service is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The counts.
    pub totals: Snapshot,
    /// The service.
    pub health: Health,
    /// Sealed batches that wait.
    pub batches: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Where; `None`: in memory.
    pub folder: Option<String>,
}

/// What waits for the process that delivers.
enum Message {
    Spans(Vec<Span>),
    Samples(Vec<ProcessSample>),
    Change(Box<Handling>),
    /// The process has ended: its number, counted from the first.
    Ended(u64),
    Finish(Duration),
}

/// What the way in, the worker and the status share.
struct Shared {
    books: Mutex<Books>,
    spans: AtomicUsize,
    samples: AtomicUsize,
    /// The run is over: nobody waits before a process is started again.
    over: Mutex<bool>,
    hurry: Condvar,
}

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way in: for the kernel reader, which must never wait.
#[derive(Clone)]
pub struct Intake {
    sender: Sender<Message>,
    shared: Arc<Shared>,
}

impl Intake {
    /// Takes spans, as many as there is room for.
    pub fn spans(&self, spans: Vec<Span>) {
        let queued = &self.shared.spans;
        self.take(Kind::Spans, spans, queued, MAX_QUEUED, Message::Spans);
    }

    /// Takes memory samples.
    pub fn samples(&self, samples: Vec<ProcessSample>) {
        let queued = &self.shared.samples;
        self.take(
            Kind::Metrics,
            samples,
            queued,
            MAX_SAMPLES,
            Message::Samples,
        );
    }

    fn take<T>(
        &self,
        kind: Kind,
        mut items: Vec<T>,
        queued: &AtomicUsize,
        limit: usize,
        message: fn(Vec<T>) -> Message,
    ) {
        // Only one thread fills each queue, so nothing can be added in between.
        let room = limit.saturating_sub(queued.load(Ordering::Relaxed));
        let lost = items.len().saturating_sub(room);
        self.shared
            .books()
            .received(kind, items.len() as u64, lost as u64);
        items.truncate(room);
        queued.fetch_add(items.len(), Ordering::Relaxed);
        if !items.is_empty() {
            // The other side ends only after the last intake is dropped.
            let _ = self.sender.send(message(items));
        }
    }
}

/// What became of everything, for whoever asks.
#[derive(Clone)]
pub struct Reports(Arc<Shared>);

impl Reports {
    /// As far as is known now.
    pub fn now(&self) -> Report {
        self.0.books().now()
    }
}

/// The process that delivers, and what waits for it.
pub struct Delivery {
    intake: Intake,
    done: Receiver<()>,
    kill: parent::Kill,
    patience: Duration,
    notes: Notes,
}

impl Delivery {
    /// Starts it; `spool` is the folder of the spool, where there is one on disk.
    ///
    /// # Errors
    /// Where the process can't be started, or says why it can't do its work.
    pub fn start(
        start: Start,
        spool: Option<std::path::PathBuf>,
        patience: Duration,
    ) -> Result<Self> {
        let notes = Notes { quiet: start.quiet };
        let shared = Arc::new(Shared {
            books: Mutex::new(Books::new(spool.is_some())),
            spans: AtomicUsize::new(0),
            samples: AtomicUsize::new(0),
            over: Mutex::new(false),
            hurry: Condvar::new(),
        });
        let (sender, messages) = channel();
        let kill = parent::Kill::default();
        let worker = Worker::new(start, spool, shared.clone(), sender.clone(), kill.clone());
        let (ready, started) = channel();
        let (over, done) = channel();
        // The process dies with the thread that starts it.
        thread::Builder::new()
            .name("teracron-deliver".to_owned())
            .spawn(move || {
                worker.run(&messages, &ready);
                drop(over);
            })
            .failed(|| "cannot start a thread".to_owned())?;
        let gone = || Error::Failed("the process that delivers could not be started".to_owned());
        started.recv().map_err(|_| gone())??;
        Ok(Self {
            intake: Intake { sender, shared },
            done,
            kill,
            patience,
            notes,
        })
    }

    /// The way in.
    pub fn intake(&self) -> Intake {
        self.intake.clone()
    }

    /// What a status says of it.
    pub fn reports(&self) -> Reports {
        Reports(self.intake.shared.clone())
    }

    /// Takes rules and batch sizes that have changed.
    pub fn change(&self, handling: Handling) {
        let _ = self.intake.sender.send(Message::Change(Box::new(handling)));
    }

    /// Has what is still here packed and sent, for as long as a stop may take, and says what stays. Every intake must be
    /// gone.
    pub fn finish(self) {
        let shared = self.intake.shared.clone();
        *shared.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        shared.hurry.notify_all();
        let _ = self.intake.sender.send(Message::Finish(self.patience));
        drop(self.intake);
        if self.done.recv_timeout(self.patience + GRACE) == Err(RecvTimeoutError::Timeout) {
            self.kill.now();
            let _ = self.done.recv_timeout(GRACE);
        }
        let deaths = shared.books().deaths();
        say_at_the_end(&shared.books().now(), deaths, self.notes);
    }
}

/// The last lines on what became of everything.
fn say_at_the_end(report: &Report, deaths: u64, notes: Notes) {
    for kind in Kind::ALL {
        let of_kind = report.totals.of(kind);
        if of_kind.received + of_kind.left_over > 0 {
            notes.say(&totals::line(kind, of_kind));
        }
    }
    if let Some(line) = totals::scrub_line(&report.totals) {
        notes.say(&line);
    }
    if deaths > 0 {
        notes.say(&format!(
            "the process that delivers ended {} without having been asked to",
            counted(deaths, "time")
        ));
    }
    if report.batches == 0 {
        return;
    }
    let what = format!(
        "{} ({} KiB) not delivered",
        counted(report.batches, "sealed batch"),
        grouped(report.bytes / 1024)
    );
    let reason = match &report.health.failing {
        Some(why) => format!(": {why}"),
        None => String::new(),
    };
    match &report.folder {
        Some(folder) => notes.say(&format!(
            "{what}{reason}; they wait in {} for the next start",
            shown(folder)
        )),
        None => notes.say(&format!(
            "{what}{reason}; they are lost, because --no-spool keeps them in memory only"
        )),
    }
}
