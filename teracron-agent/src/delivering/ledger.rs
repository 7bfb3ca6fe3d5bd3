//! The books of a run over all processes that deliver for it, one after another.
//!
//! received + left over = pending + spooled + shipped + dropped holds at any instant, since `pending` is what is left:
//! what waits to go to the process, is on the way, or in its memory. A process that was killed leaves books that say
//! what it had done, and a spool that is the truth of what waits: both are reconciled when the next one has looked.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::books::{Reader, State};
use model::{
    Kind,
    totals::{Cause, KindTotals, Snapshot},
};

/// What became of the processes that deliver, for `status` and the closing lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    /// The one that runs.
    pub running: Option<u32>,
    /// How many ended that should not have.
    pub ended: u64,
    /// How the last of these ended.
    pub why: Option<String>,
}

#[derive(Default)]
struct Books {
    /// What this process has counted, and what was counted by those that have ended. `spooled` is what the last of
    /// them left; nothing is `pending`.
    past: Snapshot,
    /// What was given to the process that runs, by kind.
    given: [u64; 3],
    /// Of what the last process lost, by kind: as much may turn out to be in the spool.
    doubtful: [u64; 3],
    child: Option<Child>,
    /// How things were when the last process ended.
    state: State,
    processes: Processes,
}

struct Child {
    books: Reader,
    /// It has looked into the spool.
    is_ready: bool,
}

/// The books, shared by those who count and those who tell.
pub struct Ledger {
    books: Mutex<Books>,
    /// What is spooled dies with the process.
    in_memory: bool,
}

fn place(kind: Kind) -> usize {
    kind as usize - 1
}

