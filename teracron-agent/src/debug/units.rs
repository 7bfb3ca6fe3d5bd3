//! The units of a file's debug information, and the one that a function is in.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fs::File,
    rc::Rc,
};

use gimli::{DebugInfoOffset, UnitOffset};
use object::{
    Endianness, Object as _, ObjectSection as _, ReadCache,
    read::elf::{ElfFile64, SectionHeader as _},
};

use super::{
    DebugError, not,
    reader::{Pages, Section},
};

/// Units that are looked at; more is no real file.
const MAX_UNITS: usize = 2_000_000;
/// Largest section that is decompressed, in bytes.
const MAX_DECOMPRESSED: u64 = 2 << 30;

/// Types that are read for one function.
pub(super) const MAX_TYPES: u32 = 50_000;

/// A unit, kept once it was read.
pub(super) type Unit = gimli::Unit<Section>;
pub(super) type Entry = gimli::DebuggingInformationEntry<Section>;

/// A file's debug information.
pub struct DebugInfo {
    pub(super) dwarf: gimli::Dwarf<Section>,
    units: RefCell<HashMap<usize, Rc<Unit>>>,
    /// Types that may still be read for the function that was asked for last: what refers to itself in
    /// many ways would be followed for ever.
    pub(super) types_left: Cell<u32>,
    /// Functions of units that were looked at.
    pub(super) functions: RefCell<HashMap<usize, UnitFunctions>>,
    /// Address ranges of units, with their places; filled as far as was needed.
    index: RefCell<Index>,
}

/// The functions of a unit, by what they are looked for by.
#[derive(Default)]
pub(super) struct UnitFunctions {
    /// Places in the unit, by address.
    pub by_address: HashMap<u64, usize>,
    /// Where the function with the entry at a place was inlined.
    pub inlined: HashMap<usize, Vec<u64>>,
}

#[derive(Default)]
struct Index {
    ranges: Vec<(u64, u64, usize)>,
    filled: bool,
}

/// An entry of some unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EntryRef {
    /// Where the unit's header lies in `.debug_info`.
    pub unit: usize,
    /// Within the unit.
    pub offset: usize,
}

impl DebugInfo {
    /// Opens a file's debug information; `None` where it has none.
    ///
    /// # Errors
    /// Where the file is not ELF, or a compressed section can't be read.
    pub fn open(file: &File) -> Result<Option<Self>, DebugError> {
        let cache = ReadCache::new(file);
        let parsed: ElfFile64<'_, Endianness, _> = ElfFile64::parse(&cache)?;
        if parsed.section_by_name(".debug_info").is_none() {
            return Ok(None);
        }
        let Ok(own) = file.try_clone() else {
            return not("the file can't be opened once more");
        };
        let pages = Pages::of(own);
        let length = file.metadata().map(|data| data.len()).unwrap_or(0);
        let dwarf = gimli::Dwarf::load(|id| -> Result<Section, DebugError> {
            let Some(section) = parsed.section_by_name(id.name()) else {
                return Ok(Section::of_bytes(Vec::new()));
            };
            let header = section.elf_section_header();
            let flags = header.sh_flags(parsed.endian());
            if flags.contains(object::elf::SHF_COMPRESSED) {
                let data = section.compressed_data()?;
                if data.uncompressed_size > MAX_DECOMPRESSED {
                    return not(format!("{} is larger than 2 GiB", id.name()));
                }
                return Ok(Section::of_bytes(data.decompress()?.into_owned()));
            }
            let Some((offset, size)) = section.file_range() else {
                return Ok(Section::of_bytes(Vec::new()));
            };
            if offset.checked_add(size).is_none_or(|end| end > length) {
                return not(format!("{} lies behind the end of the file", id.name()));
            }
            Ok(Section::of_file(pages.clone(), offset, size as usize))
        })?;
        Ok(Some(Self {
            dwarf,
            units: RefCell::default(),
            types_left: Cell::new(MAX_TYPES),
            functions: RefCell::default(),
            index: RefCell::default(),
        }))
    }

