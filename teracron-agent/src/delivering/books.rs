//! What became of everything, over all processes that delivered in a run: each keeps its own books and tells of them, and
//! may end at any moment without a word.

use super::Report;
use model::{
    Kind,
    totals::{Cause, Dropped, Snapshot},
};

/// Counts of one kind that no process has any more.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    /// Came in.
    received: u64,
    /// There was no room.
    full: u64,
    /// Handed to the present process.
    sent: u64,
    /// Waited in the spool when the run began.
    left_over: u64,
    /// Shipped by processes that have ended.
    shipped: u64,
    /// Dropped by them.
    dropped: Dropped,
    /// In the spool when the last one ended, as far as it had told.
    spooled: u64,
    /// Lost with their memory.
    lost: u64,
    /// Of these, with that of the last one.
    lost_last: u64,
}

/// The books.
#[derive(Debug)]
pub(super) struct Books {
    kept: [Kept; Kind::ALL.len()],
    /// What the present process told last.
    now: Option<Report>,
    /// Processes that have ended.
    ended: u64,
    /// The spool outlives its process.
    on_disk: bool,
}

impl Books {
    pub(super) fn new(on_disk: bool) -> Self {
        Self {
            kept: Default::default(),
            now: None,
            ended: 0,
            on_disk,
        }
    }

    fn of(&mut self, kind: Kind) -> &mut Kept {
        // Kinds are numbered from 1.
        &mut self.kept[kind as usize - 1]
    }

    /// Something came in; for `full` of it there was no room.
    pub(super) fn received(&mut self, kind: Kind, count: u64, full: u64) {
        let kept = self.of(kind);
        kept.received += count;
        kept.full += full;
    }

    /// Something is handed to the present process.
    pub(super) fn sent(&mut self, kind: Kind, count: u64) {
        self.of(kind).sent += count;
    }

    /// Something will not be handed to any process any more.
    pub(super) fn stopped(&mut self, kind: Kind, count: u64) {
        self.of(kind).dropped.add(Cause::Stopped, count);
    }

    /// What the present process tells.
    pub(super) fn report(&mut self, report: Report) {
        if self.now.is_none() {
            self.begin(&report.totals);
        }
        self.now = Some(report);
    }

    /// The first word of a process: what it found in the spool is what the one before left there.
    fn begin(&mut self, totals: &Snapshot) {
        for kind in Kind::ALL {
            let found = totals.of(kind).left_over;
            let (first, on_disk) = (self.ended == 0, self.on_disk);
            let kept = self.of(kind);
            if first {
                kept.left_over = found;
                continue;
            }
            // Written after its last word, and not lost after all.
            let saved = found.saturating_sub(kept.spooled).min(kept.lost_last);
            kept.lost -= saved;
            let gone = kept.spooled.saturating_sub(found);
            if on_disk {
                // Only what was delivered is removed.
                kept.shipped += gone;
            } else {
                kept.lost += gone;
            }
            kept.spooled = 0;
        }
    }

    /// The present process has ended without having been asked to.
    pub(super) fn ended(&mut self) {
        let told = self.now.take().map(|report| report.totals);
        let told = told.unwrap_or_default();
        self.ended += 1;
        for kind in Kind::ALL {
            let told = told.of(kind);
            let kept = self.of(kind);
            if kind == Kind::Events {
                // They are made of spans, there.
                kept.received += told.received;
                kept.sent = told.received;
            }
            let had = kept.sent + told.left_over;
            let known = told.spooled + told.shipped + told.dropped.sum();
            kept.lost_last = had.saturating_sub(known);
            kept.lost += kept.lost_last;
            kept.shipped += told.shipped;
            kept.dropped.add_all(&told.dropped);
            // One that never told a word has left what was there.
            if known > 0 || told.left_over > 0 {
                kept.spooled = told.spooled;
            }
            kept.sent = 0;
        }
    }

    /// Processes that have ended without having been asked to.
    pub(super) fn deaths(&self) -> u64 {
        self.ended
    }

