//! A file's own unwind table (`.eh_frame`): where functions begin and end, whoever names them.
//!
//! Sources: the Linux Standard Base (`.eh_frame`, `.eh_frame_hdr`), and for landing pads GCC's `unwind-pe.h` and
//! `eh_personality.cc` (the "language specific data area").

use std::{fs::File, os::unix::fs::FileExt as _};

use gimli::{
    BaseAddresses, CieOrFde, EhFrame, EndianSlice, FrameDescriptionEntry, LittleEndian, Pointer,
    UnwindSection as _,
};

use super::Elf;
use crate::foreign::Budget;

/// Larger tables are not read, in bytes. That of a browser has 30 MB.
const MAX_TABLE: u64 = 128 << 20;
/// Functions of a table without an index that are read.
const MAX_FUNCTIONS: usize = 4_000_000;
/// Bytes of a function's list of landing pads that are read.
const MAX_PADS: usize = 64 << 10;

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Where a section lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Virtual address.
    pub address: u64,
    /// Offset in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub size: u64,
}

impl Extent {
    /// Its bytes, where the file holds them all and they are not too many.
    fn read(self, file: &File, budget: &Budget) -> Option<Vec<u8>> {
        let end = self.offset.checked_add(self.size)?;
        if self.size == 0
            || self.size > MAX_TABLE
            || !budget.has_room_for(self.size)
            || end > file.metadata().ok()?.len()
        {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(self.size).ok()?];
        file.read_exact_at(&mut bytes, self.offset).ok()?;
        Some(bytes)
    }
}

/// What a file says of its unwind table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnwindSections {
    /// `.eh_frame`.
    pub frames: Option<Extent>,
    /// `.eh_frame_hdr`: an index of it.
    pub index: Option<Extent>,
    /// Start of `.text`, from which some entries count.
    pub text: u64,
}

/// A function, as the unwind table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Described {
    /// Virtual address of its first byte.
    pub start: u64,
    /// The address behind its last.
    pub end: u64,
    /// Address of what describes its landing pads.
    pub pads: Option<u64>,
}

/// The table, in memory while a file's functions are looked at.
pub(super) struct Unwind {
    bytes: Vec<u8>,
    bases: BaseAddresses,
    index: Index,
}

/// Where the entry of a function is found.
enum Index {
    /// The linker's sorted one: its address, and pairs of distances from there, to the function and to its entry.
    Linkers(u64, Vec<u8>),
    /// Made here: function and offset of its entry.
    Ours(Vec<(u64, usize)>),
}

impl Index {
    fn len(&self) -> usize {
        match self {
            Self::Linkers(_, pairs) => pairs.len() / 8,
            Self::Ours(pairs) => pairs.len(),
        }
    }

    /// A function's start and the place of its entry: an address (the linker's index), an offset (ours).
    fn at(&self, place: usize) -> Option<(u64, u64)> {
        match self {
            Self::Linkers(base, pairs) => {
                let pair = pairs.get(place.checked_mul(8)?..)?.get(..8)?;
                let (start, entry) = pair.split_at(4);
                let from = |bytes: &[u8]| -> Option<u64> {
                    let distance = i32::from_le_bytes(bytes.try_into().ok()?);
                    Some(base.wrapping_add_signed(distance.into()))
                };
                Some((from(start)?, from(entry)?))
            }
            Self::Ours(pairs) => pairs
                .get(place)
                .map(|(start, offset)| (*start, *offset as u64)),
        }
    }

    /// How many functions begin at or before an address.
    fn up_to(&self, address: u64) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.at(middle) {
                Some((start, _)) if start <= address => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }

    fn is_sorted(&self) -> bool {
        let starts = (0..self.len()).map(|place| self.at(place).map(|(start, _)| start));
        starts.is_sorted()
    }
}

