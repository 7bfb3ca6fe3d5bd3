//! The spool between the thread that fills it and the one that empties it.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Disk, Entry, EntryError, Head, Spool, Store, disk};
use crate::totals::{Cause, Place, Totals};

/// A spool that threads share. One of them adds; files are written outside the lock.
#[derive(Clone)]
pub struct SharedSpool(Arc<Mutex<Spool>>);

impl SharedSpool {
    /// Shares a spool.
    pub fn new(spool: Spool) -> Self {
        Self(Arc::new(Mutex::new(spool)))
    }

    fn lock(&self) -> MutexGuard<'_, Spool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds entries in order and books them; where there is no room, the oldest go. Only one thread
    /// may add.
    ///
    /// # Errors
    /// Where one can't be written; it is dropped then, the others stay.
    pub fn add(&self, entries: &[Entry], totals: &Totals) -> io::Result<()> {
        let mut problem = Ok(());
        let mut on_disk = None;
        for entry in entries {
            let bytes = entry.to_bytes();
            let (head, evicted, disk) = self.make_room(entry, bytes.len() as u64);
            for old in evicted {
                totals.dropped(old.kind, old.count.into(), Place::Spooled, Cause::SpoolFull);
            }
            let written = match &disk {
                Some(disk) => disk.write(head.number, &bytes),
                None => Ok(()),
            };
            let (kind, count) = (entry.kind, entry.count.into());
            let mut spool = self.lock();
            match written {
                Ok(()) => {
                    if let Store::Memory(stored) = &mut spool.store {
                        stored.insert(head.number, Arc::new(bytes));
                    }
                    totals.spooled(kind, count);
                    spool.waiting.push_back(head);
                }
                Err(error) => {
                    spool.bytes -= head.bytes;
                    totals.dropped(kind, count, Place::Pending, Cause::SpoolFailed);
                    problem = Err(error);
                }
            }
            on_disk = disk;
        }
        if let Some(disk) = on_disk
            && let Err(error) = disk.sync()
        {
            // They are there, and only a power loss could take them.
            problem = Err(error);
        }
        problem
    }

    /// Takes a number and room for an entry; the oldest that had to go for it, and the disk, where there
    /// is one.
    fn make_room(&self, entry: &Entry, bytes: u64) -> (Head, Vec<Head>, Option<Arc<Disk>>) {
        let mut spool = self.lock();
        let (bytes, disk) = match &spool.store {
            Store::Memory(_) => (bytes, None),
            Store::Disk(disk) => (disk::room(bytes), Some(disk.clone())),
        };
        let head = Head {
            number: spool.next,
            kind: entry.kind,
            count: entry.count,
            bytes,
        };
        let evicted = spool.evict(bytes);
        spool.next += 1;
        spool.bytes += bytes;
        (head, evicted, disk)
    }

    /// The first entry that is not being sent; it is from now on.
    pub fn take_next(&self) -> Option<Head> {
        self.lock().take_next()
    }

    /// An entry was not delivered, and waits again.
    pub fn put_back(&self, number: u64) {
        self.lock().flying.remove(&number);
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// Where it is gone or makes no sense.
    pub fn read(&self, number: u64) -> Result<Entry, EntryError> {
        let stored = match &self.lock().store {
            Store::Memory(entries) => Err(entries.get(&number).cloned().ok_or(EntryError::Gone)?),
            Store::Disk(disk) => Ok(disk.clone()),
        };
        match stored {
            Ok(disk) => Entry::from_bytes(&disk.read(number)?),
            Err(bytes) => Entry::from_bytes(&bytes),
        }
    }

    /// Removes an entry that was delivered.
    pub fn delivered(&self, number: u64) -> Option<Head> {
        self.lock().remove(number)
    }

    /// Takes an entry out that will never be accepted, with the reason.
    pub fn rejected(&self, number: u64, reason: &str) -> Option<Head> {
        let mut spool = self.lock();
        if let Store::Disk(disk) = &spool.store {
            disk.bury(number, reason);
        }
        spool.remove(number)
    }

    /// Sets an entry aside that can't be read.
    pub fn torn(&self, number: u64) -> Option<Head> {
        let mut spool = self.lock();
        if let Store::Disk(disk) = &spool.store {
            disk.set_aside(number);
        }
        spool.remove(number)
    }

    /// What waits, in order.
    pub fn waiting(&self) -> Vec<Head> {
        self.lock().waiting.iter().copied().collect()
    }

    /// Entries and bytes that wait.
    pub fn size(&self) -> (usize, u64) {
        let spool = self.lock();
        (spool.waiting.len(), spool.bytes)
    }

    /// The folder; `None` where it is in memory.
    pub fn folder(&self) -> Option<PathBuf> {
        match &self.lock().store {
            Store::Memory(_) => None,
            Store::Disk(disk) => Some(disk.folder().to_owned()),
        }
    }
}
