//! Which process has which probes: bookkeeping without I/O.
//!
//! A probe reaches one process at a time, so whatever a process maps, and whatever process comes, has to be covered. A
//! file that the user names for all processes is covered once.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use image::{FileKey, Image};
use planner::probe::Site;
use tracer::kernel::KernelProgram;

/// What sits in one file: the sites of a set of probes, or those that watch its runtime (unwinder, `longjmp`, dynamic
/// linker), which belong to no set.
#[derive(Debug)]
pub struct Attachment {
    /// The file.
    pub module: Image,
    /// The sites.
    pub sites: Vec<Site>,
    /// They belong to a set of probes.
    pub of_set: bool,
}

impl Attachment {
    fn place(&self) -> Place {
        Place {
            key: self.module.key,
            of_set: self.of_set,
        }
    }

    /// Whether it replaces return addresses.
    pub fn has_return_probes(&self) -> bool {
        self.sites
            .iter()
            .any(|site| KernelProgram::of(site.program).is_return_probe())
    }
}

/// What tells one attachment from another in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    key: FileKey,
    of_set: bool,
}

/// Everything that is attached or on its way.
#[derive(Debug, Default)]
pub struct Coverage {
    all: Vec<Arc<Attachment>>,
    file_wide: HashSet<FileKey>,
    processes: HashMap<u32, HashSet<Place>>,
    /// Processes that are left alone from now on.
    given_up: HashSet<u32>,
}

impl Coverage {
    /// Nothing is attached yet. Files of `file_wide` are attached once, for every process.
    pub fn new(all: Vec<Arc<Attachment>>, file_wide: HashSet<FileKey>) -> Self {
        Self {
            all,
            file_wide,
            processes: HashMap::new(),
            given_up: HashSet::new(),
        }
    }

    /// What is attached once, for every process that maps the file.
    pub fn file_wide(&self) -> impl Iterator<Item = &Arc<Attachment>> {
        let of_file = |attachment: &&Arc<Attachment>| self.is_file_wide(attachment.module.key);
        self.all.iter().filter(of_file)
    }

    fn is_file_wide(&self, key: FileKey) -> bool {
        self.file_wide.contains(&key)
    }

    /// What has to be attached to a process that has these files mapped (or is about to map them), from now on counted
    /// as done.
    pub fn cover(&mut self, pid: u32, maps: impl Fn(FileKey) -> bool) -> Vec<Arc<Attachment>> {
        if self.given_up.contains(&pid) {
            return Vec::new();
        }
        let done = self.processes.entry(pid).or_default();
        let file_wide = &self.file_wide;
        self.all
            .iter()
            .filter(|attachment| {
                let key = attachment.module.key;
                !file_wide.contains(&key) && maps(key) && done.insert(attachment.place())
            })
            .cloned()
            .collect()
    }

    /// What has to be attached to a child: all that its parent has, whose memory it has a copy of.
    pub fn forked(&mut self, parent: u32, child: u32) -> Vec<Arc<Attachment>> {
        let inherited = self.files_of(parent);
        self.cover(child, |key| inherited.contains(&key))
    }

    /// Nothing is attached to a process any more: it has ended, or is to be covered anew.
    pub fn forget(&mut self, pid: u32) {
        self.processes.remove(&pid);
        self.given_up.remove(&pid);
    }

    /// The files in which something is attached to a process.
    pub fn files_of(&self, pid: u32) -> HashSet<FileKey> {
        let places = self.processes.get(&pid).into_iter().flatten();
        places.map(|place| place.key).collect()
    }

    /// What is attached to a process, or on its way.
    pub fn of(&self, pid: u32) -> Vec<Arc<Attachment>> {
        let done = self.processes.get(&pid);
        let is_there = |it: &&Arc<Attachment>| done.is_some_and(|done| done.contains(&it.place()));
        self.all.iter().filter(is_there).cloned().collect()
    }

    /// All files with sites of a set of probes.
    pub fn files_of_sets(&self) -> HashSet<FileKey> {
        let of_sets = self.all.iter().filter(|attachment| attachment.of_set);
        of_sets.map(|attachment| attachment.module.key).collect()
    }

