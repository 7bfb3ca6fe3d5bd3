//! Where sealed batches wait until the service has taken them: on disk, or in memory. Only ciphertext
//! ever comes here.
//!
//! An entry is a file, written under another name, synced and renamed: power loss or SIGKILL at any
//! instant leaves a whole entry or none. A file that is torn or none of ours is set aside.

mod disk;
mod entry;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
};

pub use disk::Disk;
pub use entry::{Entry, EntryError};

use crate::batch::Kind;

/// What is known of an entry without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Place in the order.
    pub number: u64,
    /// What it holds.
    pub kind: Kind,
    /// How many.
    pub count: u32,
    /// Bytes.
    pub bytes: u64,
}

/// Entries that were pushed out because the spool was full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Entries.
    pub entries: u64,
    /// Spans in them.
    pub spans: u64,
    /// Memory samples in them.
    pub samples: u64,
}

/// Sealed batches that wait, in order.
pub struct Spool {
    store: Store,
    waiting: VecDeque<Head>,
    bytes: u64,
    max_bytes: u64,
    next: u64,
}

enum Store {
    Memory(BTreeMap<u64, Vec<u8>>),
    Disk(Disk),
}

impl Spool {
    /// In memory: lost with the process.
    pub fn in_memory(max_bytes: u64) -> Self {
        Self {
            store: Store::Memory(BTreeMap::new()),
            waiting: VecDeque::new(),
            bytes: 0,
            max_bytes,
            next: 0,
        }
    }

    /// On disk, with what an earlier run left there.
    pub fn on_disk(disk: Disk, left_over: Vec<Head>, max_bytes: u64) -> Self {
        let next = left_over.last().map_or(0, |head| head.number + 1);
        Self {
            store: Store::Disk(disk),
            bytes: left_over.iter().map(|head| head.bytes).sum(),
            waiting: left_over.into(),
            max_bytes,
            next,
        }
    }

