//! The function table of a stripped Go program: found, and checked before any use.
//!
//! It says where functions are by their distance from the start of the code. Since Go 1.26 its header does not say
//! where that is; the program's `moduledata` does (`runtime/symtab.go`). A distance off, and every name stands for
//! the middle of something else: so the table is compared with the code, as a whole and function by function.

use std::{collections::HashMap, fs::File, os::unix::fs::FileExt as _};

use super::{Elf, Symbol, go, unwind::Extent};
use crate::foreign::Budget;

/// Largest function table, or segment that is searched for it, in bytes.
const MAX_TABLE: u64 = 256 << 20;
/// Largest table of relocations that is read, in bytes.
const MAX_RELOCATIONS: u64 = 64 << 20;
/// A relocation: where, what kind, what.
const RELOCATION: usize = 24;
/// Word of `moduledata` with the start of the code (`text`); `minpc` and `maxpc` are the two before, `etext` follows.
/// The same from Go 1.16 to 1.27.
const TEXT_WORD: u64 = 22;
/// Functions that are compared with the code before the table is believed.
const SAMPLE: usize = 512;
/// How many of the sample must be right, in percent. Measured on programs of Go 1.19 to 1.27 (`tests/root/addresses.rs`):
/// of a right table all but a function or two are (a signature of random bytes that is put among the code), of one
/// that is off by 0x20 to 0x1000 bytes never as many.
const ENOUGH: usize = 98;
/// What Go's linker aligns functions to (`funcAlign` of cmd/link/internal/amd64, for all that are supported), and what
/// some bodies of its assembly ask for (`memeqbody` in 1.24), which are behind padding then.
const ALIGNMENT: u64 = 32;
const OF_BODIES: u64 = 16;
/// Longest function that is decoded, in bytes.
const MAX_CODE: u64 = 4 << 20;

/// Finds the section of a name.
pub(super) type SectionOf<'a> = dyn Fn(&str) -> Option<Extent> + 'a;

/// What a stripped program says of itself.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The functions of its table.
    pub functions: Vec<Symbol>,
    /// Address of the types that offsets are counted from, where its `moduledata` was found.
    pub types: Option<u64>,
}

/// Finds a stripped program's table; `version`: the minor one of Go 1.
///
/// # Errors
/// With the reason for which the table is not used.
pub(super) fn find(
    elf: &Elf,
    file: &File,
    version: Option<u32>,
    section: &SectionOf<'_>,
) -> Result<Found, String> {
    let relocations = Relocations::read(file, section, &elf.budget);
    let read = |extent: Extent| -> Option<Vec<u8>> {
        let end = extent.offset.checked_add(extent.size)?;
        if extent.size > MAX_TABLE
            || !elf.budget.has_room_for(extent.size)
            || end > file.metadata().ok()?.len()
        {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(extent.size).ok()?];
        file.read_exact_at(&mut bytes, extent.offset).ok()?;
        Some(bytes)
    };
    let named = [".gopclntab", ".data.rel.ro.gopclntab"]
        .into_iter()
        .find_map(section);
    // The C linker puts it together with other constants (in a PIE, up to Go 1.25).
    let merged = section(".data.rel.ro");
    let mut problem = "its table of functions was not found".to_owned();
    for extent in [named, merged].into_iter().flatten() {
        let Some(bytes) = read(extent) else {
            continue;
        };
        for at in places(&bytes) {
            let table = bytes.get(at..).unwrap_or_default();
            let address = extent.address.wrapping_add(at as u64);
            let source = Source {
                elf,
                file,
                relocations: &relocations,
            };
            // The magic number may be anything else's, too.
            let found = match source.text(table, address, section, &read) {
                Ok(found) => found,
                Err(reason) => {
                    problem = reason;
                    continue;
                }
            };
            let functions = go::functions(table, found.start, &elf.budget)
                .map_err(|exceeded| exceeded.to_string())?;
            if let Some(functions) = functions {
                let functions = checked(functions, &found, &|at, len| elf.bytes(file, at, len))?;
                // `types`: two words later since coverage counters came.
                let number = if version >= Some(20) { 37 } else { 35 };
                let types = found
                    .module_data
                    .and_then(|at| source.word(at.checked_add(number * 8)?))
                    .filter(|types| elf.file_offset(*types).is_some());
                return Ok(Found { functions, types });
            }
        }
    }
    Err(problem)
}