    /// Nothing is to be attached to a process any more, whatever it maps.
    pub fn give_up(&mut self, pid: u32) {
        self.processes.insert(pid, HashSet::new());
        self.given_up.insert(pid);
    }

    /// An attachment did not come about; it may be tried again.
    pub fn failed(&mut self, pid: u32, attachment: &Attachment) {
        if let Some(done) = self.processes.get_mut(&pid) {
            done.remove(&attachment.place());
        }
    }

    /// Another set of probes counts from now on: what is attached of it is in `next`. What watches runtimes stays as it
    /// is.
    pub fn change_over(&mut self, next: Self) {
        let runtimes = std::mem::take(&mut self.all)
            .into_iter()
            .filter(|old| !old.of_set && !next.all.iter().any(|new| new.place() == old.place()))
            .collect::<Vec<_>>();
        self.all = next.all;
        self.all.extend(runtimes);
        self.file_wide = next.file_wide;
        for done in self.processes.values_mut() {
            done.retain(|place| !place.of_set);
        }
        for (pid, done) in next.processes {
            self.processes.entry(pid).or_default().extend(done);
        }
    }

    /// Forgets all processes but these.
    pub fn keep_only(&mut self, pids: &[u32]) {
        self.processes.retain(|pid, _| pids.contains(pid));
    }

    /// Whether anything was attached to a process.
    pub fn knows(&self, pid: u32) -> bool {
        self.processes.contains_key(&pid)
    }

    /// Files whose runtime is watched, each with the process in which it is; 0: in every process.
    pub fn watched(&self) -> HashSet<(FileKey, u32)> {
        let of_processes = self.processes.iter().flat_map(|(pid, done)| {
            let runtimes = done.iter().filter(|place| !place.of_set);
            runtimes.map(|place| (place.key, *pid))
        });
        let of_files = self
            .file_wide()
            .filter(|attachment| !attachment.of_set)
            .map(|attachment| (attachment.module.key, 0));
        of_processes.chain(of_files).collect()
    }

