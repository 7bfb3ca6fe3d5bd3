//! The life of a run's processes, as a state machine without I/O: what happens to them comes in as [`Event`]s, what is
//! to be done goes out as [`Action`]s. Whoever drives it ([`covering`](super::covering)) reads the kernel's word, does
//! what is said, and tells what became of it.
//!
//! What is attached to a process goes by its id, so it has to be known at any instant which attachments it has or has
//! on the way: none twice, since then each call would be counted twice, and none missing that its parent has.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::coverage::{Attachment, Coverage};
use image::FileKey;

/// A job of attaching.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct JobId(u64);

/// What happens.
pub(super) enum Event {
    /// A process has forked, and its child is traced, too: it has copies of the breakpoints, but no program runs for it.
    Forked {
        parent: u32,
        child: u32,
        /// `CLOCK_MONOTONIC`, nanoseconds.
        at_ns: u64,
    },
    /// The same, and the child is not to be traced: it would pay for each breakpoint all the same. The kernel takes
    /// them away when a link for that child is let go.
    ForkedAway { parent: u32, child: u32 },
    /// A process runs a new program.
    Executed {
        pid: u32,
        /// The main thread has called exec: what is attached goes by it. Else another one did, which is the main
        /// thread from now on, and what is attached is lost.
        by_main: bool,
        /// It had return probes.
        has_returns: bool,
        /// Files that it is about to map, where it is a process of a traced executable.
        loads: HashSet<FileKey>,
        at_ns: u64,
    },
    /// What a process has mapped is known.
    Mapped { pid: u32, files: HashSet<FileKey> },
    /// A process turned out to copy its stacks: sites that were chosen for others don't do.
    CopiesStacks,
    /// What processes have mapped has settled.
    Settled {
        /// Among it is a file that no probes were planned for.
        new_file: bool,
    },
    /// There is no time to attach now; it is tried again.
    Postponed { job: JobId },
    /// The thread has ended by which something is attached to a process, which lives on.
    ThreadEnded { pid: u32 },
    /// Return probes of a process have become unsafe.
    ReturnsForbidden { pid: u32 },
    /// A process moves its text: nothing is attached to it any more.
    TextMoved { pid: u32 },
    /// No probe is put into a file any more.
    FileRemoved(FileKey),
    /// A process has ended.
    Ended { pid: u32 },
    /// Another set of probes counts from now on; these processes are alive.
    ChangedOver { next: Coverage, alive: Vec<u32> },
}

/// Why probes are planned again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// Processes have mapped other files.
    Files,
    /// What holds for return probes may have changed: all is decided anew.
    Returns,
    /// The user asks for it.
    Asked,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Action {
    /// Something is to be attached to a process; [`Life::attached`] wants to know what became of it.
    Attach(Work),
    /// Everything that is attached to a process is let go.
    Release(u32),
    /// Return probes that are attached to a process are let go, at once.
    ReleaseReturns(u32),
    /// The probes are planned anew.
    Plan(Why),
}

/// Something to attach.
#[derive(Debug)]
pub(super) struct Work {
    /// Its number.
    pub job: JobId,
    /// The process.
    pub pid: u32,
    /// What is attached.
    pub attachments: Vec<Arc<Attachment>>,
    /// When the process began, where it is new and has calls that are not seen until then; `CLOCK_MONOTONIC`,
    /// nanoseconds.
    pub since: Option<u64>,
}

/// The state.
#[derive(Debug, Default)]
pub(super) struct Life {
    coverage: Coverage,
    /// Files that no probe is put into any more.
    removed: HashSet<FileKey>,
    /// Whether there may be return probes is to be decided anew.
    decide_anew: bool,
    jobs: HashMap<JobId, Job>,
    given: u64,
}

/// A job on its way.
#[derive(Debug)]
struct Job {
    pid: u32,
    attachments: Vec<Arc<Attachment>>,
}

impl Life {
    /// After the start: what is attached to whom.
    pub(super) fn new(coverage: Coverage) -> Self {
        Self {
            coverage,
            ..Self::default()
        }
    }

