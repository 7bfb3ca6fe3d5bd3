//! What became of everything: each span, sample and event that was received is in exactly one place.
//!
//! received + left over = pending + spooled + shipped + dropped, at any instant and for each kind; a
//! way through the agent that forgets to book a move leaves it in `pending` for ever, which the last
//! line of a run shows.

use std::{
    fmt,
    sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::Kind;

/// Why something was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Cause {
    /// Sealing could not keep up: the queue behind the reader was full.
    QueueFull,
    /// It could not be encrypted.
    NotSealed,
    /// The spool could not be written.
    SpoolFailed,
    /// The spool was full: the oldest go.
    SpoolFull,
    /// The service will never take it; it lies in the dead-letter folder.
    Rejected,
    /// It was damaged while it waited on disk; it was set aside.
    Torn,
    /// The agent stopped before it could be sealed.
    Stopped,
    /// The process that delivers ended, with this in its memory.
    Ended,
    /// More than a terminal can show.
    NotShown,
    /// Nobody read it in time.
    Unread,
    /// Nobody reads any more.
    Closed,
}

impl Cause {
    /// All causes.
    pub const ALL: [Self; 11] = [
        Self::QueueFull,
        Self::NotSealed,
        Self::SpoolFailed,
        Self::SpoolFull,
        Self::Rejected,
        Self::Torn,
        Self::Stopped,
        Self::Ended,
        Self::NotShown,
        Self::Unread,
        Self::Closed,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue full",
            Self::NotSealed => "not sealed",
            Self::SpoolFailed => "spool failed",
            Self::SpoolFull => "spool full",
            Self::Rejected => "rejected",
            Self::Torn => "torn",
            Self::Stopped => "stopped",
            Self::Ended => "delivering ended",
            Self::NotShown => "not shown",
            Self::Unread => "not read in time",
            Self::Closed => "closed",
        }
    }
}

/// Where something is while the agent has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In memory, not yet encrypted.
    Pending,
    /// Encrypted, waiting for the service to take it.
    Spooled,
}

/// Counts of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindTotals {
    /// Came in during this run.
    pub received: u64,
    /// Waited in the spool from an earlier run.
    pub left_over: u64,
    /// In memory, not yet encrypted.
    pub pending: u64,
    /// Encrypted, waiting.
    pub spooled: u64,
    /// Taken by the service (202), or written where it is shown.
    pub shipped: u64,
    /// Lost, by cause.
    pub dropped: Dropped,
}

/// Counts by [`Cause`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped([u64; Cause::ALL.len()]);

impl Dropped {
    /// Of one cause.
    pub fn of(&self, cause: Cause) -> u64 {
        self.0[cause as usize]
    }

    /// Of all.
    pub fn sum(&self) -> u64 {
        self.0.iter().sum()
    }

    /// More of one cause.
    pub fn add(&mut self, cause: Cause, count: u64) {
        let sum = &mut self.0[cause as usize];
        *sum = sum.saturating_add(count);
    }

    /// Less of one cause, where it turns out that it was not lost.
    pub fn take_back(&mut self, cause: Cause, count: u64) {
        let sum = &mut self.0[cause as usize];
        *sum = sum.saturating_sub(count);
    }

    /// All of others, too.
    pub fn add_all(&mut self, others: &Self) {
        for (sum, more) in self.0.iter_mut().zip(others.0) {
            *sum = sum.saturating_add(more);
        }
    }

    /// Causes that occurred, with their counts.
    pub fn causes(&self) -> impl Iterator<Item = (Cause, u64)> {
        Cause::ALL
            .into_iter()
            .map(|cause| (cause, self.of(cause)))
            .filter(|(_, count)| *count > 0)
    }
}

impl KindTotals {
    /// Whether everything that came in is accounted for.
    pub fn add_up(&self) -> bool {
        self.received + self.left_over
            == self.pending + self.spooled + self.shipped + self.dropped.sum()
    }

    fn place(&mut self, place: Place) -> &mut u64 {
        match place {
            Place::Pending => &mut self.pending,
            Place::Spooled => &mut self.spooled,
        }
    }
}

/// Counts of all kinds at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Spans.
    pub spans: KindTotals,
    /// Memory samples.
    pub samples: KindTotals,
    /// Workflow events.
    pub events: KindTotals,
    /// Spans that lost metadata, parameters and error message because the scrubber failed.
    pub scrub_failures: u64,
    /// The user's scrubber does not answer at present.
    pub scrubber_fails: bool,
}

impl Snapshot {
    /// Of one kind.
    pub fn of(&self, kind: Kind) -> &KindTotals {
        match kind {
            Kind::Spans => &self.spans,
            Kind::Metrics => &self.samples,
            Kind::Events => &self.events,
        }
    }

    /// The same, to be changed.
    pub fn of_mut(&mut self, kind: Kind) -> &mut KindTotals {
        match kind {
            Kind::Spans => &mut self.spans,
            Kind::Metrics => &mut self.samples,
            Kind::Events => &mut self.events,
        }
    }
}

/// Is told every change, before anybody else sees it.
type Listener = Box<dyn Fn(&Snapshot) + Send + Sync>;

/// The books of a run, shared by its threads. They are written once per batch, not per span.
#[derive(Default)]
pub struct Totals {
    books: Mutex<Snapshot>,
    changed: Condvar,
    copy: OnceLock<Listener>,
}

impl fmt::Debug for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Totals").field(&self.books).finish()
    }
}