/// Where a table may begin: the versions' magic numbers, two zeros, instructions of 1 byte, pointers of 8.
fn places(bytes: &[u8]) -> Vec<usize> {
    let is_header =
        |head: &[u8]| matches!(head, [0xf0 | 0xf1 | 0xfa, 0xff, 0xff, 0xff, 0, 0, 1, 8]);
    bytes
        .chunks_exact(8)
        .enumerate()
        .filter(|(_, head)| is_header(head))
        .map(|(place, _)| place * 8)
        .take(16)
        .collect()
}

/// The range of the code that a table describes.
#[derive(Clone, Copy, Default)]
struct Text {
    start: u64,
    /// Where `moduledata` says that it ends.
    end: Option<u64>,
    /// Address of that.
    module_data: Option<u64>,
}

/// What is read to find out where the code begins.
struct Source<'a> {
    elf: &'a Elf,
    file: &'a File,
    relocations: &'a Relocations,
}

impl Source<'_> {
    /// A word as the program has it once it is loaded (at its own addresses).
    fn word(&self, address: u64) -> Option<u64> {
        if let Some(value) = self.relocations.0.get(&address) {
            return Some(*value);
        }
        let bytes = self.elf.bytes(self.file, address, 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    /// Where the code begins: as `moduledata` has it, else the table's header.
    fn text(
        &self,
        table: &[u8],
        address: u64,
        section: &SectionOf<'_>,
        read: &dyn Fn(Extent) -> Option<Vec<u8>>,
    ) -> Result<Text, String> {
        /// Offset of the header's own word for it, from Go 1.18 to 1.25.
        const IN_HEADER: u64 = 24;
        let relative = matches!(table.first(), Some(0xf0 | 0xf1));
        if !relative {
            // Go 1.16 and 1.17 write addresses.
            return Ok(Text::default());
        }
        let header = self
            .word(address.wrapping_add(IN_HEADER))
            .filter(|start| *start != 0);
        match (self.module_data(address, section, read), header) {
            (Some(text), Some(header)) if text.start != header => Err(format!(
                "its table of functions contradicts itself: the code begins at {header:#x}, and at {:#x}",
                text.start
            )),
            (Some(text), _) => Ok(text),
            (None, Some(start)) => Ok(Text {
                start,
                ..Text::default()
            }),
            (None, None) => Err(
                "where the code of its table of functions begins was not found (no moduledata)"
                    .to_owned(),
            ),
        }
    }

    /// Start and end of the code as `moduledata` has them, whose first word is the table's address.
    fn module_data(
        &self,
        table: u64,
        section: &SectionOf<'_>,
        read: &dyn Fn(Extent) -> Option<Vec<u8>>,
    ) -> Option<Text> {
        let plausible = |at: u64| -> Option<Text> {
            let word = |number: u64| self.word(at.checked_add(number.checked_mul(8)?)?);
            let (first, last) = (word(TEXT_WORD - 2)?, word(TEXT_WORD - 1)?);
            let (start, end) = (word(TEXT_WORD)?, word(TEXT_WORD + 1)?);
            let code = self.elf.segments.iter().find(|segment| {
                segment.executable
                    && segment.address <= start
                    && end <= segment.address.saturating_add(segment.file_size)
            });
            let is_right = word(0)? == table
                && start < end
                && start <= first
                && first < last
                && last <= end
                && code.is_some();
            is_right.then_some(Text {
                start,
                end: Some(end),
                module_data: Some(at),
            })
        };
        let relocated = self.relocations.0.iter();
        let relocated = relocated
            .filter(|(_, value)| **value == table)
            .map(|(at, _)| *at);
        if let Some(found) = relocated.into_iter().find_map(plausible) {
            return Some(found);
        }
        [".go.module", ".noptrdata", ".data", ".data.rel.ro"]
            .into_iter()
            .filter_map(section)
            .find_map(|extent| {
                let bytes = read(extent)?;
                let words = bytes.chunks_exact(8).enumerate();
                words
                    .filter(|(_, word)| **word == table.to_le_bytes())
                    .find_map(|(place, _)| plausible(extent.address.checked_add(place as u64 * 8)?))
            })
    }
}

/// What the dynamic linker fills in: values by address, for a program that is loaded at its own addresses.
#[derive(Default)]
struct Relocations(HashMap<u64, u64>);

impl Relocations {
    fn read(file: &File, section: &SectionOf<'_>, budget: &Budget) -> Self {
        /// `R_X86_64_RELATIVE`: the load address plus a number.
        const RELATIVE: u64 = 8;
        let read = || -> Option<Vec<u8>> {
            let extent = section(".rela.dyn")?;
            let end = extent.offset.checked_add(extent.size)?;
            // As a table they take twice as much.
            let has_room = budget.has_room_for(extent.size.saturating_mul(2));
            if extent.size > MAX_RELOCATIONS || !has_room || end > file.metadata().ok()?.len() {
                return None;
            }
            let mut bytes = vec![0; usize::try_from(extent.size).ok()?];
            file.read_exact_at(&mut bytes, extent.offset).ok()?;
            Some(bytes)
        };
        let bytes = read().unwrap_or_default();
        let word = |entry: &[u8], place: usize| -> Option<u64> {
            let bytes = entry.get(place * 8..)?.get(..8)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        let found = bytes.chunks_exact(RELOCATION).filter_map(|entry| {
            (word(entry, 1)? & 0xffff_ffff == RELATIVE)
                .then(|| Some((word(entry, 0)?, word(entry, 2)?)))
                .flatten()
        });
        Self(found.collect())
    }
}

/// The functions of a table that fits the code. Each is looked at again before it is probed ([`is_function`]).
fn checked(
    mut functions: Vec<Symbol>,
    text: &Text,
    read: &go::ReadAt<'_>,
) -> Result<Vec<Symbol>, String> {
    functions.sort_by_key(|function| function.address);
    if let (Some(end), Some(last)) = (text.end, functions.last())
        && last.address >= end
    {
        return Err(format!(
            "its table of functions does not fit its code: {:#x} lies behind the end",
            last.address
        ));
    }
    let step = (functions.len() / SAMPLE).max(1);
    let sample = (0..functions.len()).step_by(step);
    let compared = sample.len();
    let right = sample
        .filter(|place| {
            let before = place.checked_sub(1).and_then(|place| functions.get(place));
            let function = functions.get(*place);
            function.is_some_and(|function| is_function(before, function, read))
        })
        .count();
    if right * 100 < compared * ENOUGH {
        return Err(format!(
            "its table of functions does not fit its code: of {compared} that were compared only {right} begin behind the end of another and are whole instructions"
        ));
    }
    Ok(functions)
}

/// Whether a function of the table begins behind the end of the one before it, and is made of whole instructions.
pub(super) fn is_function(
    before: Option<&Symbol>,
    function: &Symbol,
    read: &go::ReadAt<'_>,
) -> bool {
    let is_adjacent =
        |before: &Symbol| before.address.checked_add(before.size) == Some(function.address);
    let before = match before.filter(|before| is_adjacent(before)) {
        Some(before) => match code_of(before, read) {
            Some(code) => Some(code),
            None => return false,
        },
        None => None,
    };
    let Some(code) = code_of(function, read) else {
        return false;
    };
    function.address.is_multiple_of(ALIGNMENT)
        || function.address.is_multiple_of(OF_BODIES)
            && !code.begins_padded
            && before.is_some_and(|before| before.ends_padded)
}

/// Decodes what a function has, to the start of the next: `None` where it is not instructions, an end, and padding.
fn code_of(function: &Symbol, read: &go::ReadAt<'_>) -> Option<sites::WholeCode> {
    let size = usize::try_from(function.size.min(MAX_CODE)).ok()?;
    sites::whole_code(&read(function.address, size)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbol::{Origin, SymbolKind};
    use proptest::prelude::*;
    use std::io::Write as _;

    fn symbol(address: u64, size: u64) -> Symbol {
        Symbol {
            name: "f".to_owned(),
            version: None,
            address,
            size,
            kind: SymbolKind::Function,
            is_local: false,
            origin: Origin::GoTable,
        }
    }

    #[test]
    fn a_function_begins_behind_an_end() {
        // push rbp; mov eax, 0x90909090; pop rbp; ret; padding | nop; ret; padding
        let mut code = vec![0x55, 0xb8, 0x90, 0x90, 0x90, 0x90, 0x5d, 0xc3];
        code.resize(32, 0xcc);
        code.extend([0x90, 0xc3]);
        code.resize(64, 0xcc);
        // A call, and nothing behind it: no end. With a nop it is one.
        code.resize(91, 0x90);
        code.extend([0xe8, 0, 0, 0, 0, 0x90, 0xc3]);
        code.resize(128, 0xcc);
        let read = |at: u64, len: usize| {
            code.get(at as usize - 0x1000..)?
                .get(..len)
                .map(<[u8]>::to_vec)
        };
        let (one, two) = (symbol(0x1000, 32), symbol(0x1020, 32));
        assert!(is_function(None, &one, &read));
        assert!(is_function(Some(&one), &two, &read));
        // Not aligned; and an end that is none.
        assert!(!is_function(None, &symbol(0x1008, 24), &read));
        assert!(!is_function(None, &symbol(0x1000, 7), &read));
        let (call, behind) = (symbol(0x1040, 32), symbol(0x1060, 32));
        assert!(!is_function(Some(&call), &behind, &read));
        let longer = symbol(0x1040, 33);
        assert!(is_function(None, &longer, &read));
        assert!(!is_function(
            Some(&symbol(0x1000, 3)),
            &symbol(0x1003, 13),
            &read
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2000), magic in 0..3usize) {
            let mut bytes = bytes;
            if bytes.len() > 800 {
                let magic = [0xf1, 0xf0, 0xfa][magic];
                bytes[..16].copy_from_slice(&[magic, 0xff, 0xff, 0xff, 0, 0, 1, 8, 3, 0, 0, 0, 0, 0, 0, 0]);
                // moduledata: the table's address, and a range of code.
                bytes[400..408].copy_from_slice(&0u64.to_le_bytes());
                for (place, value) in [(20, 0x10u64), (21, 0x100), (22, 0x10), (23, 0x100)] {
                    bytes[400 + place * 8..408 + place * 8].copy_from_slice(&value.to_le_bytes());
                }
            }
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            let size = bytes.len() as u64;
            let elf = Elf {
                segments: vec![crate::symbol::Segment { address: 0, file_size: size, offset: 0, executable: true, writable: false }],
                ..Elf::default()
            };
            let section = |name: &str| match name {
                ".gopclntab" => Some(Extent { address: 0, offset: 0, size: size.min(400) }),
                ".go.module" => Some(Extent { address: 400, offset: 400, size: size.saturating_sub(400) }),
                ".rela.dyn" => Some(Extent { address: 700, offset: size.min(700), size: size.saturating_sub(700) }),
                _ => None,
            };
            let _ = find(&elf, &file, Some(26), &section);
        }
    }
}
