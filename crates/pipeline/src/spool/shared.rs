//! The spool between the thread that fills it and the one that empties it.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use super::{Disk, Entry, EntryError, Head, Spool, Store, disk};
use model::totals::{Cause, Place, Totals};

/// Files that are written at a time: the file system commits them together.
const WRITERS: usize = 4;

/// Times that the oldest make room on a full disk for one entry: others may take it at once.
const ROUNDS: u32 = 4;

/// An entry that has its number and room.
struct Placed<'a> {
    entry: &'a Entry,
    head: Head,
    bytes: Vec<u8>,
}

/// Writes entries' bytes to the disk, several at a time.
fn prepare(disk: &Disk, placed: &[Placed<'_>]) -> Vec<io::Result<()>> {
    let write = |placed: &Placed<'_>| disk.prepare(placed.head.number, &placed.bytes);
    if let [only] = placed {
        return vec![write(only)];
    }
    thread::scope(|scope| {
        let writers: Vec<_> = placed
            .chunks(placed.len().div_ceil(WRITERS).max(1))
            .map(|chunk| {
                let work = move || chunk.iter().map(write).collect::<Vec<_>>();
                (chunk, thread::Builder::new().spawn_scoped(scope, work))
            })
            .collect();
        writers
            .into_iter()
            .flat_map(|(chunk, writer)| match writer {
                Ok(writer) => writer.join().unwrap_or_default(),
                // No more threads: here, then.
                Err(_) => chunk.iter().map(write).collect(),
            })
            .collect()
    })
}

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
        // So few at a time that what has its room but is not there yet can't be most of a small spool.
        let largest = entries.iter().map(|entry| entry.envelope.len()).max();
        let largest = disk::room(largest.unwrap_or(0) as u64 + 1);
        let together = (self.lock().max_bytes / 4 / largest).clamp(1, 64) as usize;
        let mut result = Ok(());
        for entries in entries.chunks(together) {
            result = result.and(self.add_together(entries, totals));
        }
        result
    }

    fn add_together(&self, entries: &[Entry], totals: &Totals) -> io::Result<()> {
        let mut problem = Ok(());
        let placed: Vec<Placed<'_>> = entries
            .iter()
            .map(|entry| {
                let (bytes, evicted) = (entry.to_bytes(), &mut Vec::new());
                let head = self.make_room(entry, bytes.len() as u64, evicted);
                for old in evicted.drain(..) {
                    let count = old.count.into();
                    totals.dropped(old.kind, count, Place::Spooled, Cause::SpoolFull);
                }
                Placed { entry, head, bytes }
            })
            .collect();
        let disk = self.disk();
        let prepared = match &disk {
            Some(disk) => prepare(disk, &placed),
            None => placed.iter().map(|_| Ok(())).collect(),
        };
        for (Placed { entry, head, bytes }, prepared) in placed.into_iter().zip(prepared) {
            let (kind, count) = (entry.kind, entry.count.into());
            let there = match &disk {
                Some(disk) => prepared
                    .and_then(|()| disk.publish(head.number))
                    .or_else(|error| self.try_again(disk, head, &bytes, error, totals)),
                None => Ok(()),
            };
            let mut spool = self.lock();
            match there {
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
        }
        // They are there even where this fails: only a power loss could take them.
        problem.and(disk.map_or(Ok(()), |disk| disk.sync()))
    }

    /// Writes an entry that could not be written: after the oldest made room on a full disk, or into a folder
    /// that is made again.
    fn try_again(
        &self,
        disk: &Disk,
        head: Head,
        bytes: &[u8],
        mut error: io::Error,
        totals: &Totals,
    ) -> io::Result<()> {
        let write = || {
            disk.prepare(head.number, bytes)
                .and_then(|()| disk.publish(head.number))
        };
        if error.kind() == io::ErrorKind::NotFound {
            // An entry before this one may have made it again already.
            match write() {
                Err(still) if still.kind() == io::ErrorKind::NotFound => {
                    disk.make_again()?;
                    self.forget_vanished(disk, totals);
                    error = match write() {
                        Err(error) => error,
                        Ok(()) => return Ok(()),
                    };
                }
                Err(other) => error = other,
                Ok(()) => return Ok(()),
            }
        }
        for _ in 0..ROUNDS {
            if !disk::is_full(&error) || self.give_way(head.bytes, totals) == 0 {
                break;
            }
            match write() {
                Err(again) => error = again,
                Ok(()) => return Ok(()),
            }
        }
        Err(error)
    }

    /// The oldest go until so many bytes are free; answers how many are.
    fn give_way(&self, wanted: u64, totals: &Totals) -> u64 {
        let mut spool = self.lock();
        let mut freed = 0;
        while freed < wanted {
            let Some(oldest) = spool.evict_oldest() else {
                break;
            };
            freed += oldest.bytes;
            totals.dropped(
                oldest.kind,
                oldest.count.into(),
                Place::Spooled,
                Cause::SpoolFull,
            );
        }
        freed
    }

    /// Books what went with its folder; what is being sent has been read already.
    fn forget_vanished(&self, disk: &Disk, totals: &Totals) {
        let mut spool = self.lock();
        let waiting: Vec<u64> = spool.waiting.iter().map(|head| head.number).collect();
        for number in waiting {
            if spool.flying.contains(&number) || disk.has(number) {
                continue;
            }
            if let Some(lost) = spool.forget(number) {
                let count = lost.count.into();
                totals.dropped(lost.kind, count, Place::Spooled, Cause::SpoolFailed);
            }
        }
    }

    /// Takes a number and room for an entry; adds the oldest that had to go for it.
    fn make_room(&self, entry: &Entry, bytes: u64, evicted: &mut Vec<Head>) -> Head {
        let mut spool = self.lock();
        let bytes = match &spool.store {
            Store::Memory(_) => bytes,
            Store::Disk(_) => disk::room(bytes),
        };
        let head = Head {
            number: spool.next,
            kind: entry.kind,
            count: entry.count,
            bytes,
        };
        evicted.extend(spool.evict(bytes));
        spool.next += 1;
        spool.bytes += bytes;
        head
    }

    fn disk(&self) -> Option<Arc<Disk>> {
        match &self.lock().store {
            Store::Memory(_) => None,
            Store::Disk(disk) => Some(disk.clone()),
        }
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
        if let Some(disk) = self.disk() {
            return Entry::from_bytes(&disk.read(number)?);
        }
        let stored = match &self.lock().store {
            Store::Memory(entries) => entries.get(&number).cloned(),
            Store::Disk(_) => None,
        };
        Entry::from_bytes(&stored.ok_or(EntryError::Gone)?)
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
        self.disk().map(|disk| disk.folder())
    }
}