    /// Which process has what.
    pub(super) fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// Takes what happens; answers what is to be done, in this order.
    pub(super) fn on(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Forked {
                parent,
                child,
                at_ns,
            } => {
                let inherited = self.coverage.forked(parent, child);
                self.attach(child, inherited, Some(at_ns))
            }
            Event::ForkedAway { parent, child } => {
                let inherited = self.coverage.forked(parent, child);
                let actions = self.attach(child, inherited, None);
                self.forget(child);
                actions
            }
            Event::Executed {
                pid,
                by_main,
                has_returns,
                loads,
                at_ns,
            } => self.executed(pid, by_main, has_returns, &loads, at_ns),
            Event::Mapped { pid, files } => self.mapped(pid, &files),
            Event::CopiesStacks => {
                self.decide_anew = true;
                Vec::new()
            }
            Event::Settled { new_file } => {
                let why = match (std::mem::take(&mut self.decide_anew), new_file) {
                    (true, _) => Some(Why::Returns),
                    (false, true) => Some(Why::Files),
                    (false, false) => None,
                };
                why.map(Action::Plan).into_iter().collect()
            }
            Event::Postponed { job } => {
                if let Some(Job { pid, attachments }) = self.jobs.remove(&job) {
                    for attachment in attachments {
                        self.coverage.failed(pid, &attachment);
                    }
                }
                Vec::new()
            }
            Event::ThreadEnded { pid } => {
                self.forget(pid);
                vec![Action::Release(pid), Action::Plan(Why::Returns)]
            }
            Event::ReturnsForbidden { pid } => {
                self.forget(pid);
                vec![Action::ReleaseReturns(pid), Action::Plan(Why::Returns)]
            }
            Event::TextMoved { pid } => {
                self.forget_jobs(pid);
                self.coverage.give_up(pid);
                vec![Action::Release(pid)]
            }
            Event::FileRemoved(key) => {
                self.removed.insert(key);
                Vec::new()
            }
            Event::Ended { pid } => {
                self.forget(pid);
                vec![Action::Release(pid)]
            }
            Event::ChangedOver { next, alive } => {
                self.coverage.change_over(next);
                self.coverage.keep_only(&alive);
                Vec::new()
            }
        }
    }

    fn executed(
        &mut self,
        pid: u32,
        by_main: bool,
        has_returns: bool,
        loads: &HashSet<FileKey>,
        at_ns: u64,
    ) -> Vec<Action> {
        if !self.coverage.knows(pid) {
            let expected = self.coverage.cover(pid, |key| loads.contains(&key));
            return self.attach(pid, expected, Some(at_ns));
        }
        if by_main && !has_returns {
            return Vec::new();
        }
        let before = self.coverage.files_of(pid);
        self.forget(pid);
        let mut actions = vec![Action::Release(pid)];
        if has_returns {
            // The new program may bring an unwinder along: what holds for it is decided anew.
            self.decide_anew = true;
        } else {
            let again = self.coverage.cover(pid, |key| before.contains(&key));
            actions.extend(self.attach(pid, again, Some(at_ns)));
        }
        actions
    }

    fn mapped(&mut self, pid: u32, files: &HashSet<FileKey>) -> Vec<Action> {
        let missing = self.coverage.cover(pid, |key| files.contains(&key));
        let (returns, others): (Vec<_>, Vec<_>) = missing
            .into_iter()
            .partition(|attachment| attachment.has_return_probes());
        for attachment in returns {
            self.coverage.failed(pid, &attachment);
            self.decide_anew = true;
        }
        self.attach(pid, others, None)
    }

    /// What became of a job: `failed` could not be attached. Answers whether what was attached is kept; else it is to be
    /// let go at once, because the process has ended meanwhile, or is to be covered anew, or not at all.
    #[must_use]
    pub(super) fn attached<'a>(
        &mut self,
        job: JobId,
        failed: impl Iterator<Item = &'a Arc<Attachment>>,
    ) -> bool {
        let Some(Job { pid, .. }) = self.jobs.remove(&job) else {
            return false;
        };
        for attachment in failed {
            self.coverage.failed(pid, attachment);
        }
        true
    }

    fn attach(
        &mut self,
        pid: u32,
        mut attachments: Vec<Arc<Attachment>>,
        since: Option<u64>,
    ) -> Vec<Action> {
        // Probes that may have killed somebody.
        attachments.retain(|it| !self.removed.contains(&it.module.key));
        if attachments.is_empty() {
            return Vec::new();
        }
        self.given += 1;
        let job = JobId(self.given);
        self.jobs.insert(
            job,
            Job {
                pid,
                attachments: attachments.clone(),
            },
        );
        // What only watches a runtime shows no calls.
        let since = since.filter(|_| attachments.iter().any(|it| it.of_set));
        vec![Action::Attach(Work {
            job,
            pid,
            attachments,
            since,
        })]
    }

    /// Nothing is attached to a process any more, and what is on its way will not be kept.
    fn forget(&mut self, pid: u32) {
        self.coverage.forget(pid);
        self.forget_jobs(pid);
    }

    fn forget_jobs(&mut self, pid: u32) {
        self.jobs.retain(|_, job| job.pid != pid);
    }
}

#[cfg(test)]
mod tests;