    /// Everything, with what the present process told last.
    pub(super) fn now(&self) -> Report {
        let mut report = self.now.clone().unwrap_or_default();
        for kind in Kind::ALL {
            let told = *report.totals.of(kind);
            let kept = self.kept[kind as usize - 1];
            let totals = report.totals.of_mut(kind);
            totals.received = kept.received;
            if kind == Kind::Events {
                totals.received += told.received;
            }
            totals.left_over = kept.left_over;
            totals.shipped += kept.shipped;
            if self.now.is_none() {
                totals.spooled = kept.spooled;
            }
            totals.dropped.add_all(&kept.dropped);
            totals.dropped.add(Cause::QueueFull, kept.full);
            totals.dropped.add(Cause::Ended, kept.lost);
            let elsewhere = totals.shipped + totals.spooled + totals.dropped.sum();
            // The rest is on its way: here, there, or between.
            totals.pending = (totals.received + totals.left_over).saturating_sub(elsewhere);
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::totals::{Place, Totals};
    use proptest::prelude::*;

    /// A process as it is, of which the books hear only at times.
    struct Process {
        totals: Totals,
    }

    fn started(disk: u64) -> Process {
        let totals = Totals::default();
        totals.left_over(Kind::Spans, disk);
        Process { totals }
    }

    fn told(process: &Process) -> Report {
        Report {
            totals: process.totals.snapshot(),
            ..Report::default()
        }
    }

    proptest! {
        /// Whatever a process does between two words of it, and whenever it ends: everything that came in is in one
        /// place, and what is said to be lost was not sent.
        #[test]
        fn nothing_is_counted_twice_or_forgotten(on_disk: bool, steps in proptest::collection::vec((0u8..8, 1u64..5), 1..80)) {
            let mut books = Books::new(on_disk);
            let mut process = started(3);
            books.report(told(&process));
            let (mut sent, mut shipped, mut queued) = (0, 0, 0u64);
            for (what, count) in steps {
                let now = process.totals.snapshot().spans;
                match what {
                    0 | 1 => {
                        books.received(Kind::Spans, count + 1, 1);
                        queued += count;
                    }
                    2 if queued >= count => {
                        queued -= count;
                        books.sent(Kind::Spans, count);
                        process.totals.received(Kind::Spans, count);
                        sent += count;
                    }
                    3 if now.pending >= count => process.totals.spooled(Kind::Spans, count),
                    4 if now.spooled >= count => {
                        process.totals.shipped(Kind::Spans, count);
                        shipped += count;
                    }
                    5 if now.spooled >= count => {
                        process.totals.dropped(Kind::Spans, count, Place::Spooled, Cause::Rejected);
                    }
                    6 => books.report(told(&process)),
                    7 => {
                        books.ended();
                        let spooled = process.totals.snapshot().spans.spooled;
                        process = started(if on_disk { spooled } else { 0 });
                        books.report(told(&process));
                    }
                    _ => {}
                }
                let all = books.now().totals.spans;
                prop_assert!(all.add_up(), "{all:?}");
                let lost = all.dropped.of(Cause::Ended);
                prop_assert!(lost <= sent + 3, "{all:?}");
                prop_assert!(all.pending >= queued, "{all:?}");
            }
            books.report(told(&process));
            let all = books.now().totals.spans;
            let there = process.totals.snapshot().spans;
            prop_assert!(all.add_up());
            prop_assert_eq!(all.pending, queued + there.pending);
            prop_assert_eq!(all.spooled, there.spooled);
            // What was told as shipped was; at the last moments of a process that is guessed from what it left.
            if !on_disk {
                prop_assert!(all.shipped <= shipped);
            }
        }
    }

    #[test]
    fn what_was_in_memory_is_lost_and_what_lies_on_disk_is_not() {
        let mut books = Books::new(true);
        books.report(Report::default());
        books.received(Kind::Spans, 10, 0);
        books.sent(Kind::Spans, 10);
        let process = started(0);
        process.totals.received(Kind::Spans, 10);
        process.totals.spooled(Kind::Spans, 6);
        process.totals.shipped(Kind::Spans, 2);
        books.report(told(&process));
        books.ended();
        let spans = books.now().totals.spans;
        assert_eq!((spans.shipped, spans.spooled, spans.pending), (2, 4, 0));
        assert_eq!(spans.dropped.of(Cause::Ended), 4);
        // It had delivered one more than it had told, and the next one finds the rest.
        books.report(told(&started(3)));
        let spans = books.now().totals.spans;
        assert_eq!((spans.shipped, spans.spooled, spans.left_over), (3, 3, 0));
        assert!(spans.add_up());
        assert_eq!(books.deaths(), 1);
    }
}
