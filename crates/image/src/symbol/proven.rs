//! Code that may be probed: the only way to a place for a breakpoint. A [`Place`] comes from [`Proven`] code alone,
//! and that from a [`Start`] which the probed file itself confirms.

use std::{cell::OnceCell, collections::HashSet, ops::Deref};

use super::{Start, Starts};
use sites::{Code, CodePart, Flow, ReadData, Refusal};

/// An instruction of a file, at which a breakpoint may sit.
///
/// It is made from [`Proven`] code alone. That it can be read from bytes is for the planning process, which made it so
/// and sends it; whoever takes it from there compares the instruction with the process's memory before anything else.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Place {
    offset: u64,
    len: u8,
    bytes: [u8; 15],
}

impl Place {
    /// Offset in the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The instruction there, when it was decoded.
    pub fn instruction(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.len))
            .unwrap_or(&self.bytes)
    }
}

/// A function's code, decoded from starts that its file confirms.
pub struct Proven {
    code: Code,
    /// Address and offset in the file of each part's first byte.
    parts: Vec<(u64, u64)>,
    /// Addresses that the ways through the function pass; `None` where these are not known. Asked for late: most
    /// code is looked at only for a list.
    passed: OnceCell<Option<HashSet<u64>>>,
}

impl Deref for Proven {
    type Target = Code;

    fn deref(&self) -> &Code {
        &self.code
    }
}

impl Proven {
    /// Decodes the parts of a function, the one that is called first.
    pub(super) fn decode(starts: &Starts<'_>, parts: &[Start]) -> Result<Self, Refusal> {
        let elf = starts.elf();
        let mut pads = Vec::new();
        let mut read = Vec::with_capacity(parts.len());
        let mut offsets = Vec::with_capacity(parts.len());
        for part in parts {
            let len =
                usize::try_from(part.end() - part.address()).map_err(|_| Refusal::TooLarge)?;
            let bytes = elf
                .bytes(starts.file(), part.address(), len)
                .ok_or(Refusal::Empty)?;
            let offset = elf.file_offset(part.address()).ok_or(Refusal::Empty)?;
            offsets.push((part.address(), offset));
            read.push(CodePart {
                address: part.address(),
                bytes,
            });
            pads.extend(starts.landing_pads(part));
        }
        let mut code = Code::decode(&read)?;
        // Go's compiler puts no data into code, and its runtime enters functions where a deferred call is over.
        if elf.go.is_none() {
            code.only_passed(&pads);
        }
        Ok(Self {
            code,
            parts: offsets,
            passed: OnceCell::new(),
        })
    }

    /// The place of the instruction at an address; `None` where none begins there, and where it is not known
    /// that a way through the function passes it: it could be data.
    pub fn place(&self, address: u64, read_data: &ReadData<'_>) -> Option<Place> {
        let index = self.code.at(address)?;
        let is_start = address == self.code.entry();
        if !is_start {
            let passed = self.passed.get_or_init(|| {
                let flow = Flow::analyse(&self.code, read_data).ok()?;
                Some(flow.passed(&self.code))
            });
            if !passed
                .as_ref()
                .is_some_and(|passed| passed.contains(&address))
            {
                return None;
            }
        }
        // The part that it lies in: the last to begin before it.
        let (start, offset) = self
            .parts
            .iter()
            .filter(|(start, _)| *start <= address)
            .max()?;
        let encoded = self.code.bytes(index);
        let mut bytes = [0; 15];
        bytes.get_mut(..encoded.len())?.copy_from_slice(encoded);
        Some(Place {
            offset: offset.checked_add(address - start)?,
            len: u8::try_from(encoded.len()).ok()?,
            bytes,
        })
    }
}
