//! The thread that keeps a process for delivering: gives it what comes, and starts another where it ends.

use std::{
    fs::File,
    io,
    os::fd::AsFd as _,
    sync::{Arc, mpsc::SyncSender},
    time::{Duration, Instant},
};

use super::{
    messages::Order,
    packed::Packed,
    process::{Basis, Process},
    queue::{Item, Next},
};
use model::{
    Kind,
    error::Result,
    text::{self, counted},
    totals::Cause,
};

/// The first that ends is followed by another at once; each after that, within a minute, waits twice as long as the one
/// before, from one second on.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// One that ran for so long was well.
const WELL: Duration = Duration::from_secs(60);
/// Ends are told this often.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// After the time of a stop is over: one answer of a scrubber, and what is in memory goes to the spool.
pub(super) const GRACE: Duration = Duration::from_secs(15);

/// How a run of a process ended.
enum End {
    /// It was asked to.
    Asked,
    /// It was not, for this reason.
    Died(String),
}

/// The thread's work. `started` is told how the first start went.
pub(super) struct Keeper {
    pub basis: Basis,
    /// Rules that are newer than those of the setup.
    pub rules: Option<Arc<File>>,
}

impl Keeper {
    pub(super) fn run(mut self, started: &SyncSender<Result<()>>) {
        let mut process = match Process::start(&self.basis, &self.basis.setup) {
            Ok(process) => Some(process),
            Err(error) => {
                self.basis.ledger.ended(None);
                let _ = started.send(Err(error));
                return;
            }
        };
        let _ = started.send(Ok(()));
        let (mut pause, mut said): (Duration, Option<Instant>) = (Duration::ZERO, None);
        let mut say = |basis: &Basis, why: &str, lost: u64| {
            if said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
                said = Some(Instant::now());
                basis.notes.say(&format!(
                    "the process that delivers {why}: {} in its memory lost and counted; another is started",
                    are(lost)
                ));
            }
        };
        loop {
            let began = Instant::now();
            let why = match process.take() {
                Some(process) => match self.serve(process) {
                    End::Asked => return,
                    End::Died(why) => why,
                },
                None => String::new(),
            };
            if !why.is_empty() {
                let lost = self.basis.ledger.ended(Some(&why));
                say(&self.basis, &why, lost);
                if began.elapsed() >= WELL {
                    pause = Duration::ZERO;
                }
            }
            self.basis.queue.wait_closed(pause);
            pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            self.basis.queue.set_ended(false);
            let deadline = self.basis.queue.deadline();
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                return self.give_up();
            }
            match self.start_again() {
                Ok(started) => process = Some(started),
                Err(error) => {
                    let why = error.to_string();
                    self.basis.ledger.ended(Some(&text::shown(&why)));
                    say(
                        &self.basis,
                        &format!("can't be started again: {}", text::shown(&why)),
                        0,
                    );
                    if self.basis.queue.deadline().is_some() {
                        return self.give_up();
                    }
                }
            }
        }
    }

    /// Another process, with the rules that are in force.
    fn start_again(&mut self) -> Result<Process> {
        let mut process = Process::start(&self.basis, &self.basis.setup)?;
        if let Some(rules) = &self.rules {
            // Where that fails, it has ended again, and is started again.
            let _ = process.send(&Order::Rules, &[rules.as_fd()]);
        }
        Ok(process)
    }

    /// Gives a process what comes, until it ends or nothing comes any more.
    fn serve(&mut self, mut process: Process) -> End {
        loop {
            match self.basis.queue.next() {
                Next::Item(item) => {
                    if self.give(&mut process, item).is_err() {
                        return End::Died(super::process::what_happened(process.end()));
                    }
                }
                Next::Ended => return End::Died(super::process::what_happened(process.end())),
                Next::Closed => {
                    let deadline = self.basis.queue.deadline().unwrap_or_else(Instant::now);
                    let ended = process.finish(deadline, GRACE);
                    let lost = self.basis.ledger.ended(ended.as_deref());
                    if let Some(why) = ended {
                        self.basis.notes.say(&format!(
                            "the process that delivers {why} while it stopped: {} in its memory lost and counted",
                            are(lost)
                        ));
                    }
                    return End::Asked;
                }
            }
        }
    }

    fn give(&mut self, process: &mut Process, item: Item) -> io::Result<()> {
        let ledger = &self.basis.ledger;
        match item {
            Item::Spans(spans) => {
                let packed = Packed::new(spans);
                ledger.given(Kind::Spans, packed.len() as u64);
                process.send(&Order::Spans(packed), &[])
            }
            Item::Samples(samples) => {
                ledger.given(Kind::Metrics, samples.len() as u64);
                process.send(&Order::Samples(samples), &[])
            }
            Item::Rules(rules) => {
                let sent = process.send(&Order::Rules, &[rules.as_fd()]);
                self.rules = Some(rules);
                sent
            }
        }
    }

    /// Nothing can be delivered any more.
    fn give_up(&self) {
        for item in self.basis.queue.drain() {
            let (kind, count) = match item {
                Item::Spans(spans) => (Kind::Spans, spans.len()),
                Item::Samples(samples) => (Kind::Metrics, samples.len()),
                Item::Rules(_) => continue,
            };
            self.basis
                .ledger
                .dropped(kind, count as u64, Cause::Stopped);
        }
    }
}

/// `7 spans and samples are`.
fn are(lost: u64) -> String {
    let what = counted(lost, "span or sample");
    format!("{what} {}", if lost == 1 { "is" } else { "are" })
}
