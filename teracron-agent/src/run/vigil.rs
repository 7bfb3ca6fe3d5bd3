//! Once a second: whether what made probes harmless still holds in the processes that have them.
//!
//! Executable memory that comes later may switch stacks, which return probes don't survive; text that is moved takes
//! breakpoints along. Both are looked for in `/proc/PID/maps`, a bounded number of processes at a time.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use super::{life::Event, reader::Reader};
use image::FileKey;
use tracer::{
    assemble::monotonic_ns,
    process::{
        Module, Process, is_living_thread, living_thread, still_allows_returns, text_was_moved,
    },
};

/// Processes that are looked at in a second: each costs the reading of its mappings.
const LOOKS: usize = 64;

/// Of so many processes it is told one by one that they lacked breakpoints; the rest is counted.
const TOLD: u64 = 3;

/// Holding breakpoints takes a tenth of the time at most: the reader waits for it, and so does whoever forks.
const SHARE: u32 = 10;

/// When breakpoints may be held again.
#[derive(Default)]
pub(super) struct Holding {
    next: Option<Instant>,
}

impl Holding {
    pub(super) fn has_time(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| now >= next)
    }

    pub(super) fn took(&mut self, began: Instant, now: Instant) {
        self.next = now.checked_add(now.saturating_duration_since(began) * (SHARE - 1));
    }
}

/// What is known of the processes from the look before.
#[derive(Default)]
pub(super) struct Vigil {
    /// Files with probes that a process has mapped, with their places.
    modules: HashMap<u32, Vec<Module>>,
    /// The process that was looked at last.
    last: u32,
    /// Processes whose probes had no thread any more at the last look.
    gone: HashSet<u32>,
    pub(super) holding: Holding,
}

impl Vigil {
    /// A process maps other files now, or has ended.
    pub(super) fn forget(&mut self, pid: u32) {
        self.modules.remove(&pid);
        self.gone.remove(&pid);
    }

    /// The next processes in turn.
    fn next(&mut self, alive: &[u32]) -> Vec<u32> {
        let after = alive.partition_point(|pid| *pid <= self.last);
        let (before, rest) = alive.split_at(after);
        let turn: Vec<u32> = rest.iter().chain(before).copied().take(LOOKS).collect();
        self.last = turn.last().copied().unwrap_or(0);
        turn
    }
}

impl Reader {
    /// Looks at some of the traced processes.
    pub(super) fn keep_vigil(&mut self) {
        let probed = self.life.coverage().files_of_sets();
        for pid in self.vigil.next(&self.processes.alive()) {
            let Ok(process) = Process::find(pid) else {
                continue; // it has ended: the kernel side tells
            };
            self.look_at_thread(&process);
            self.look_at_returns(&process);
            self.look_at_text(pid, &process, &probed);
        }
    }

    /// What is attached goes by a thread, the main one where no other is known.
    fn look_at_thread(&mut self, process: &Process) {
        let tid = self.session.tied_to(process.pid).unwrap_or(process.pid);
        if is_living_thread(process.pid, tid) {
            self.vigil.gone.remove(&process.pid);
            return;
        }
        // The kernel side tells at once; this is for where its word was lost. A process that is just ending looks the
        // same for a moment.
        if living_thread(process.pid).is_some() && !self.vigil.gone.insert(process.pid) {
            self.thread_ended(process.pid, tid);
        }
    }

    /// A thread has ended: what is tied to it is attached by another one.
    pub(super) fn thread_ended(&mut self, pid: u32, tid: u32) {
        if self.session.tied_to(pid).unwrap_or(pid) != tid {
            return;
        }
        if !self.session.is_tied(pid) {
            return self.hold(pid);
        }
        // Where breakpoints sit in the file, what is tied to a thread only watches how calls end.
        if self.session.has_set_of(pid) {
            self.sides.notes.say(&format!(
                "process {pid} ({}): thread {tid}, by which its probes are attached, has ended; they are attached by \
                 another one, calls until then are not seen",
                self.processes.comm(pid)
            ));
            self.summary.retied += 1;
        }
        self.session.untie(pid);
        self.live(Event::ThreadEnded { pid });
    }

