//! Any order of what happens, against what a kernel and the processes would have.

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