impl Ledger {
    pub(super) fn new(in_memory: bool) -> Self {
        Self {
            books: Mutex::default(),
            in_memory,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something came in, of which `lost` found no room.
    pub(super) fn received(&self, kind: Kind, count: u64, lost: u64, cause: Cause) {
        let mut books = self.lock();
        let past = books.past.of_mut(kind);
        past.received += count;
        past.dropped.add(cause, lost);
    }

    /// Something that came in can't be delivered any more.
    pub(super) fn dropped(&self, kind: Kind, count: u64, cause: Cause) {
        self.lock().past.of_mut(kind).dropped.add(cause, count);
    }

    /// Something is about to be given to the process.
    pub(super) fn given(&self, kind: Kind, count: u64) {
        self.lock().given[place(kind)] += count;
    }

    /// A process has been started that writes these books.
    pub(super) fn started(&self, pid: u32, books: Reader) {
        let mut all = self.lock();
        all.given = [0; 3];
        all.child = Some(Child {
            books,
            is_ready: false,
        });
        all.processes.running = Some(pid);
    }

    /// It has looked into the spool: what it found there is the truth.
    pub(super) fn is_ready(&self) {
        let mut books = self.lock();
        let Some(child) = &mut books.child else {
            return;
        };
        child.is_ready = true;
        let found = child.books.totals();
        for kind in Kind::ALL {
            let doubtful = std::mem::take(&mut books.doubtful[place(kind)]);
            let found = found.of(kind).left_over;
            let past = books.past.of_mut(kind);
            let known = std::mem::take(&mut past.spooled);
            match found.checked_sub(known) {
                // It was written and not yet booked; the rest is an earlier run's.
                Some(more) => {
                    let saved = more.min(doubtful);
                    past.dropped.take_back(Cause::Ended, saved);
                    past.left_over += more - saved;
                }
                // Taken out and not yet booked: nobody knows how far it came.
                None => past.dropped.add(Cause::Ended, known - found),
            }
        }
    }

    /// It has ended, and writes no more. `why` where it should not have; answers how much was lost with it.
    pub(super) fn ended(&self, why: Option<&str>) -> u64 {
        let mut books = self.lock();
        books.processes.running = None;
        if let Some(why) = why {
            books.processes.ended += 1;
            books.processes.why = Some(why.to_owned());
        }
        let Some(child) = books.child.take() else {
            return 0;
        };
        if child.is_ready {
            books.state = child.books.state();
        }
        let mut sum = 0;
        let last = child.books.totals();
        let given = std::mem::take(&mut books.given);
        if child.is_ready {
            for kind in Kind::ALL {
                let of_child = last.of(kind);
                let on_the_way = match kind {
                    // They are made there.
                    Kind::Events => 0,
                    _ => given[place(kind)].saturating_sub(of_child.received),
                };
                let mut lost = on_the_way.saturating_add(of_child.pending);
                books.doubtful[place(kind)] = lost;
                let past = books.past.of_mut(kind);
                if kind == Kind::Events {
                    past.received = past.received.saturating_add(of_child.received);
                }
                past.shipped = past.shipped.saturating_add(of_child.shipped);
                past.dropped.add_all(&of_child.dropped);
                if self.in_memory {
                    lost = lost.saturating_add(of_child.spooled);
                } else {
                    past.spooled = of_child.spooled;
                }
                past.dropped.add(Cause::Ended, lost);
                sum += lost;
            }
        }
        books.past.scrub_failures = books
            .past
            .scrub_failures
            .saturating_add(last.scrub_failures);
        sum
    }

    /// The counts now.
    pub fn snapshot(&self) -> Snapshot {
        let books = self.lock();
        let mut all = books.past;
        if let Some(child) = &books.child
            && child.is_ready
        {
            let now = child.books.totals();
            for kind in Kind::ALL {
                let (sum, now) = (all.of_mut(kind), now.of(kind));
                if kind == Kind::Events {
                    sum.received = sum.received.saturating_add(now.received);
                }
                sum.spooled = now.spooled;
                sum.shipped = sum.shipped.saturating_add(now.shipped);
                sum.dropped.add_all(&now.dropped);
            }
            all.scrub_failures = all.scrub_failures.saturating_add(now.scrub_failures);
            all.scrubber_fails = now.scrubber_fails;
        }
        for kind in Kind::ALL {
            let sum = all.of_mut(kind);
            sum.pending = left(sum);
        }
        all
    }

    /// How the spool and the service are.
    pub fn state(&self) -> State {
        let books = self.lock();
        match books.child.as_ref().filter(|child| child.is_ready) {
            Some(child) => child.books.state(),
            None => books.state.clone(),
        }
    }

    /// What became of the processes.
    pub fn processes(&self) -> Processes {
        self.lock().processes.clone()
    }
}

/// What is nowhere else.
fn left(of: &KindTotals) -> u64 {
    let known = of
        .spooled
        .saturating_add(of.shipped)
        .saturating_add(of.dropped.sum());
    of.received
        .saturating_add(of.left_over)
        .saturating_sub(known)
}

#[cfg(test)]
mod tests {
    use super::{super::books, *};
    use model::totals::{Place, Totals};
    use proptest::{collection, prelude::*};

    /// A process that delivers, as far as the books go, with a spool that outlives it.
    struct Fake {
        totals: Totals,
        spool: u64,
    }

    impl Fake {
        fn start(ledger: &Ledger, spool: u64) -> Self {
            let file = books::make().unwrap();
            ledger.started(7, Reader::new(file.try_clone().unwrap()));
            let totals = Totals::default();
            let writer = books::Writer::new(file);
            totals.copy_to(move |books| writer.totals(books));
            totals.left_over(Kind::Spans, spool);
            ledger.is_ready();
            Self { totals, spool }
        }
    }

    #[test]
    fn what_a_killed_process_had_is_lost_and_what_it_wrote_is_not() {
        let ledger = Ledger::new(false);
        let mut fake = Fake::start(&ledger, 5);
        ledger.received(Kind::Spans, 110, 10, Cause::QueueFull);
        ledger.given(Kind::Spans, 90);
        fake.totals.received(Kind::Spans, 80);
        fake.totals.spooled(Kind::Spans, 60);
        fake.totals.shipped(Kind::Spans, 20);
        let spans = ledger.snapshot().spans;
        assert!(spans.add_up());
        assert_eq!((spans.pending, spans.spooled, spans.shipped), (40, 45, 20));
        // 30 were in its memory or on the way; 3 of them were written, and not yet booked.
        assert_eq!(ledger.ended(Some("was killed")), 30);
        let spans = ledger.snapshot().spans;
        assert_eq!((spans.pending, spans.spooled, spans.shipped), (10, 45, 20));
        assert_eq!(spans.dropped.of(Cause::Ended), 30);
        fake = Fake::start(&ledger, 48);
        let spans = ledger.snapshot().spans;
        assert_eq!((spans.pending, spans.spooled, spans.left_over), (10, 48, 5));
        assert_eq!(spans.dropped.of(Cause::Ended), 27);
        fake.totals.shipped(Kind::Spans, 48);
        assert_eq!(ledger.snapshot().spans.shipped, 68);
        assert!(ledger.snapshot().spans.add_up());
        assert_eq!(fake.spool, 48);
    }

    #[test]
    fn a_spool_in_memory_is_lost_with_its_process() {
        let ledger = Ledger::new(true);
        let fake = Fake::start(&ledger, 0);
        ledger.received(Kind::Spans, 10, 0, Cause::QueueFull);
        ledger.given(Kind::Spans, 10);
        fake.totals.received(Kind::Spans, 10);
        fake.totals.spooled(Kind::Spans, 10);
        assert_eq!(ledger.ended(Some("was killed")), 10);
        Fake::start(&ledger, 0);
        let spans = ledger.snapshot().spans;
        assert_eq!(spans.dropped.of(Cause::Ended), 10);
        assert!(spans.add_up() && spans.pending == 0);
    }

    proptest! {
        #[test]
        fn any_way_adds_up(moves in collection::vec((0u8..8, 1u64..9), 0..80)) {
            let ledger = Ledger::new(false);
            let mut fake = Fake::start(&ledger, 3);
            let (mut queued, mut given) = (0u64, 0u64);
            for (what, count) in moves {
                let now = fake.totals.snapshot().spans;
                match what {
                    0 => {
                        ledger.received(Kind::Spans, count, count / 3, Cause::QueueFull);
                        queued += count - count / 3;
                    }
                    1 if queued >= count => {
                        ledger.given(Kind::Spans, count);
                        (queued, given) = (queued - count, given + count);
                    }
                    2 if given >= count => {
                        fake.totals.received(Kind::Spans, count);
                        given -= count;
                    }
                    3 if now.pending >= count => {
                        fake.spool += count;
                        fake.totals.spooled(Kind::Spans, count);
                    }
                    4 if now.spooled >= count => {
                        fake.spool -= count;
                        fake.totals.shipped(Kind::Spans, count);
                    }
                    5 if now.pending >= count => {
                        fake.totals.dropped(Kind::Spans, count, Place::Pending, Cause::NotSealed);
                    }
                    // Killed; what it had just written or taken out is not booked.
                    6 | 7 => {
                        ledger.ended(Some("was killed"));
                        let spool = if what == 6 {
                            fake.spool + now.pending.min(count)
                        } else {
                            fake.spool.saturating_sub(count)
                        };
                        given = 0;
                        prop_assert!(ledger.snapshot().spans.add_up());
                        fake = Fake::start(&ledger, spool);
                        prop_assert_eq!(ledger.snapshot().spans.spooled, spool);
                    }
                    _ => {}
                }
                let spans = ledger.snapshot().spans;
                prop_assert!(spans.add_up());
                // What is nowhere else is what waits, is on the way, or in the process's memory.
                prop_assert_eq!(spans.pending, queued + given + fake.totals.snapshot().spans.pending);
            }
        }
    }
}