    /// The most processes that one file's probes were attached to: each costs the others a little per call.
    pub fn crowd(&self) -> usize {
        let mut counts: HashMap<FileKey, usize> = HashMap::new();
        for place in self.processes.values().flatten().filter(|it| it.of_set) {
            *counts.entry(place.key).or_default() += 1;
        }
        counts.into_values().max().unwrap_or(0)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs::File;

    pub(in crate::run) fn attachment(ino: u64, of_set: bool) -> Arc<Attachment> {
        let file = Arc::new(File::open("/bin/true").unwrap());
        let key = FileKey {
            dev: 1,
            ino,
            changed: (0, 0),
            size: 0,
        };
        Arc::new(Attachment {
            module: Image {
                path: format!("/{ino}"),
                is_main: ino == 1,
                file,
                key,
                debug: Default::default(),
            },
            sites: Vec::new(),
            of_set,
        })
    }

    fn files(found: &[Arc<Attachment>]) -> Vec<(u64, bool)> {
        found
            .iter()
            .map(|attachment| (attachment.module.key.ino, attachment.of_set))
            .collect()
    }

    #[test]
    fn children_get_what_their_parents_have_and_nothing_twice() {
        let all = vec![
            attachment(1, true),
            attachment(2, false),
            attachment(3, true),
        ];
        let mut coverage = Coverage::new(all, HashSet::new());
        assert_eq!(
            files(&coverage.cover(10, |key| key.ino != 3)),
            [(1, true), (2, false)]
        );
        assert_eq!(files(&coverage.cover(10, |key| key.ino != 3)), []);
        assert_eq!(files(&coverage.forked(10, 11)), [(1, true), (2, false)]);
        assert_eq!(files(&coverage.forked(11, 12)), [(1, true), (2, false)]);
        assert_eq!(files(&coverage.forked(99, 13)), []);
        coverage.forget(11);
        assert_eq!(files(&coverage.forked(11, 14)), []);
        assert_eq!(coverage.crowd(), 2);
    }

    #[test]
    fn a_file_for_all_is_no_process_s() {
        let first = attachment(1, true);
        let key = first.module.key;
        let mut coverage = Coverage::new(vec![first, attachment(2, true)], HashSet::from([key]));
        assert_eq!(files(&coverage.cover(10, |_| true)), [(2, true)]);
        assert_eq!(coverage.file_wide().count(), 1);
    }

    #[test]
    fn a_new_set_is_attached_anew_but_no_runtime() {
        let mut coverage = Coverage::new(
            vec![attachment(1, true), attachment(2, false)],
            HashSet::new(),
        );
        coverage.cover(10, |_| true);
        coverage.cover(12, |_| true);
        let mut next = Coverage::new(
            vec![attachment(1, true), attachment(3, true)],
            HashSet::new(),
        );
        next.cover(12, |_| true);
        coverage.change_over(next);
        assert_eq!(files(&coverage.cover(10, |_| true)), [(1, true), (3, true)]);
        assert_eq!(files(&coverage.cover(12, |_| true)), []);
        assert_eq!(
            files(&coverage.forked(10, 11)),
            [(1, true), (3, true), (2, false)]
        );
        assert!(
            coverage
                .watched()
                .contains(&(attachment(2, false).module.key, 11))
        );
        coverage.keep_only(&[10]);
        assert!(coverage.knows(10) && !coverage.knows(11));
    }

    #[derive(Clone, Debug)]
    enum Event {
        Fork(u32, u32),
        Maps(u32, u64),
        Ends(u32),
        Fails(u32, u64),
        Change,
    }

    fn event() -> impl Strategy<Value = Event> {
        let pid = 1u32..6;
        prop_oneof![
            (pid.clone(), pid.clone()).prop_map(|(a, b)| Event::Fork(a, b)),
            (pid.clone(), 1u64..5).prop_map(|(a, b)| Event::Maps(a, b)),
            pid.clone().prop_map(Event::Ends),
            (pid, 1u64..5).prop_map(|(a, b)| Event::Fails(a, b)),
            Just(Event::Change),
        ]
    }

    proptest! {
        /// Whatever happens in whatever order: nothing is attached twice to a process, and a child lacks nothing that
        /// its parent has.
        #[test]
        fn nothing_twice_and_nothing_missing(events in proptest::collection::vec(event(), 1..60)) {
            let all: Vec<_> = (1..5).map(|ino| attachment(ino, ino % 2 == 1)).collect();
            let mut coverage = Coverage::new(all.clone(), HashSet::new());
            // What the kernel would have.
            let mut there: HashMap<u32, Vec<(u64, bool)>> = HashMap::new();
            for event in events {
                match event {
                    Event::Fork(parent, child) if parent != child => {
                        let new = files(&coverage.forked(parent, child));
                        there.entry(child).or_default().extend(new);
                        let parent = there.get(&parent).cloned().unwrap_or_default();
                        prop_assert!(parent.iter().all(|it| there[&child].contains(it)));
                    }
                    Event::Fork(..) => {}
                    Event::Maps(pid, ino) => {
                        let new = files(&coverage.cover(pid, |key| key.ino == ino));
                        there.entry(pid).or_default().extend(new);
                        prop_assert!(there[&pid].iter().any(|it| it.0 == ino));
                    }
                    Event::Ends(pid) => {
                        coverage.forget(pid);
                        there.remove(&pid);
                    }
                    Event::Fails(pid, ino) => {
                        coverage.failed(pid, &all[ino as usize - 1]);
                        if let Some(there) = there.get_mut(&pid) {
                            there.retain(|it| it.0 != ino);
                        }
                    }
                    Event::Change => {
                        let set = all.iter().filter(|it| it.of_set).cloned().collect();
                        coverage.change_over(Coverage::new(set, HashSet::new()));
                        for there in there.values_mut() {
                            there.retain(|it| !it.1);
                        }
                    }
                }
                for places in there.values() {
                    let mut once = places.clone();
                    once.sort_unstable();
                    once.dedup();
                    prop_assert_eq!(once.len(), places.len());
                }
            }
        }
    }
}
