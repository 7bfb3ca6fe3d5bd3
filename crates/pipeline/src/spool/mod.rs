//! Where sealed batches wait until the service has taken them: on disk, or in memory. Only ciphertext
//! ever comes here.
//!
//! An entry is a file, written under another name, synced and renamed: power loss or SIGKILL at any
//! instant leaves a whole entry or none. A file that is torn or none of ours is set aside.

mod disk;
mod entry;
mod shared;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

pub use disk::{Disk, Project, keep_for};
pub use entry::{Entry, EntryError};
pub use shared::SharedSpool;

use model::Kind;

/// What is known of an entry without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Place in the order.
    pub number: u64,
    /// What it holds.
    pub kind: Kind,
    /// How many.
    pub count: u32,
    /// Bytes that it takes: on disk, whole blocks.
    pub bytes: u64,
}

/// Sealed batches that wait, in order.
pub struct Spool {
    store: Store,
    waiting: VecDeque<Head>,
    /// Entries that are being sent: these are not pushed out.
    flying: BTreeSet<u64>,
    bytes: u64,
    max_bytes: u64,
    next: u64,
}

#[derive(Clone)]
enum Store {
    Memory(BTreeMap<u64, Arc<Vec<u8>>>),
    Disk(Arc<Disk>),
}

impl Spool {
    /// In memory: lost with the process.
    pub fn in_memory(max_bytes: u64) -> Self {
        Self::new(Store::Memory(BTreeMap::new()), VecDeque::new(), max_bytes)
    }

    /// On disk, with what an earlier run left there.
    pub fn on_disk(disk: Disk, left_over: Vec<Head>, max_bytes: u64) -> Self {
        Self::new(Store::Disk(Arc::new(disk)), left_over.into(), max_bytes)
    }

    fn new(store: Store, waiting: VecDeque<Head>, max_bytes: u64) -> Self {
        Self {
            store,
            flying: BTreeSet::new(),
            bytes: waiting.iter().map(|head| head.bytes).sum(),
            next: waiting.back().map_or(0, |head| head.number + 1),
            waiting,
            max_bytes,
        }
    }

    /// Makes room for so many more bytes: the oldest go. Answers them.
    fn evict(&mut self, bytes: u64) -> Vec<Head> {
        let mut evicted = Vec::new();
        while self.bytes + bytes > self.max_bytes {
            match self.evict_oldest() {
                Some(oldest) => evicted.push(oldest),
                None => break,
            }
        }
        evicted
    }

    /// The oldest that is not being sent goes.
    fn evict_oldest(&mut self) -> Option<Head> {
        let oldest = self
            .waiting
            .iter()
            .find(|head| !self.flying.contains(&head.number))?
            .number;
        self.remove(oldest)
    }

    /// The first entry that is not being sent; it is from now on.
    fn take_next(&mut self) -> Option<Head> {
        let head = self
            .waiting
            .iter()
            .find(|head| !self.flying.contains(&head.number))
            .copied()?;
        self.flying.insert(head.number);
        Some(head)
    }

    /// Removes an entry that was delivered, or has to make room.
    fn remove(&mut self, number: u64) -> Option<Head> {
        match &mut self.store {
            Store::Memory(entries) => {
                entries.remove(&number);
            }
            Store::Disk(disk) => disk.remove(number),
        }
        self.forget(number)
    }

    fn forget(&mut self, number: u64) -> Option<Head> {
        self.flying.remove(&number);
        let place = self
            .waiting
            .binary_search_by_key(&number, |head| head.number)
            .ok()?;
        let head = self.waiting.remove(place)?;
        self.bytes -= head.bytes;
        Some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::totals::{Cause, Totals};

    fn entry(count: u32) -> Entry {
        Entry {
            kind: Kind::Spans,
            count,
            envelope: vec![count as u8; 600],
        }
    }

    fn counts(spool: &SharedSpool) -> Vec<u32> {
        spool.waiting().iter().map(|head| head.count).collect()
    }

    fn on_disk(folder: &std::path::Path) -> SharedSpool {
        let (disk, heads, _) = Disk::open(folder, "a-b-001").unwrap();
        SharedSpool::new(Spool::on_disk(disk, heads, u64::MAX))
    }

    #[test]
    fn a_folder_that_vanished_is_made_again_and_what_went_with_it_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let spool_folder = folder.path().join("spool");
        let spool = on_disk(&spool_folder);
        let totals = Totals::default();
        totals.received(Kind::Spans, 100);
        spool.add(&[entry(1), entry(2), entry(3)], &totals).unwrap();
        let flying = spool.take_next().unwrap();
        std::fs::remove_dir_all(&spool_folder).unwrap();
        spool.add(&[entry(4), entry(5)], &totals).unwrap();
        // The first is being sent.
        assert_eq!(counts(&spool), [1, 4, 5]);
        let spans = totals.snapshot().spans;
        assert_eq!(spans.dropped.of(Cause::SpoolFailed), 5);
        assert!(spans.add_up());
        spool.delivered(flying.number).unwrap();
        assert_eq!(
            spool.read(spool.take_next().unwrap().number).unwrap(),
            entry(4)
        );
        // Nobody else takes the folder that was made again.
        assert!(counts(&on_disk(&spool_folder)).is_empty());
        drop(spool);
        assert_eq!(counts(&on_disk(&spool_folder)), [4, 5]);
        // Where it may not be made again, that is the error.
        let spool = on_disk(&spool_folder);
        std::fs::remove_dir_all(&spool_folder).unwrap();
        std::os::unix::fs::symlink(folder.path(), &spool_folder).unwrap();
        assert!(spool.add(&[entry(6)], &totals).is_ok(), "a link of our own");
        std::fs::remove_dir_all(folder.path().join("a-b-001")).unwrap();
        std::fs::write(folder.path().join("a-b-001"), "").unwrap();
        let error = spool.add(&[entry(7)], &totals).unwrap_err();
        assert!(error.to_string().contains("not a folder"), "{error}");
        assert!(totals.snapshot().spans.add_up());
    }

