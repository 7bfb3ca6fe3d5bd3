//! From spans and samples to sealed batches: scrub, batch, seal, spool, in a thread of its own.
//!
//! Its queue is bounded and never blocks whoever fills it: what finds no room is counted and gone.

mod worker;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use wire::Span;

use crate::{
    batch::{Samples, Spans},
    scrub::Scrubber,
    spool::SharedSpool,
};
use model::{
    Kind, ProcessSample,
    error::{Context as _, Result},
    notes::Notes,
    totals::{Cause, Place, Totals},
};
use wire::seal::Sealer;

use worker::Worker;

/// Spans that may wait to be sealed: about 400 bytes each.
const MAX_QUEUED: usize = 32_768;
/// Samples that may.
const MAX_SAMPLES: usize = 4_096;

/// What a batch is, and when it is due.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Batching {
    /// Name of the project.
    pub slug: String,
    /// Spans per batch.
    pub spans: usize,
    /// Longest wait of a span.
    pub spans_wait: Duration,
    /// Samples per batch.
    pub samples: usize,
    /// Longest wait of a sample.
    pub samples_wait: Duration,
    /// Workflow events are made of spans, too.
    pub events: bool,
}

impl Batching {
    fn of_spans(&self) -> Spans {
        Spans::new(&self.slug, self.spans, self.spans_wait, self.events)
    }

    fn of_samples(&self) -> Samples {
        Samples::new(self.samples, self.samples_wait)
    }
}

/// What is done on the way to the wire: may be changed while the agent runs.
pub struct Rules {
    /// Batches.
    pub batching: Batching,
    /// What must not leave.
    pub scrubber: Scrubber,
}

enum Message {
    Spans(Vec<Span>),
    Samples(Vec<ProcessSample>),
    Rules(Box<Rules>),
}

/// Where sealed batches go.
pub struct Outlet {
    /// Encrypts.
    pub sealer: Sealer,
    /// Keeps.
    pub spool: SharedSpool,
    /// Wakes whoever sends.
    pub wake: Arc<Notify>,
    /// Tells problems to the user.
    pub notes: Notes,
}

/// How much waits to be sealed.
#[derive(Debug, Default)]
struct Queued {
    spans: AtomicUsize,
    samples: AtomicUsize,
}

/// The way in: for the kernel reader, which must never wait.
#[derive(Clone)]
pub struct Intake {
    sender: Sender<Message>,
    queued: Arc<Queued>,
    totals: Arc<Totals>,
}

impl Intake {
    /// Takes spans, as many as there is room for.
    pub fn spans(&self, spans: Vec<Span>) {
        let (queued, limit) = (&self.queued.spans, MAX_QUEUED);
        self.take(Kind::Spans, spans, queued, limit, Message::Spans);
    }

    /// Spans and samples that wait to be sealed: for those who can wait with the next.
    pub fn waiting(&self) -> usize {
        self.queued.spans.load(Ordering::Relaxed) + self.queued.samples.load(Ordering::Relaxed)
    }

    /// Takes memory samples.
    pub fn samples(&self, samples: Vec<ProcessSample>) {
        let (queued, limit) = (&self.queued.samples, MAX_SAMPLES);
        self.take(Kind::Metrics, samples, queued, limit, Message::Samples);
    }

    fn take<T>(
        &self,
        kind: Kind,
        mut items: Vec<T>,
        queued: &AtomicUsize,
        limit: usize,
        message: fn(Vec<T>) -> Message,
    ) {
        let room = take_room(queued, limit, items.len());
        self.totals.received(kind, items.len() as u64);
        let lost = items.len().saturating_sub(room);
        if lost > 0 {
            self.totals
                .dropped(kind, lost as u64, Place::Pending, Cause::QueueFull);
        }
        items.truncate(room);
        if !items.is_empty() {
            // The other side ends only after the last intake is dropped.
            let _ = self.sender.send(message(items));
        }
    }

    /// Changes the rules for what comes from now on.
    pub fn rules(&self, rules: Rules) {
        let _ = self.sender.send(Message::Rules(Box::new(rules)));
    }
}

/// How many of `wanted` fit below `limit`; they are taken.
fn take_room(queued: &AtomicUsize, limit: usize, wanted: usize) -> usize {
    // Only one thread fills each queue, so nothing can be added in between.
    let room = limit
        .saturating_sub(queued.load(Ordering::Relaxed))
        .min(wanted);
    queued.fetch_add(room, Ordering::Relaxed);
    room
}

/// The thread that packs.
pub struct Packer {
    thread: JoinHandle<()>,
    intake: Intake,
    deadline: Arc<OnceLock<Instant>>,
}

impl Packer {
    /// Starts it.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(rules: Rules, outlet: Outlet, totals: Arc<Totals>) -> Result<Self> {
        Self::start_until(rules, outlet, totals, Arc::default())
    }

    /// The same; what is not sealed at `deadline`, which may be set at any time, is dropped.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_until(
        rules: Rules,
        outlet: Outlet,
        totals: Arc<Totals>,
        deadline: Arc<OnceLock<Instant>>,
    ) -> Result<Self> {
        let (sender, messages) = channel();
        let queued = Arc::new(Queued::default());
        let intake = Intake {
            sender,
            queued: queued.clone(),
            totals: totals.clone(),
        };
        let worker = Worker::new(rules, outlet, totals, queued, deadline.clone());
        let thread = thread::Builder::new()
            .name("teracron-pack".to_owned())
            .spawn(move || worker.run(&messages))
            .failed(|| "cannot start a thread".to_owned())?;
        Ok(Self {
            thread,
            intake,
            deadline,
        })
    }

    /// The way in.
    pub fn intake(&self) -> Intake {
        self.intake.clone()
    }

    /// Packs everything that waits, until `deadline`, and ends. Every other intake must be gone.
    pub fn finish(self, deadline: Instant) {
        let _ = self.deadline.set(deadline);
        drop(self.intake);
        let _ = self.thread.join();
    }
}
