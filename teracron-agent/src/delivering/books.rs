//! The books of the process that delivers, where its agent reads them: a file in memory that both have open. What is
//! written there outlives whoever writes it, so the books are exact when it was killed, too.
//!
//! A page each for what is counted, which is written with every change, and for how things are, which is written now
//! and then. A page is the length of what follows, its sum, and it in postcard's format.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    sync::{Mutex, PoisonError},
};

use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use model::{text, totals::Snapshot};
use pipeline::ship::Health;

const PAGE: usize = 4096;
const HEAD: usize = 12;
/// Times that a page is read anew where its writer is just at it.
const TRIES: u32 = 1000;
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
    file.set_len(2 * PAGE as u64)?;
    Ok(file)
}

/// The writing side.
pub(super) struct Writer(File);

impl Writer {
    pub(super) fn new(file: File) -> Self {
        Self(file)
    }

    pub(super) fn totals(&self, totals: &Snapshot) {
        self.page(0, totals);
    }

    pub(super) fn state(&self, mut state: State) {
        for reason in [&mut state.health.failing, &mut state.health.last_rejected] {
            if let Some(reason) = reason {
                *reason = text::cut(reason, MAX_REASON);
            }
        }
        self.page(1, &state);
    }

    /// One write within a page of memory: a signal that kills does not cut it.
    fn page(&self, number: u64, what: &impl Serialize) {
        let mut page = [0; PAGE];
        let (head, body) = page.split_at_mut(HEAD);
        let Ok(written) = postcard::to_slice(what, body) else {
            return;
        };
        let length = written.len();
        head[..4].copy_from_slice(&(length as u32).to_le_bytes());
        head[4..].copy_from_slice(&sum(written).to_le_bytes());
        // Where it fails, the agent goes on with what it knew.
        let _ = self
            .0
            .write_all_at(&page[..HEAD + length], number * PAGE as u64);
    }
}

/// The reading side. What it can't make sense of was as it was before.
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
        if let Some(totals) = self.page(0) {
            last.0 = totals;
        }
        last.0
    }

    pub(super) fn state(&self) -> State {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = self.page(1) {
            last.1 = state;
        }
        last.1.clone()
    }

    fn page<T: DeserializeOwned>(&self, number: u64) -> Option<T> {
        for _ in 0..TRIES {
            let mut page = [0; PAGE];
            self.file
                .read_exact_at(&mut page, number * PAGE as u64)
                .ok()?;
            let (head, body) = page.split_at(HEAD);
            let length = u32::from_le_bytes(head[..4].try_into().ok()?) as usize;
            let wanted = u64::from_le_bytes(head[4..].try_into().ok()?);
            if length == 0 {
                return None; // nothing was written yet
            }
            if let Some(body) = body.get(..length)
                && sum(body) == wanted
            {
                return postcard::from_bytes(body).ok();
            }
            std::thread::yield_now();
        }
        None
    }
}

/// FNV-1a: against a look while it is being written, not against malice.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
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
        fn no_page_is_too_strange(bytes in collection::vec(any::<u8>(), 0..5000), length in 0u32..5000) {
            let file = make().unwrap();
            let mut page = length.to_le_bytes().to_vec();
            page.extend(sum(&bytes[..(length as usize).min(bytes.len())]).to_le_bytes());
            page.extend(&bytes);
            file.write_all_at(&page, 0).unwrap();
            file.write_all_at(&page, PAGE as u64).unwrap();
            let reader = Reader::new(file);
            let (_, _) = (reader.totals(), reader.state());
        }
    }
}