impl Unwind {
    /// Reads the table of a file; `None` where it has none that can be read.
    pub(super) fn read(sections: &UnwindSections, file: &File, budget: &Budget) -> Option<Self> {
        let frames = sections.frames?;
        let bytes = frames.read(file, budget)?;
        let bases = BaseAddresses::default()
            .set_eh_frame(frames.address)
            .set_text(sections.text);
        let mut this = Self {
            bytes,
            bases,
            index: Index::Ours(Vec::new()),
        };
        let linkers = sections
            .index
            .and_then(|index| pairs(index, &index.read(file, budget)?));
        this.index = match linkers {
            // Believed only where it says what the table says, at each look.
            Some(index) if index.is_sorted() => index,
            _ => this.scan(),
        };
        (this.index.len() > 0).then_some(this)
    }

    fn frames(&self) -> EhFrame<Slice<'_>> {
        EhFrame::new(&self.bytes, LittleEndian)
    }

    /// Reads every entry.
    fn scan(&self) -> Index {
        let frames = self.frames();
        let mut entries = frames.entries(&self.bases);
        let mut found = Vec::new();
        while let Ok(Some(entry)) = entries.next() {
            if found.len() >= MAX_FUNCTIONS {
                break;
            }
            if let CieOrFde::Fde(partial) = entry
                && let Ok(entry) = partial.parse(EhFrame::cie_from_offset)
                && entry.initial_address() != 0
                && entry.len() != 0
            {
                found.push((entry.initial_address(), entry.offset()));
            }
        }
        found.sort_unstable();
        Index::Ours(found)
    }

    /// The function that an address lies in, as the table has it.
    ///
    /// # Errors
    /// Where table and index contradict each other.
    pub(super) fn containing(&self, address: u64) -> Result<Option<Described>, String> {
        let Some(place) = self.index.up_to(address).checked_sub(1) else {
            return Ok(None);
        };
        let wrong = || format!("the file's unwind table contradicts its index near {address:#x}");
        let (start, entry) = self.index.at(place).ok_or_else(wrong)?;
        let found = self.entry(entry).ok_or_else(wrong)?;
        let described = describe(&found).ok_or_else(wrong)?;
        if described.start != start {
            return Err(wrong());
        }
        Ok((address < described.end).then_some(described))
    }

    /// The first function behind an address.
    pub(super) fn next_start(&self, address: u64) -> Option<u64> {
        let place = self.index.up_to(address);
        self.index.at(place).map(|(start, _)| start)
    }

    fn entry(&self, place: u64) -> Option<FrameDescriptionEntry<Slice<'_>>> {
        let offset = match self.index {
            Index::Linkers(..) => place.checked_sub(self.bases.eh_frame.section?)?,
            Index::Ours(_) => place,
        };
        let offset = usize::try_from(offset).ok()?;
        if offset >= self.bytes.len() {
            return None;
        }
        self.frames()
            .fde_from_offset(&self.bases, offset.into(), EhFrame::cie_from_offset)
            .ok()
    }
}

fn describe(entry: &FrameDescriptionEntry<Slice<'_>>) -> Option<Described> {
    let start = entry.initial_address();
    Some(Described {
        start,
        end: start.checked_add(entry.len())?,
        pads: match entry.lsda() {
            Some(Pointer::Direct(address)) if address != 0 => Some(address),
            _ => None,
        },
    })
}

/// The linker's index, where it has the one form that linkers write: a version, three encodings, the distance to
/// the table, the number of pairs, the pairs (4-byte distances from the index itself).
fn pairs(extent: Extent, bytes: &[u8]) -> Option<Index> {
    const FORM: [u8; 4] = [1, 0x1b, 0x03, 0x3b];
    let rest = bytes.strip_prefix(&FORM)?;
    let count = u32::from_le_bytes(rest.get(4..8)?.try_into().ok()?);
    let len = usize::try_from(count).ok()?.checked_mul(8)?;
    let pairs = rest.get(8..8usize.checked_add(len)?)?;
    Some(Index::Linkers(extent.address, pairs.to_vec()))
}

/// Addresses at which exceptions land in a function, as the list at `at` has them; those that it can't be read
/// for are missing.
pub(super) fn landing_pads(elf: &Elf, file: &File, function: u64, at: u64) -> Vec<u64> {
    // The list says itself how long it is; nearly all are short.
    [128, 2 << 10, MAX_PADS]
        .into_iter()
        .find_map(|len| pads_in(&elf.bytes_up_to(file, at, len)?, function))
        .unwrap_or_default()
}

