//! The loop that sends.

use std::time::{Duration, Instant};

use tokio::{
    sync::watch,
    task::{JoinSet, spawn_blocking},
    time::sleep_until,
};

use super::{Backoff, Route, SharedHealth, Verdict};
use crate::spool::{EntryError, Head};
use model::totals::{Cause, Place};

/// Requests under way at a time.
const WINDOW: usize = 4;
/// What goes on for longer is told again this often.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// What became of an entry that was taken to be sent.
enum Outcome {
    Answered(Verdict),
    Unreadable(EntryError),
}

pub(super) struct Worker {
    route: Route,
    stopped: watch::Receiver<Option<Instant>>,
    health: SharedHealth,
    backoff: Backoff,
    /// Nothing is sent before.
    hold: Option<Instant>,
    /// The service asked for that.
    asked: bool,
    said_failing: Option<Instant>,
    said_rejected: Option<Instant>,
}

impl Worker {
    pub(super) fn new(
        route: Route,
        stopped: watch::Receiver<Option<Instant>>,
        health: SharedHealth,
    ) -> Self {
        Self {
            route,
            stopped,
            health,
            backoff: Backoff::default(),
            hold: None,
            asked: false,
            said_failing: None,
            said_rejected: None,
        }
    }

    pub(super) async fn run(mut self) {
        let mut flying: JoinSet<(Head, Outcome)> = JoinSet::new();
        loop {
            // While the service fails, one request at a time finds out whether it still does.
            let window = if self.backoff.is_failing() { 1 } else { WINDOW };
            while self.hold.is_none() && flying.len() < window {
                let Some(head) = self.route.spool.take_next() else {
                    break;
                };
                self.send(&mut flying, head);
            }
            let deadline = *self.stopped.borrow_and_update();
            if let Some(deadline) = deadline
                && flying.is_empty()
                && self.hold.is_none_or(|hold| hold >= deadline)
            {
                return; // nothing waits, or nothing can be sent in time
            }
            let never = Instant::now() + Duration::from_secs(86_400);
            tokio::select! {
                Some(done) = flying.join_next() => {
                    if let Ok((head, outcome)) = done {
                        self.book(head, outcome);
                    }
                }
                () = self.route.wake.notified() => {}
                () = sleep_until(self.hold.unwrap_or(never).into()), if self.hold.is_some() => {
                    self.hold = None;
                    self.asked = false;
                }
                changed = self.stopped.changed() => {
                    if changed.is_err() {
                        return; // whoever started us is gone
                    }
                    // The last chance is taken at once, unless the service asked for patience.
                    if !self.asked {
                        self.hold = None;
                    }
                }
                () = sleep_until(deadline.unwrap_or(never).into()), if deadline.is_some() => return,
            }
        }
    }

    fn send(&self, flying: &mut JoinSet<(Head, Outcome)>, head: Head) {
        self.health.lock().requests += 1;
        let (courier, spool) = (self.route.courier.clone(), self.route.spool.clone());
        flying.spawn(async move {
            let read = spawn_blocking(move || spool.read(head.number)).await;
            let outcome = match read {
                Ok(Ok(entry)) => Outcome::Answered(courier.send(entry).await),
                Ok(Err(error)) => Outcome::Unreadable(error),
                Err(_) => Outcome::Unreadable(EntryError::Gone),
            };
            (head, outcome)
        });
    }

    fn book(&mut self, head: Head, outcome: Outcome) {
        let Route { spool, totals, .. } = &self.route;
        let count = u64::from(head.count);
        match outcome {
            Outcome::Answered(Verdict::Delivered) => {
                if spool.delivered(head.number).is_some() {
                    totals.shipped(head.kind, count);
                }
                self.works();
            }
            Outcome::Answered(Verdict::Rejected { why }) => {
                if spool.rejected(head.number, &why).is_some() {
                    totals.dropped(head.kind, count, Place::Spooled, Cause::Rejected);
                }
                let what = format!("{count} {} were rejected: {why}", head.kind.name());
                let mut health = self.health.lock();
                health.rejected_entries += 1;
                health.last_rejected = Some(why);
                drop(health);
                if is_time(&mut self.said_rejected) {
                    self.route.notes.say(&what);
                }
                self.works();
            }
            Outcome::Answered(Verdict::Later { why, wait }) => {
                spool.put_back(head.number);
                self.fails(&why, wait);
            }
            Outcome::Unreadable(error @ EntryError::Read(_)) => {
                spool.put_back(head.number);
                self.fails(&format!("the spool can't be read: {error}"), None);
            }
            Outcome::Unreadable(error) => {
                if spool.torn(head.number).is_some() {
                    totals.dropped(head.kind, count, Place::Spooled, Cause::Torn);
                }
                self.route.notes.say(&format!(
                    "{count} {} in the spool are lost: {error}; what was left of it was set aside",
                    head.kind.name()
                ));
            }
        }
    }

    /// The service answered for good. A wait that it asked for holds all the same.
    fn works(&mut self) {
        if self.backoff.is_failing() {
            self.backoff.reset();
            self.health.lock().failing = None;
            if self.said_failing.take().is_some() {
                self.route.notes.say("delivering again");
            }
        }
    }

    fn fails(&mut self, why: &str, wait: Option<Duration>) {
        let now = Instant::now();
        // Requests that were under way together fail together: one failure.
        if self.hold.is_none() {
            let random = getrandom::u64().unwrap_or(u64::MAX);
            self.hold = Some(now + self.backoff.failed(self.route.pace, random));
        }
        if let Some(wait) = wait {
            let until = now + wait;
            self.hold = if self.asked {
                self.hold.max(Some(until))
            } else {
                Some(until)
            };
            self.asked = true;
        }
        self.health.lock().failing = Some(why.to_owned());
        log::debug!("not delivered: {why}");
        if is_time(&mut self.said_failing) {
            let (entries, _) = self.route.spool.size();
            self.route.notes.say(&format!(
                "cannot deliver: {why}; {entries} sealed batches wait, and are tried again"
            ));
        }
    }
}

/// Whether something may be said again.
fn is_time(said: &mut Option<Instant>) -> bool {
    let due = said.is_none_or(|said| said.elapsed() >= SAY_EVERY);
    if due {
        *said = Some(Instant::now());
    }
    due
}