    /// The unit whose header lies at `offset`.
    pub(super) fn unit(&self, offset: usize) -> Result<Rc<Unit>, DebugError> {
        if let Some(unit) = self.units.borrow().get(&offset) {
            return Ok(unit.clone());
        }
        let header = self.dwarf.unit_header(DebugInfoOffset(offset))?;
        let unit = Rc::new(self.dwarf.unit(header)?);
        self.units.borrow_mut().insert(offset, unit.clone());
        Ok(unit)
    }

    /// The entry that an attribute of `unit` refers to.
    pub(super) fn reference(
        &self,
        unit: usize,
        value: gimli::AttributeValue<Section>,
    ) -> Option<EntryRef> {
        match value {
            gimli::AttributeValue::UnitRef(UnitOffset(offset)) => Some(EntryRef { unit, offset }),
            gimli::AttributeValue::DebugInfoRef(offset) => {
                let mut units = self.dwarf.units();
                while let Ok(Some(header)) = units.next() {
                    if let Some(UnitOffset(inside)) = offset.to_unit_offset(&header) {
                        return Some(EntryRef {
                            unit: place(&header)?,
                            offset: inside,
                        });
                    }
                }
                None
            }
            _ => None,
        }
    }

    pub(super) fn entry(&self, at: EntryRef) -> Result<(Rc<Unit>, Entry), DebugError> {
        let unit = self.unit(at.unit)?;
        let entry = unit.entry(UnitOffset(at.offset))?;
        Ok((unit, entry))
    }

    /// A name that an entry has, or that the one which it completes has.
    pub(super) fn name(&self, unit: &Unit, entry: &Entry) -> Option<String> {
        let value = entry.attr_value(gimli::DW_AT_name)?;
        let text = self.dwarf.attr_string(unit, value).ok()?;
        gimli::Reader::to_string_lossy(&text)
            .ok()
            .map(|text| text.into_owned())
    }

    /// The unit that has the code at an address.
    pub(super) fn unit_of(&self, address: u64) -> Result<Option<usize>, DebugError> {
        if let Some(unit) = self.by_aranges(address) {
            return Ok(Some(unit));
        }
        if !self.index.borrow().filled {
            self.fill_index()?;
        }
        let index = self.index.borrow();
        Ok(index
            .ranges
            .iter()
            .find(|(from, to, _)| (*from..*to).contains(&address))
            .map(|(_, _, unit)| *unit))
    }

    fn by_aranges(&self, address: u64) -> Option<usize> {
        let mut headers = self.dwarf.debug_aranges.headers();
        while let Ok(Some(header)) = headers.next() {
            let mut entries = header.entries();
            while let Ok(Some(entry)) = entries.next() {
                let from = entry.address();
                if (from..from.saturating_add(entry.length())).contains(&address) {
                    return Some(header.debug_info_offset().0);
                }
            }
        }
        None
    }

    /// Notes the ranges of all units, from their root entries.
    fn fill_index(&self) -> Result<(), DebugError> {
        let mut index = self.index.borrow_mut();
        index.filled = true;
        let mut headers = self.dwarf.units();
        for _ in 0..MAX_UNITS {
            let Some(header) = headers.next()? else {
                break;
            };
            let Some(offset) = place(&header) else {
                continue;
            };
            let Ok(unit) = self.dwarf.unit(header) else {
                continue;
            };
            let Ok(mut ranges) = self.dwarf.unit_ranges(&unit) else {
                continue;
            };
            while let Ok(Some(range)) = ranges.next() {
                index.ranges.push((range.begin, range.end, offset));
            }
        }
        Ok(())
    }
}

fn place(header: &gimli::UnitHeader<Section>) -> Option<usize> {
    header.debug_info_offset().map(|offset| offset.0)
}
