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

pub use disk::Disk;
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
            let oldest = self
                .waiting
                .iter()
                .find(|head| !self.flying.contains(&head.number));
            let Some(oldest) = oldest.map(|head| head.number) else {
                break;
            };
            evicted.extend(self.remove(oldest));
        }
        evicted
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
        let path = |number: u64| own.join(format!("{number:020}.sealed"));
        let torn = std::fs::read(path(1)).unwrap();
        std::fs::write(path(1), &torn[..torn.len() - 1]).unwrap();
        std::fs::write(own.join("foreign"), "x").unwrap();
        std::fs::write(own.join(".writing"), "half").unwrap();
        let (spool, notes) = open();
        assert_eq!(notes.len(), 2, "{notes:?}");
        // With what the second agent left.
        assert_eq!(counts(&spool), [1, 3, 7, 8]);
        spool.add(&[entry(9)], &totals).unwrap();
        assert_eq!(spool.waiting().last().unwrap().number, 5);
        spool.rejected(0, "403 Forbidden").unwrap();
        drop(spool);
        let (spool, notes) = open();
        assert!(notes.is_empty());
        assert_eq!(counts(&spool), [3, 7, 8, 9]);
        let reason = std::fs::read_to_string(own.join("dead/00000000000000000000.reason")).unwrap();
        assert!(reason.contains("403"));
    }
}
