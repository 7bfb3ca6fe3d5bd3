//! What waits to go to the process that delivers. Whoever adds to it never waits: what finds no room is counted and gone.

use std::{
    collections::VecDeque,
    fs::File,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::ledger::Ledger;
use model::{
    Kind, ProcessSample,
    totals::{Cause, Snapshot},
};
use wire::Span;

/// Spans that may wait: about 400 bytes each.
const MAX_SPANS: usize = 32_768;
/// Samples that may.
const MAX_SAMPLES: usize = 4_096;
/// Sets of rules that may: the last is what counts, but each holds for what comes behind it.
const MAX_RULES: usize = 16;

/// Something that waits.
pub(super) enum Item {
    /// Spans to send.
    Spans(Vec<Span>),
    /// Samples to send.
    Samples(Vec<ProcessSample>),
    /// New rules for what comes behind, in a file in memory.
    Rules(Arc<File>),
}

/// What there is to do.
pub(super) enum Next {
    /// This is to go.
    Item(Item),
    /// The process has ended.
    Ended,
    /// Nothing comes any more.
    Closed,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    spans: usize,
    samples: usize,
    rules: usize,
    /// Nothing is taken any more, and what waits is to go until then.
    closed: Option<Instant>,
    /// The process that delivers has ended.
    ended: bool,
}

/// The queue.
#[derive(Default)]
pub(super) struct Queue(Mutex<State>, Condvar);

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the first; waits for one, or for an end.
    pub(super) fn next(&self) -> Next {
        let idle =
            |state: &mut State| state.items.is_empty() && state.closed.is_none() && !state.ended;
        let state = self.1.wait_while(self.lock(), idle);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        if state.ended {
            return Next::Ended;
        }
        let item = state.take();
        item.map_or(Next::Closed, Next::Item)
    }

    /// Everything that waits.
    pub(super) fn drain(&self) -> Vec<Item> {
        let mut state = self.lock();
        std::iter::from_fn(|| state.take()).collect()
    }

    /// The process that delivers has ended, or another one runs.
    pub(super) fn set_ended(&self, ended: bool) {
        self.lock().ended = ended;
        self.1.notify_all();
    }

    /// Nothing is taken any more; what waits is to go until then.
    pub(super) fn close(&self, deadline: Instant) {
        self.lock().closed = Some(deadline);
        self.1.notify_all();
    }

    /// Until when what waits is to go, where nothing is taken any more.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.lock().closed
    }

    /// Waits for so long, or until it is closed.
    pub(super) fn wait_closed(&self, most: Duration) {
        let until = Instant::now() + most;
        let mut state = self.lock();
        while state.closed.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.1.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    fn take(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        match &item {
            Item::Spans(spans) => self.spans -= spans.len(),
            Item::Samples(samples) => self.samples -= samples.len(),
            Item::Rules(_) => self.rules -= 1,
        }
        Some(item)
    }

    /// How many of these fit; they are counted as here.
    fn room(&mut self, wanted: usize, of: fn(&mut Self) -> (&mut usize, usize)) -> usize {
        if self.closed.is_some() {
            return 0;
        }
        let (waiting, most) = of(self);
        let room = most.saturating_sub(*waiting).min(wanted);
        *waiting += room;
        room
    }
}

/// The way in: for the kernel reader, which must never wait.
#[derive(Clone)]
pub struct Intake {
    pub(super) queue: Arc<Queue>,
    pub(super) ledger: Arc<Ledger>,
}

impl Intake {
    /// Takes spans, as many as there is room for.
    pub fn spans(&self, spans: Vec<Span>) {
        self.take(Kind::Spans, spans, Item::Spans, |state| {
            (&mut state.spans, MAX_SPANS)
        });
    }

    /// Takes memory samples.
    pub fn samples(&self, samples: Vec<ProcessSample>) {
        self.take(Kind::Metrics, samples, Item::Samples, |state| {
            (&mut state.samples, MAX_SAMPLES)
        });
    }

    fn take<T>(
        &self,
        kind: Kind,
        mut items: Vec<T>,
        item: fn(Vec<T>) -> Item,
        of: fn(&mut State) -> (&mut usize, usize),
    ) {
        let mut state = self.queue.lock();
        let room = state.room(items.len(), of);
        let cause = match state.closed {
            Some(_) => Cause::Stopped,
            None => Cause::QueueFull,
        };
        let lost = items.len() - room;
        // Before anybody can take it on.
        self.ledger
            .received(kind, items.len() as u64, lost as u64, cause);
        let rest = items.split_off(room);
        if !items.is_empty() {
            state.items.push_back(item(items));
            self.queue.1.notify_all();
        }
        drop(state);
        drop(rest);
    }

    /// The way to a queue that nobody empties.
    #[cfg(test)]
    pub(crate) fn to_nobody() -> Self {
        Self {
            queue: Arc::default(),
            ledger: Arc::new(Ledger::new(false)),
        }
    }

    /// What became of what came in.
    pub(crate) fn totals(&self) -> Snapshot {
        self.ledger.snapshot()
    }

    /// New rules for what comes from now on; `false` where too many wait already.
    pub(super) fn rules(&self, rules: Arc<File>) -> bool {
        let mut state = self.queue.lock();
        let taken = state.room(1, |state| (&mut state.rules, MAX_RULES)) == 1;
        if taken {
            state.items.push_back(Item::Rules(rules));
            self.queue.1.notify_all();
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted_by_cause() {
        let intake = Intake::to_nobody();
        let sample = ProcessSample {
            process: Default::default(),
            runtime: String::new(),
            sample: wire::Sample::default(),
        };
        for _ in 0..3 {
            intake.samples(vec![sample.clone(); 2_000]);
        }
        let of = || intake.ledger.snapshot().samples;
        assert_eq!(
            of().dropped.of(Cause::QueueFull),
            6_000 - MAX_SAMPLES as u64
        );
        assert_eq!(of().pending, MAX_SAMPLES as u64);
        assert!(
            matches!(intake.queue.next(), Next::Item(Item::Samples(first)) if first.len() == 2_000)
        );
        intake.samples(vec![sample.clone(); 10]);
        intake.queue.close(Instant::now());
        intake.samples(vec![sample; 5]);
        assert_eq!(of().dropped.of(Cause::Stopped), 5);
        assert!(of().add_up());
        assert_eq!(intake.queue.drain().len(), 3);
        assert!(matches!(intake.queue.next(), Next::Closed));
    }
}
