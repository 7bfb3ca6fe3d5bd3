//! The loop behind the queue.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use wire::Span;

use super::{Message, Outlet, Queued, Rules};
use crate::{
    batch::{Batch, Samples, Spans},
    scrub::Scrubber,
    spool::Entry,
};
use model::{
    Kind, ProcessSample, text,
    totals::{Cause, Place, Totals},
};

/// Batches that are written to the spool together: its folder is synced once for all.
const GROUP: usize = 16;
/// Problems that would repeat with every batch are told this often.
const SAY_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Worker {
    scrubber: Scrubber,
    spans: Spans,
    samples: Samples,
    outlet: Outlet,
    totals: Arc<Totals>,
    queued: Arc<Queued>,
    /// Set when the agent stops.
    deadline: Arc<OnceLock<Instant>>,
    sealed: Vec<Entry>,
    said: Option<Instant>,
    /// When a failure of the scrubber was told the last time, and whether the present one was.
    said_scrubber: Option<Instant>,
    scrubber_told: bool,
    scrubber_fails: bool,
}

impl Worker {
    pub(super) fn new(
        rules: Rules,
        outlet: Outlet,
        totals: Arc<Totals>,
        queued: Arc<Queued>,
        deadline: Arc<OnceLock<Instant>>,
    ) -> Self {
        Self {
            spans: rules.batching.of_spans(),
            samples: rules.batching.of_samples(),
            scrubber: rules.scrubber,
            outlet,
            totals,
            queued,
            deadline,
            sealed: Vec::new(),
            said: None,
            said_scrubber: None,
            scrubber_told: false,
            scrubber_fails: false,
        }
    }

    /// Until every way in is gone.
    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let message = match messages.try_recv() {
                Ok(message) => Some(message),
                Err(_) => {
                    // Nothing more comes at once: what is sealed waits no longer.
                    self.spool();
                    let due = [self.spans.due(), self.samples.due()]
                        .into_iter()
                        .flatten()
                        .min();
                    let received = match due {
                        Some(due) => {
                            messages.recv_timeout(due.saturating_duration_since(Instant::now()))
                        }
                        None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
                    };
                    match received {
                        Ok(message) => Some(message),
                        Err(RecvTimeoutError::Timeout) => None,
                        Err(RecvTimeoutError::Disconnected) => break,
                    }
                }
            };
            match message {
                Some(Message::Spans(spans)) => self.take_spans(spans),
                Some(Message::Samples(samples)) => self.take_samples(samples),
                Some(Message::Rules(rules)) => self.change(*rules),
                None => {}
            }
            self.flush_due();
        }
        self.flush_all();
        self.spool();
    }

    fn change(&mut self, rules: Rules) {
        self.flush_all();
        self.spans = rules.batching.of_spans();
        self.samples = rules.batching.of_samples();
        self.scrubber = rules.scrubber;
        self.scrubber_fails = false;
        self.totals.scrubber_fails(false);
    }

    fn take_spans(&mut self, spans: Vec<Span>) {
        let (mut failed, mut late) = (0, 0);
        let now = Instant::now();
        for mut span in spans {
            self.queued.spans.fetch_sub(1, Ordering::Relaxed);
            if self.is_late() {
                late += 1;
                continue;
            }
            if !self.scrubber.scrub(&mut span) {
                failed += 1;
            }
            let full = self.spans.push(&span, now);
            self.seal(full);
        }
        if failed > 0 {
            self.totals.scrub_failed(failed);
        }
        self.look_at_scrubber();
        if late > 0 {
            self.totals
                .dropped(Kind::Spans, late, Place::Pending, Cause::Stopped);
        }
    }

    /// Tells when the user's scrubber begins to fail, and when it answers again.
    fn look_at_scrubber(&mut self) {
        let why = self.scrubber.failing();
        if why.is_some() == self.scrubber_fails {
            return;
        }
        self.scrubber_fails = why.is_some();
        self.totals.scrubber_fails(why.is_some());
        match why {
            Some(why)
                if self
                    .said_scrubber
                    .is_none_or(|said| said.elapsed() >= SAY_EVERY) =>
            {
                self.said_scrubber = Some(Instant::now());
                self.scrubber_told = true;
                self.outlet.notes.say(&format!(
                    "the scrubber fails: {}; spans go without metadata, parameters and error message until it answers",
                    text::shown(why)
                ));
            }
            // It comes and goes: told often enough.
            Some(_) => self.scrubber_told = false,
            None if self.scrubber_told => self.outlet.notes.say("the scrubber answers again"),
            None => {}
        }
    }

    /// The agent stops, and its time is over: only a scrubber that is slow lets it come to this.
    fn is_late(&self) -> bool {
        self.deadline
            .get()
            .is_some_and(|deadline| Instant::now() > *deadline)
    }

    fn take_samples(&mut self, samples: Vec<ProcessSample>) {
        self.queued
            .samples
            .fetch_sub(samples.len(), Ordering::Relaxed);
        let now = Instant::now();
        for ProcessSample {
            process,
            runtime,
            sample,
        } in samples
        {
            let full = self.samples.push(process.pid, &runtime, sample, now);
            self.seal(full);
        }
    }

    fn flush_due(&mut self) {
        let now = Instant::now();
        if self.spans.due().is_some_and(|due| due <= now) {
            let spans = self.spans.flush();
            self.seal(spans);
        }
        if self.samples.due().is_some_and(|due| due <= now) {
            let samples = self.samples.take_due(now);
            self.seal(samples);
        }
    }

    fn flush_all(&mut self) {
        let spans = self.spans.flush();
        self.seal(spans);
        let samples = self.samples.flush();
        self.seal(samples);
    }

    fn seal(&mut self, batches: Vec<Batch>) {
        for Batch {
            kind,
            count,
            plaintext,
        } in batches
        {
            if kind == Kind::Events {
                // They are made of spans, here.
                self.totals.received(kind, count.into());
            }
            match self.outlet.sealer.seal(plaintext) {
                Ok(envelope) => self.sealed.push(Entry {
                    kind,
                    count,
                    envelope,
                }),
                Err(error) => {
                    self.totals
                        .dropped(kind, count.into(), Place::Pending, Cause::NotSealed);
                    self.say(&error.to_string());
                }
            }
        }
        if self.sealed.len() >= GROUP {
            self.spool();
        }
    }

    /// Gives what is sealed to the spool.
    fn spool(&mut self) {
        let sealed = std::mem::take(&mut self.sealed);
        if sealed.is_empty() {
            return;
        }
        let added = self.outlet.spool.add(&sealed, &self.totals);
        for entry in &sealed {
            log::debug!("sealed {} {}", entry.count, entry.kind.name());
        }
        if let Err(error) = added {
            self.say(&format!(
                "cannot write to the spool: {error}; what is sealed now is lost, and counted"
            ));
        }
        self.outlet.wake.notify_one();
    }

    fn say(&mut self, problem: &str) {
        if self.said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            self.said = Some(Instant::now());
            self.outlet.notes.say(problem);
        }
    }
}