    #[test]
    fn the_oldest_go_first_but_not_while_they_are_sent() {
        let size = entry(1).to_bytes().len() as u64;
        let spool = SharedSpool::new(Spool::in_memory(size * 3));
        let totals = Totals::default();
        totals.received(Kind::Spans, 100);
        for count in 1..=3 {
            spool.add(&[entry(count)], &totals).unwrap();
        }
        assert_eq!(totals.snapshot().spans.spooled, 6);
        let first = spool.take_next().unwrap();
        assert_eq!(first.count, 1);
        spool.add(&[entry(4)], &totals).unwrap();
        assert_eq!(counts(&spool), [1, 3, 4]);
        assert_eq!(totals.snapshot().spans.dropped.of(Cause::SpoolFull), 2);
        let second = spool.take_next().unwrap();
        assert_eq!(spool.read(second.number).unwrap(), entry(3));
        assert_eq!(spool.delivered(second.number).unwrap().count, 3);
        spool.put_back(first.number);
        assert_eq!(spool.take_next().unwrap().count, 1);
        assert_eq!(spool.take_next().unwrap().count, 4);
        assert!(spool.take_next().is_none());
        assert!(totals.snapshot().spans.add_up());
    }

    #[test]
    fn left_over_entries_come_first_and_torn_ones_are_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let totals = Totals::default();
        let open = || {
            let (disk, heads, notes) = Disk::open(folder.path(), "a-b-001").unwrap();
            (
                SharedSpool::new(Spool::on_disk(disk, heads, u64::MAX)),
                notes,
            )
        };
        let (spool, _) = open();
        spool.add(&[entry(1), entry(2), entry(3)], &totals).unwrap();
        // A second agent gets a folder of its own.
        let (second, _) = open();
        assert!(counts(&second).is_empty());
        second.add(&[entry(7), entry(8)], &totals).unwrap();
        drop((spool, second));
        let own = folder.path().join("a-b-001/0");
        // What other tests start has copies of what was locked for a moment.
        let lock = std::fs::File::open(own.join(".lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        drop(lock);
        let path = |number: u64| own.join(format!("{number:020}.sealed"));
        let torn = std::fs::read(path(1)).unwrap();
        std::fs::write(path(1), &torn[..torn.len() - 1]).unwrap();
        // Names that are not the agent's are left alone, whatever they are.
        std::fs::write(own.join("foreign"), "x").unwrap();
        std::fs::write(own.join("foreign.sealed"), "x").unwrap();
        std::fs::write(own.join(".writing"), "x").unwrap();
        std::os::unix::fs::symlink("foreign", path(900)).unwrap();
        let unfinished = own.join(format!("{:020}.writing", 901));
        std::fs::write(&unfinished, "half").unwrap();
        let (spool, notes) = open();
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(!unfinished.exists());
        for name in ["foreign", "foreign.sealed", ".writing"] {
            assert_eq!(std::fs::read(own.join(name)).unwrap(), b"x");
        }
        std::fs::remove_file(path(900)).unwrap();
        // With what the second agent left.
        assert_eq!(counts(&spool), [1, 3, 7, 8]);
        spool.add(&[entry(9)], &totals).unwrap();
        // What was taken over came behind the stranger's number.
        assert_eq!(spool.waiting().last().unwrap().number, 903);
        spool.rejected(0, "403 Forbidden").unwrap();
        drop(spool);
        let (spool, notes) = open();
        assert!(notes.is_empty());
        assert_eq!(counts(&spool), [3, 7, 8, 9]);
        let reason = std::fs::read_to_string(own.join("dead/00000000000000000000.reason")).unwrap();
        assert!(reason.contains("403"));
    }
}