impl Totals {
    fn books(&self) -> MutexGuard<'_, Snapshot> {
        // A panic elsewhere leaves the numbers as they were.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has every change copied from now on, while nobody can make another. Only the first call counts.
    pub fn copy_to(&self, copy: impl Fn(&Snapshot) + Send + Sync + 'static) {
        let _ = self.copy.set(Box::new(copy));
    }

    fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut books = self.books();
        change(&mut books);
        if let Some(copy) = self.copy.get() {
            copy(&books);
        }
        self.changed.notify_all();
    }

    fn change_kind(&self, kind: Kind, change: impl FnOnce(&mut KindTotals)) {
        self.change(|books| change(books.of_mut(kind)));
    }

    /// Waits until the counts are others than `known`, or `most` is over; answers them.
    pub fn wait(&self, known: &Snapshot, most: Duration) -> Snapshot {
        let waited = self
            .changed
            .wait_timeout_while(self.books(), most, |now| now == known);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Something came in.
    pub fn received(&self, kind: Kind, count: u64) {
        self.change_kind(kind, |totals| {
            totals.received += count;
            totals.pending += count;
        });
    }

    /// Something waited from an earlier run.
    pub fn left_over(&self, kind: Kind, count: u64) {
        self.change_kind(kind, |totals| {
            totals.left_over += count;
            totals.spooled += count;
        });
    }

    /// Something was encrypted and waits now.
    pub fn spooled(&self, kind: Kind, count: u64) {
        self.change_kind(kind, |totals| {
            totals.pending = totals.pending.saturating_sub(count);
            totals.spooled += count;
        });
    }

    /// The service took something that waited.
    pub fn shipped(&self, kind: Kind, count: u64) {
        self.change_kind(kind, |totals| {
            totals.spooled = totals.spooled.saturating_sub(count);
            totals.shipped += count;
        });
    }

    /// Something that was in `place` is lost.
    pub fn dropped(&self, kind: Kind, count: u64, place: Place, cause: Cause) {
        self.change_kind(kind, |totals| {
            let left = totals.place(place);
            *left = left.saturating_sub(count);
            totals.dropped.0[cause as usize] += count;
        });
    }

    /// A span lost its data because the scrubber failed.
    pub fn scrub_failed(&self, spans: u64) {
        self.change(|books| books.scrub_failures += spans);
    }

    /// Whether the user's scrubber answers.
    pub fn scrubber_fails(&self, fails: bool) {
        self.change(|books| books.scrubber_fails = fails);
    }

    /// The counts now.
    pub fn snapshot(&self) -> Snapshot {
        *self.books()
    }
}

/// One line for people on what the scrubber cost; `None` where it cost nothing.
pub fn scrub_line(totals: &Snapshot) -> Option<String> {
    let count = totals.scrub_failures;
    (count > 0).then(|| {
        format!(
            "{} without metadata, parameters and error message because the scrubber failed",
            crate::text::counted(count, "span")
        )
    })
}

/// One line for people: `spans 1,200 received = 1,100 shipped + 100 in the spool`.
pub fn line(kind: Kind, totals: &KindTotals) -> String {
    use crate::text::grouped;
    let mut text = format!("{} {} received", kind.name(), grouped(totals.received));
    if totals.left_over > 0 {
        text.push_str(&format!(" + {} left over", grouped(totals.left_over)));
    }
    text.push_str(&format!(" = {} shipped", grouped(totals.shipped)));
    for (count, what) in [
        (totals.spooled, "in the spool"),
        (totals.pending, "in memory"),
        (totals.dropped.sum(), "dropped"),
    ] {
        if count > 0 {
            text.push_str(&format!(" + {} {what}", grouped(count)));
        }
    }
    if totals.dropped.sum() > 0 {
        let causes: Vec<String> = totals
            .dropped
            .causes()
            .map(|(cause, count)| format!("{} {}", cause.name(), grouped(count)))
            .collect();
        text.push_str(&format!(" ({})", causes.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines() {
        let totals = Totals::default();
        totals.left_over(Kind::Spans, 10);
        totals.received(Kind::Spans, 1200);
        totals.dropped(Kind::Spans, 7, Place::Pending, Cause::QueueFull);
        totals.spooled(Kind::Spans, 1100);
        totals.shipped(Kind::Spans, 1000);
        totals.dropped(Kind::Spans, 3, Place::Spooled, Cause::SpoolFull);
        let snapshot = totals.snapshot();
        assert!(snapshot.spans.add_up());
        insta::assert_snapshot!(line(Kind::Spans, &snapshot.spans), @"spans 1,200 received + 10 left over = 1,000 shipped + 107 in the spool + 93 in memory + 10 dropped (queue full 7, spool full 3)");
        insta::assert_snapshot!(line(Kind::Events, &snapshot.events), @"events 0 received = 0 shipped");
    }

    proptest! {
        #[test]
        fn any_way_adds_up(moves in proptest::collection::vec((0u8..4, 1u64..5), 0..50)) {
            let totals = Totals::default();
            for (what, count) in moves {
                let now = totals.snapshot().samples;
                match what {
                    0 => totals.received(Kind::Metrics, count),
                    1 if now.pending >= count => totals.spooled(Kind::Metrics, count),
                    2 if now.spooled >= count => totals.shipped(Kind::Metrics, count),
                    3 if now.spooled >= count => totals.dropped(Kind::Metrics, count, Place::Spooled, Cause::Rejected),
                    _ => {}
                }
                prop_assert!(totals.snapshot().samples.add_up());
            }
        }
    }
}
