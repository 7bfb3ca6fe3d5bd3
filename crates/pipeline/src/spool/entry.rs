//! An entry's bytes: a head with a checksum, then the envelope.
//!
//! | bytes | |
//! | --- | --- |
//! | 0–7 | `TCSPOOL1` |
//! | 8 | the kind |
//! | 9–12 | how many spans or samples, little endian |
//! | 13–20 | bytes of the envelope, little endian |
//! | 21–52 | SHA-256 of bytes 8–20 and the envelope |
//! | 53– | the envelope |

use std::io;

use sha2::{Digest as _, Sha256};

use model::Kind;
use wire::seal;

const MAGIC: &[u8; 8] = b"TCSPOOL1";
const HEAD: usize = 53;

/// A sealed batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it holds.
    pub kind: Kind,
    /// How many.
    pub count: u32,
    /// The ciphertext.
    pub envelope: Vec<u8>,
}

/// Why an entry can't be read.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// It was pushed out or removed.
    #[error("it is gone")]
    Gone,
    /// It can't be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// It is not an entry, or not a whole one.
    #[error("it is torn, or none of the agent's files")]
    Torn,
}

impl Entry {
    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + self.envelope.len());
        bytes.extend_from_slice(MAGIC);
        bytes.push(self.kind as u8);
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes.extend_from_slice(&(self.envelope.len() as u64).to_le_bytes());
        let sum = checksum(&bytes[8..], &self.envelope);
        bytes.extend_from_slice(&sum);
        bytes.extend_from_slice(&self.envelope);
        bytes
    }

    /// Reads a file's bytes.
    ///
    /// # Errors
    /// Where they are not a whole entry.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        let (head, envelope) = bytes.split_at_checked(HEAD).ok_or(EntryError::Torn)?;
        let (magic, rest) = head.split_at(8);
        let (fields, sum) = rest.split_at(13);
        let number = |bytes: &[u8]| {
            let mut number = [0u8; 8];
            number[..bytes.len()].copy_from_slice(bytes);
            u64::from_le_bytes(number)
        };
        let kind = Kind::from_u8(fields[0]).ok_or(EntryError::Torn)?;
        let whole = magic == MAGIC
            && number(&fields[5..13]) == envelope.len() as u64
            && envelope.len() >= seal::HEAD_BYTES
            && checksum(fields, envelope) == sum;
        if !whole {
            return Err(EntryError::Torn);
        }
        Ok(Self {
            kind,
            count: number(&fields[1..5]) as u32,
            envelope: envelope.to_vec(),
        })
    }
}

fn checksum(fields: &[u8], envelope: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(fields)
        .chain_update(envelope)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry() -> Entry {
        Entry {
            kind: Kind::Metrics,
            count: 77,
            envelope: vec![5; 600],
        }
    }

    #[test]
    fn round_trip() {
        assert_eq!(Entry::from_bytes(&entry().to_bytes()).unwrap(), entry());
    }

    proptest! {
        #[test]
        fn any_damage_is_noticed(place in 0usize..653, change in 1u8.., cut in 0usize..653) {
            let mut bytes = entry().to_bytes();
            bytes[place] ^= change;
            prop_assert!(Entry::from_bytes(&bytes).is_err());
            prop_assert!(Entry::from_bytes(&entry().to_bytes()[..cut]).is_err());
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            let _ = Entry::from_bytes(&bytes);
        }
    }
}
