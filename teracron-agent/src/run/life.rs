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
pub struct JobId(u64);

/// What happens.
pub enum Event {
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
pub enum Why {
    /// Processes have mapped other files.
    Files,
    /// What holds for return probes may have changed: all is decided anew.
    Returns,
    /// The user asks for it.
    Asked,
}

/// What is to be done.
#[derive(Debug)]
pub enum Action {
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
pub struct Work {
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
pub struct Life {
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
    pub fn new(coverage: Coverage) -> Self {
        Self {
            coverage,
            ..Self::default()
        }
    }

    /// Which process has what.
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// Takes what happens; answers what is to be done, in this order.
    pub fn on(&mut self, event: Event) -> Vec<Action> {
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
    pub fn attached<'a>(
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
mod tests {
    use super::*;
    use crate::run::coverage::tests::attachment;
    use proptest::prelude::*;

    const FILES: u64 = 5;

    #[derive(Clone, Debug)]
    enum Step {
        Fork(u32, u32),
        ForkAway(u32, u32),
        Exec(u32, bool),
        Map(u32, u64),
        Settle,
        Finish(usize, bool),
        Postpone(usize),
        Thread(u32),
        Move(u32),
        Remove(u64),
        End(u32),
        Change,
    }

    fn step() -> impl Strategy<Value = Step> {
        let pid = 1u32..6;
        prop_oneof![
            3 => (pid.clone(), pid.clone()).prop_map(|(a, b)| Step::Fork(a, b)),
            1 => (pid.clone(), pid.clone()).prop_map(|(a, b)| Step::ForkAway(a, b)),
            2 => (pid.clone(), any::<bool>()).prop_map(|(a, b)| Step::Exec(a, b)),
            3 => (pid.clone(), 1..FILES).prop_map(|(a, b)| Step::Map(a, b)),
            1 => Just(Step::Settle),
            4 => (any::<usize>(), any::<bool>()).prop_map(|(a, b)| Step::Finish(a, b)),
            1 => any::<usize>().prop_map(Step::Postpone),
            1 => pid.clone().prop_map(Step::Thread),
            1 => pid.clone().prop_map(Step::Move),
            1 => (1..FILES).prop_map(Step::Remove),
            1 => pid.prop_map(Step::End),
            1 => Just(Step::Change),
        ]
    }

    /// What a kernel and the processes would have.
    struct World {
        life: Life,
        all: Vec<Arc<Attachment>>,
        jobs: Vec<Work>,
        there: HashMap<u32, Vec<(u64, bool)>>,
        planned: Vec<Why>,
        removed: HashSet<u64>,
    }

    fn names(attachments: &[Arc<Attachment>]) -> Vec<(u64, bool)> {
        let name = |it: &Arc<Attachment>| (it.module.key.ino, it.of_set);
        attachments.iter().map(name).collect()
    }

    impl World {
        fn new() -> Self {
            let all: Vec<_> = (1..FILES)
                .map(|ino| attachment(ino, ino % 2 == 1))
                .collect();
            Self {
                life: Life::new(Coverage::new(all.clone(), HashSet::new())),
                all,
                jobs: Vec::new(),
                there: HashMap::new(),
                planned: Vec::new(),
                removed: HashSet::new(),
            }
        }

        fn on(&mut self, event: Event) {
            for action in self.life.on(event) {
                match action {
                    Action::Attach(work) => {
                        let names = names(&work.attachments);
                        assert!(names.iter().all(|(ino, _)| !self.removed.contains(ino)));
                        self.jobs.push(work);
                    }
                    Action::Release(pid) => {
                        self.there.remove(&pid);
                    }
                    Action::ReleaseReturns(_) => {}
                    Action::Plan(why) => self.planned.push(why),
                }
            }
        }

        fn finish(&mut self, place: usize, fails: bool) {
            if self.jobs.is_empty() {
                return;
            }
            let work = self.jobs.remove(place % self.jobs.len());
            let failed = if fails {
                work.attachments.get(..1)
            } else {
                None
            };
            let failed = failed.unwrap_or_default();
            if self.life.attached(work.job, failed.iter()) {
                let done = names(&work.attachments).split_off(failed.len());
                self.there.entry(work.pid).or_default().extend(done);
            }
        }

        fn take(&mut self, step: Step) {
            let maps = |life: &Life, pid| life.coverage().files_of(pid);
            match step {
                Step::Fork(parent, child) | Step::ForkAway(parent, child) if parent == child => {}
                // A new process has a new id.
                Step::Fork(_, child) | Step::ForkAway(_, child)
                    if self.life.coverage().knows(child) => {}
                Step::Fork(parent, child) => {
                    self.on(Event::Forked {
                        parent,
                        child,
                        at_ns: 1,
                    });
                    let parents = maps(&self.life, parent);
                    assert!(parents.is_subset(&maps(&self.life, child)));
                }
                Step::ForkAway(parent, child) => {
                    self.on(Event::ForkedAway { parent, child });
                    assert!(!self.life.coverage().knows(child));
                }
                Step::Exec(pid, by_main) => self.on(Event::Executed {
                    pid,
                    by_main,
                    has_returns: false,
                    loads: HashSet::new(),
                    at_ns: 1,
                }),
                Step::Map(pid, ino) => {
                    let key = self.all[ino as usize - 1].module.key;
                    self.on(Event::Mapped {
                        pid,
                        files: HashSet::from([key]),
                    });
                }
                Step::Settle => self.on(Event::Settled { new_file: false }),
                Step::Finish(place, fails) => self.finish(place, fails),
                Step::Postpone(place) => {
                    if !self.jobs.is_empty() {
                        let work = self.jobs.remove(place % self.jobs.len());
                        self.on(Event::Postponed { job: work.job });
                    }
                }
                Step::Thread(pid) => self.on(Event::ThreadEnded { pid }),
                Step::Move(pid) => {
                    self.on(Event::TextMoved { pid });
                    assert!(!self.there.contains_key(&pid));
                }
                Step::Remove(ino) => {
                    self.removed.insert(ino);
                    let key = self.all[ino as usize - 1].module.key;
                    self.on(Event::FileRemoved(key));
                }
                Step::End(pid) => self.on(Event::Ended { pid }),
                Step::Change => {
                    let set = self.all.iter().filter(|it| it.of_set).cloned().collect();
                    // The old set goes from the kernel, with what was on its way of it.
                    for there in self.there.values_mut() {
                        there.retain(|(_, of_set)| !of_set);
                    }
                    while !self.jobs.is_empty() {
                        self.finish(0, false);
                    }
                    for there in self.there.values_mut() {
                        there.retain(|(_, of_set)| !of_set);
                    }
                    let alive = (1..6).collect();
                    self.on(Event::ChangedOver {
                        next: Coverage::new(set, HashSet::new()),
                        alive,
                    });
                }
            }
        }

        fn check(&self) {
            for (pid, there) in &self.there {
                let mut once = there.clone();
                once.sort_unstable();
                once.dedup();
                assert_eq!(once.len(), there.len(), "twice in {pid}: {there:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// Whatever happens, in whatever order, and whenever jobs are done: nothing is attached twice; when all jobs are
        /// done a process has what is known to be attached to it and nothing else.
        #[test]
        fn a_process_has_what_is_known_and_nothing_twice(steps in proptest::collection::vec(step(), 1..80)) {
            let mut world = World::new();
            for step in steps {
                world.take(step);
                world.check();
            }
            while !world.jobs.is_empty() {
                world.finish(0, false);
                world.check();
            }
            for pid in 1..6 {
                let mut known = names(&world.life.coverage().of(pid));
                // What is not put in any more counts as there, so that nobody asks for it again.
                known.retain(|(ino, _)| !world.removed.contains(ino));
                let mut there = world.there.get(&pid).cloned().unwrap_or_default();
                there.retain(|(ino, _)| !world.removed.contains(ino));
                known.sort_unstable();
                there.sort_unstable();
                prop_assert_eq!(known, there, "{}", pid);
            }
        }
    }

    #[test]
    fn what_is_on_its_way_when_a_thread_execs_is_not_kept() {
        let mut world = World::new();
        world.take(Step::Map(1, 1));
        world.take(Step::Exec(1, false));
        assert_eq!(world.jobs.len(), 2);
        world.finish(0, false);
        assert!(world.there.is_empty(), "it was attached to what is no more");
        world.finish(0, false);
        assert_eq!(world.there[&1], [(1, true)]);
    }

    #[test]
    fn return_probes_are_decided_anew_once_things_have_settled() {
        let mut life = Life::default();
        life.coverage.cover(1, |_| false);
        let exec = Event::Executed {
            pid: 1,
            by_main: true,
            has_returns: true,
            loads: HashSet::new(),
            at_ns: 1,
        };
        assert!(matches!(life.on(exec)[..], [Action::Release(1)]));
        let settled = |life: &mut Life, new_file| life.on(Event::Settled { new_file });
        let plans = settled(&mut life, true);
        assert!(matches!(plans[..], [Action::Plan(Why::Returns)]));
        let plans = settled(&mut life, true);
        assert!(matches!(plans[..], [Action::Plan(Why::Files)]));
        assert!(settled(&mut life, false).is_empty());
    }
}