fn pads_in(bytes: &[u8], function: u64) -> Option<Vec<u64>> {
    const OMITTED: u8 = 0xff;
    let mut bytes = Bytes(bytes);
    // Only the usual form, in which pads are counted from the function's start.
    if bytes.byte()? != OMITTED {
        return None;
    }
    if bytes.byte()? != OMITTED {
        bytes.uleb()?;
    }
    let encoding = bytes.byte()?;
    let len = usize::try_from(bytes.uleb()?).ok()?;
    let mut sites = Bytes(bytes.0.get(..len)?);
    let mut pads = Vec::new();
    while !sites.0.is_empty() {
        // The call's start and length, its pad (0: none), what is done there.
        let mut values = [0; 3];
        for value in &mut values {
            *value = match encoding {
                0x01 => sites.uleb()?,
                0x03 | 0x0b => sites.word()?.into(),
                _ => return None,
            };
        }
        sites.uleb()?;
        if values[2] != 0 {
            pads.extend(function.checked_add(values[2]));
        }
    }
    pads.sort_unstable();
    pads.dedup();
    Some(pads)
}

/// Bytes that are read one after the other.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn word(&mut self) -> Option<u32> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*word))
    }

    fn uleb(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
            shift += 7;
            if shift > 63 {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;

    fn libc() -> (Elf, File) {
        let file = File::open("/lib/x86_64-linux-gnu/libc.so.6").unwrap();
        (Elf::read(&file).unwrap(), file)
    }

    #[test]
    fn both_indexes_say_the_same() {
        let (elf, file) = libc();
        let linkers = Unwind::read(&elf.unwind, &file, &elf.budget).unwrap();
        assert!(matches!(linkers.index, Index::Linkers(..)));
        let without = UnwindSections {
            index: None,
            ..elf.unwind
        };
        let ours = Unwind::read(&without, &file, &elf.budget).unwrap();
        assert!(matches!(ours.index, Index::Ours(_)));
        assert_eq!(linkers.index.len(), ours.index.len());
        let malloc = elf.symbol("malloc").unwrap();
        for address in [malloc.address, malloc.address + 5, malloc.address - 1] {
            assert_eq!(linkers.containing(address), ours.containing(address));
            assert_eq!(linkers.next_start(address), ours.next_start(address));
        }
        let found = linkers.containing(malloc.address + 5).unwrap().unwrap();
        assert_eq!(found.start, malloc.address);
        assert_eq!(found.end, malloc.address + malloc.size);
    }

    #[test]
    fn an_index_that_lies_is_not_believed() {
        let (elf, file) = libc();
        let mut unwind = Unwind::read(&elf.unwind, &file, &elf.budget).unwrap();
        let malloc = elf.symbol("malloc").unwrap().address;
        let place = unwind.index.up_to(malloc) - 1;
        let Index::Linkers(_, pairs) = &mut unwind.index else {
            panic!("no index");
        };
        pairs[place * 8] ^= 4;
        assert!(unwind.containing(malloc + 8).is_err());
    }

    #[test]
    fn landing_pads_are_counted_from_the_function() {
        // No base, no types, uleb: one call without a pad, two with.
        let list = [
            0xff, 0xff, 0x01, 12, 0, 4, 0, 0, 4, 4, 0x20, 0, 8, 4, 0x28, 1,
        ];
        assert_eq!(pads_in(&list, 0x1000), Some(vec![0x1020, 0x1028]));
        assert_eq!(pads_in(&list[..10], 0x1000), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600), at in 0u64..0x400, good in any::<bool>()) {
            let mut bytes = bytes;
            if good && bytes.len() > 16 {
                bytes[..4].copy_from_slice(&[1, 0x1b, 0x03, 0x3b]);
                bytes[9..12].fill(0);
            }
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            let all = Extent { address: 0, offset: 0, size: bytes.len() as u64 };
            for index in [None, Some(all)] {
                let sections = UnwindSections { frames: Some(all), index, text: 0 };
                if let Some(unwind) = Unwind::read(&sections, &file, &Budget::default()) {
                    let _ = unwind.containing(at);
                    let _ = unwind.next_start(at);
                }
            }
            let _ = pads_in(&bytes, at);
        }
    }
}