    /// Adds an entry; where there is no room, the oldest go.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn add(&mut self, entry: &Entry) -> io::Result<Evicted> {
        let bytes = entry.to_bytes();
        let head = Head {
            number: self.next,
            kind: entry.kind,
            count: entry.count,
            bytes: bytes.len() as u64,
        };
        let mut evicted = Evicted::default();
        while self.bytes + head.bytes > self.max_bytes
            && let Some(oldest) = self.waiting.front().copied()
        {
            self.remove(oldest.number);
            evicted.entries += 1;
            match oldest.kind {
                Kind::Spans => evicted.spans += u64::from(oldest.count),
                Kind::Metrics => evicted.samples += u64::from(oldest.count),
                Kind::Events => {}
            }
        }
        match &mut self.store {
            Store::Memory(entries) => {
                entries.insert(head.number, bytes);
            }
            Store::Disk(disk) => disk.write(head.number, &bytes)?,
        }
        self.next += 1;
        self.bytes += head.bytes;
        self.waiting.push_back(head);
        Ok(evicted)
    }

    /// The first entry behind `after`.
    pub fn next_after(&self, after: Option<u64>) -> Option<Head> {
        let place = match after {
            Some(after) => self.waiting.partition_point(|head| head.number <= after),
            None => 0,
        };
        self.waiting.get(place).copied()
    }

    /// Reads an entry. A torn one is set aside.
    ///
    /// # Errors
    /// Where it is gone or makes no sense.
    pub fn read(&mut self, number: u64) -> Result<Entry, EntryError> {
        let bytes = match &mut self.store {
            Store::Memory(entries) => entries.get(&number).cloned().ok_or(EntryError::Gone)?,
            Store::Disk(disk) => disk.read(number)?,
        };
        Entry::from_bytes(&bytes)
    }

    /// Removes an entry that was delivered.
    pub fn remove(&mut self, number: u64) -> Option<Head> {
        match &mut self.store {
            Store::Memory(entries) => {
                entries.remove(&number);
            }
            Store::Disk(disk) => disk.remove(number),
        }
        self.forget(number)
    }

    /// Takes an entry out that will never be accepted, with the reason.
    pub fn bury(&mut self, number: u64, reason: &str) -> Option<Head> {
        match &mut self.store {
            Store::Memory(entries) => {
                entries.remove(&number);
            }
            Store::Disk(disk) => disk.bury(number, reason),
        }
        self.forget(number)
    }

    /// Sets an entry aside that can't be read.
    pub fn set_aside(&mut self, number: u64) -> Option<Head> {
        if let Store::Disk(disk) = &mut self.store {
            disk.set_aside(number);
        }
        self.forget(number)
    }

    fn forget(&mut self, number: u64) -> Option<Head> {
        let place = self
            .waiting
            .binary_search_by_key(&number, |head| head.number)
            .ok()?;
        let head = self.waiting.remove(place)?;
        self.bytes -= head.bytes;
        Some(head)
    }

    /// What waits.
    pub fn waiting(&self) -> impl Iterator<Item = &Head> {
        self.waiting.iter()
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether what waits outlives the process.
    pub fn is_on_disk(&self) -> bool {
        matches!(self.store, Store::Disk(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(count: u32) -> Entry {
        Entry {
            kind: Kind::Spans,
            count,
            envelope: vec![count as u8; 600],
        }
    }

    #[test]
    fn the_oldest_go_first() {
        let size = entry(1).to_bytes().len() as u64;
        let mut spool = Spool::in_memory(size * 3);
        for count in 1..=3 {
            assert_eq!(spool.add(&entry(count)).unwrap(), Evicted::default());
        }
        let evicted = spool.add(&entry(4)).unwrap();
        assert_eq!((evicted.entries, evicted.spans), (1, 1));
        assert_eq!(spool.next_after(None).unwrap().count, 2);
        assert_eq!(spool.next_after(Some(1)).unwrap().count, 3);
        assert_eq!(spool.read(2).unwrap().count, 3);
        assert_eq!(spool.remove(2).unwrap().count, 3);
        assert_eq!(spool.bytes(), size * 2);
        assert_eq!(spool.next_after(Some(1)).unwrap().count, 4);
        assert!(spool.next_after(Some(3)).is_none());
    }

    #[test]
    fn left_over_entries_come_first_and_torn_ones_are_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let open = || {
            let (disk, heads, notes) = Disk::open(folder.path(), "a-b-001").unwrap();
            (Spool::on_disk(disk, heads, u64::MAX), notes)
        };
        let (mut spool, _) = open();
        for count in 1..=3 {
            spool.add(&entry(count)).unwrap();
        }
        // A second agent gets a folder of its own.
        let (second, _) = open();
        assert_eq!(second.waiting().count(), 0);
        drop((spool, second));
        let own = folder.path().join("a-b-001/0");
        let path = |number: u64| own.join(format!("{number:020}.sealed"));
        let torn = std::fs::read(path(1)).unwrap();
        std::fs::write(path(1), &torn[..torn.len() - 1]).unwrap();
        std::fs::write(own.join("foreign"), "x").unwrap();
        std::fs::write(own.join(".writing"), "half").unwrap();
        let (mut spool, notes) = open();
        assert_eq!(notes.len(), 2, "{notes:?}");
        let counts: Vec<u32> = spool.waiting().map(|head| head.count).collect();
        assert_eq!(counts, [1, 3]);
        spool.add(&entry(9)).unwrap();
        assert_eq!(spool.waiting().last().unwrap().number, 3);
        spool.bury(0, "403 Forbidden").unwrap();
        drop(spool);
        let (spool, notes) = open();
        assert!(notes.is_empty());
        assert_eq!(spool.waiting().count(), 2);
        let reason = std::fs::read_to_string(own.join("dead/00000000000000000000.reason")).unwrap();
        assert!(reason.contains("403"));
    }
}