    /// What is attached stays, but nothing keeps its breakpoints any more: holds them by a thread that lives.
    fn hold(&mut self, pid: u32) {
        let Some(tid) = living_thread(pid) else {
            return; // it is ending
        };
        let began = Instant::now();
        if !self.vigil.holding.has_time(began) {
            // It is tried again a second later, if the process lives so long.
            self.doubts.begin(pid);
            return;
        }
        let attachments = self.life.coverage().of(pid);
        if attachments.is_empty() {
            // There was no time to attach them.
            self.following.changed();
            return;
        }
        let missing = self.fates.missing_now(pid);
        let before = self.session.take_holders(pid);
        for attachment in attachments {
            let (module, sites) = (&attachment.module, &attachment.sites);
            if let Err(error) = self.session.hold(pid, tid, module, sites) {
                if living_thread(pid).is_some() {
                    self.tell_failed(pid, &attachment, &error);
                }
                break;
            }
        }
        self.session.let_go(before);
        self.vigil.holding.took(began, Instant::now());
        // Where none is missing now, none was: what the kernel takes out it does not put back by itself.
        if missing == 0 {
            self.doubts.forget(pid);
            return;
        }
        self.doubts.end(pid, monotonic_ns());
        self.summary.retied += 1;
        if self.summary.retied <= TOLD {
            self.sides.notes.say(&format!(
                "process {pid} ({}): its main thread has ended, and the kernel had taken out {missing} of its breakpoints \
                 before another thread held them: calls until then were not seen, and of those that were open it is not \
                 known how they ended",
                self.processes.comm(pid)
            ));
        }
    }

    /// Nobody looks at a process any more. One that nobody came to hold may have lost breakpoints.
    pub(super) fn undoubt(&mut self, pid: u32) {
        self.summary.retied += u64::from(self.doubts.forget(pid));
    }

    fn look_at_returns(&mut self, process: &Process) {
        if !self.session.has_return_probes(process.pid) {
            return;
        }
        if let Err(reason) = still_allows_returns(process) {
            self.sides.notes.say(&format!(
                "{reason}: its return probes are exchanged for probes on `ret`; for up to {LOOKED_FOR} they were not safe, and calls that are open now may be told as unwound"
            ));
            self.live(Event::ReturnsForbidden { pid: process.pid });
        }
    }

    fn look_at_text(&mut self, pid: u32, process: &Process, probed: &HashSet<FileKey>) {
        let modules = self.vigil.modules.entry(pid).or_insert_with(|| {
            let modules = process.modules().unwrap_or_default();
            let has_probes = |module: &Module| probed.contains(&module.key);
            modules.into_iter().filter(has_probes).collect()
        });
        let Some(moved) = text_was_moved(pid, modules) else {
            return;
        };
        let keys: Vec<FileKey> = modules.iter().map(|module| module.key).collect();
        self.vigil.forget(pid);
        self.sides.notes.say(&format!(
            "process {pid}: {moved}; its probes are taken out, calls there are not seen from now on"
        ));
        self.summary.uncovered += 1;
        self.live(Event::TextMoved { pid });
        for key in keys {
            // Where breakpoints sit in the file for all, others may do the same.
            if self.session.is_file_wide(key) {
                self.live(Event::FileRemoved(key));
                self.session.remove_file(key);
            }
        }
    }
}

/// What a process has done since the last look was not seen.
const LOOKED_FOR: &str = "a second";

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn holding_has_its_time() {
        let mut holding = Holding::default();
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        assert!(holding.has_time(began));
        holding.took(began, began + second);
        assert!(!holding.has_time(began + 9 * second));
        assert!(holding.has_time(began + 10 * second));
    }

    #[test]
    fn everybody_has_a_turn() {
        let mut vigil = Vigil::default();
        let alive: Vec<u32> = (1..=150).collect();
        let mut seen: Vec<u32> = (0..3).flat_map(|_| vigil.next(&alive)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, alive);
        assert_eq!(Vigil::default().next(&[]), [0u32; 0]);
    }
}
