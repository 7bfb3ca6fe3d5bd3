//! The books of the process that delivers, where its agent reads them: a file in memory that both have open. What is
//! written there outlives whoever writes it, so the books are exact when it was killed, too.
//!
//! What is counted is written with every change, in turn into two places: whoever reads while one is being written finds
//! the other, and waits for nobody. How things are is written now and then into a third. A place is a number that grows,
//! the length of what follows, the sum of all, and it in postcard's format.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use model::{text, totals::Snapshot};
use pipeline::ship::Health;

/// Bytes of a place; none lies in two pages of memory.
const PLACE: usize = 4096;
const HEAD: usize = 20;
/// Places of the counts, and of how things are.
const TOTALS: Range<u64> = 0..2;
const STATE: Range<u64> = 2..3;
/// Times that places are read anew where all are being written: the writer was faster than the reader.
const TRIES: u32 = 10;
/// Characters of a reason, so that all fit.
const MAX_REASON: usize = 450;

/// How things are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// How the service is doing.
    pub health: Health,
    /// Batches that wait.
    pub batches: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Makes the file.
pub(super) fn make() -> io::Result<File> {
    let file = File::from(memfd_create("teracron-books", MemfdFlags::CLOEXEC)?);
    file.set_len(STATE.end * PLACE as u64)?;
    Ok(file)
}

/// The writing side; of the counts one thread at a time writes.
pub(super) struct Writer {
    file: File,
    /// How often something was written.
    written: AtomicU64,
}

impl Writer {
    pub(super) fn new(file: File) -> Self {
        Self {
            file,
            written: AtomicU64::new(0),
        }
    }

    pub(super) fn totals(&self, totals: &Snapshot) {
        let number = self.written.fetch_add(1, Ordering::Relaxed) + 1;
        self.write(TOTALS.start + number % 2, number, totals);
    }

    pub(super) fn state(&self, mut state: State) {
        let health = &mut state.health;
        let reasons = [&mut health.failing, &mut health.last_rejected];
        for reason in reasons.into_iter().flatten() {
            *reason = text::cut(reason, MAX_REASON);
        }
        self.write(STATE.start, 1, &state);
    }

    /// One write within a page of memory: a signal that kills does not cut it.
    fn write(&self, place: u64, number: u64, what: &impl Serialize) {
        let mut bytes = [0; PLACE];
        let (head, body) = bytes.split_at_mut(HEAD);
        let Ok(body) = postcard::to_slice(what, body) else {
            return;
        };
        let length = body.len();
        head[..8].copy_from_slice(&number.to_le_bytes());
        head[8..12].copy_from_slice(&(length as u32).to_le_bytes());
        head[12..].copy_from_slice(&sum(number, body).to_le_bytes());
        // Where it fails, the agent goes on with what it knew.
        let at = place * PLACE as u64;
        let _ = self.file.write_all_at(&bytes[..HEAD + length], at);
    }
}

/// The reading side. What it can't make sense of is as it was before.
pub(super) struct Reader {
    file: File,
    last: Mutex<(Snapshot, State)>,
}

impl Reader {
    pub(super) fn new(file: File) -> Self {
        Self {
            file,
            last: Mutex::default(),
        }
    }

    pub(super) fn totals(&self) -> Snapshot {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(totals) = self.newest(TOTALS) {
            last.0 = totals;
        }
        last.0
    }

    pub(super) fn state(&self) -> State {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = self.newest(STATE) {
            last.1 = state;
        }
        last.1.clone()
    }

    /// The newest of some places.
    fn newest<T: DeserializeOwned>(&self, places: Range<u64>) -> Option<T> {
        for _ in 0..TRIES {
            let whole = places.clone().filter_map(|place| self.read(place));
            if let Some((_, body)) = whole.max_by_key(|(number, _)| *number) {
                return postcard::from_bytes(&body).ok();
            }
        }
        None
    }

    /// What lies in a place, and its number, where it is whole.
    fn read(&self, place: u64) -> Option<(u64, Vec<u8>)> {
        let mut bytes = [0; PLACE];
        let at = place * PLACE as u64;
        self.file.read_exact_at(&mut bytes, at).ok()?;
        let (head, body) = bytes.split_at(HEAD);
        let number = u64::from_le_bytes(head[..8].try_into().ok()?);
        let length = u32::from_le_bytes(head[8..12].try_into().ok()?);
        let wanted = u64::from_le_bytes(head[12..].try_into().ok()?);
        let body = body.get(..length as usize)?;
        (number > 0 && sum(number, body) == wanted).then(|| (number, body.to_vec()))
    }
}

/// FNV-1a: against a look while it is being written, not against malice.
fn sum(number: u64, bytes: &[u8]) -> u64 {
    let number = number.to_le_bytes();
    number
        .iter()
        .chain(bytes)
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Kind, totals::Totals};
    use proptest::{collection, prelude::*};

    #[test]
    fn what_is_written_is_read_at_any_instant() {
        let file = make().unwrap();
        let reader = Reader::new(file.try_clone().unwrap());
        assert_eq!(reader.totals(), Snapshot::default());
        let writer = Writer::new(file);
        let totals = Totals::default();
        totals.copy_to(move |books| writer.totals(books));
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                for _ in 0..20_000 {
                    totals.received(Kind::Spans, 3);
                    totals.spooled(Kind::Spans, 3);
                }
            });
            let mut before = 0;
            while !writing.is_finished() {
                let now = reader.totals();
                assert!(now.spans.add_up() && now.spans.received >= before);
                before = now.spans.received;
            }
        });
        assert_eq!(reader.totals(), totals.snapshot());
        assert_eq!(reader.totals().spans.spooled, 60_000);
    }

    #[test]
    fn the_longest_state_fits() {
        let file = make().unwrap();
        let reader = Reader::new(file.try_clone().unwrap());
        let long = Some("\u{1F980}".repeat(10_000));
        let health = Health {
            failing: long.clone(),
            last_rejected: long,
            ..Health::default()
        };
        Writer::new(file).state(State {
            health,
            batches: 7,
            bytes: 9,
        });
        let state = reader.state();
        assert_eq!((state.batches, state.bytes), (7, 9));
        assert!(state.health.failing.unwrap().chars().count() <= MAX_REASON + 1);
    }

    proptest! {
        #[test]
        fn no_place_is_too_strange(bytes in collection::vec(any::<u8>(), 0..5000), length in 0u32..5000) {
            let file = make().unwrap();
            let mut page = 7u64.to_le_bytes().to_vec();
            page.extend(length.to_le_bytes());
            page.extend(sum(7, &bytes[..(length as usize).min(bytes.len())]).to_le_bytes());
            page.extend(&bytes);
            for place in TOTALS.start..STATE.end {
                file.write_all_at(&page, place * PLACE as u64).unwrap();
            }
            let reader = Reader::new(file);
            let (_, _) = (reader.totals(), reader.state());
        }
    }
}
