//! The units of a file's debug information, and the one that a function is in.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::HashMap,
    fs::File,
    ops::Deref,
    rc::Rc,
};

use gimli::{
    Abbreviations, AttributeValue, DebugInfoOffset, Reader as _, UnitHeader, UnitOffset, UnitType,
};

use super::{
    DebugError,
    reader::Section,
    sections::{self, Dwarf},
    split::Split,
};
use crate::{
    DebugFiles,
    foreign::{Budget, Cost},
};

/// Units that are looked at; more is no real file.
const MAX_UNITS: usize = 2_000_000;
/// Units that are kept, in bytes of their abbreviations and names of files.
const MAX_KEPT_UNITS: usize = 4 << 20;
/// Places of the code of one entry that are looked at.
const MAX_RANGES: usize = 1_000_000;
/// Units from here on lie elsewhere than in the file's own `.debug_info`.
const ELSEWHERE: usize = 1 << 62;

/// Types that are read for one function.
pub(super) const MAX_TYPES: u32 = 50_000;

pub(super) type Entry = gimli::DebuggingInformationEntry<Section>;

/// A unit, kept once it was read.
pub(super) struct Unit {
    /// What it is part of.
    pub dwarf: Rc<Dwarf>,
    unit: gimli::Unit<Section>,
    /// Bytes of its abbreviations and of its names of files; in memory they take up to fifty times as much.
    weight: usize,
}

impl Deref for Unit {
    type Target = gimli::Unit<Section>;

    fn deref(&self) -> &Self::Target {
        &self.unit
    }
}

impl Unit {
    /// A unit of some debug information.
    pub(super) fn new(dwarf: &Rc<Dwarf>, header: UnitHeader<Section>) -> Result<Self, DebugError> {
        let reader = gimli::Section::reader(&dwarf.debug_abbrev);
        let (abbreviations, size) = reader.abbreviations(header.debug_abbrev_offset())?;
        let names = check_lines(dwarf, &header, &abbreviations)?;
        Ok(Self {
            weight: size.saturating_add(names),
            unit: gimli::Unit::new_with_abbreviations(dwarf, header, abbreviations)?,
            dwarf: dwarf.clone(),
        })
    }

    /// Where the code of an entry lies: first addresses and ends, without empty ones. Not `gimli`'s own
    /// `die_ranges`, whose sum of an address and a size may overflow.
    pub(super) fn ranges(&self, entry: &Entry) -> Result<Vec<(u64, u64)>, DebugError> {
        let mut found = Vec::new();
        if let Some(value) = entry.attr_value(gimli::DW_AT_ranges)
            && let Some(mut listed) = self.dwarf.attr_ranges(&self.unit, value)?
        {
            while let Some(range) = listed.next()? {
                if found.len() == MAX_RANGES {
                    return super::not("the code of an entry lies in too many places");
                }
                found.push((range.begin, range.end));
            }
        } else if let Some(low) = entry.attr_value(gimli::DW_AT_low_pc)
            && let Some(low) = self.dwarf.attr_address(&self.unit, low)?
            && let Some(high) = entry.attr_value(gimli::DW_AT_high_pc)
        {
            let high = match high.udata_value() {
                Some(size) => low.checked_add(size),
                None => self.dwarf.attr_address(&self.unit, high)?,
            };
            found.extend(high.map(|high| (low, high)));
        }
        found.retain(|(begin, end)| begin < end);
        Ok(found)
    }

    /// With what the program's own file says of a unit in a file of its own.
    pub(super) fn completed_by(mut self, skeleton: &Self) -> Self {
        self.unit.copy_relocated_attributes(&skeleton.unit);
        self
    }
}

/// Looks how long the head of a unit's line program is, which is read with the unit: a list of names of files, each of
/// which takes a hundred bytes of memory and may take two in the file.
fn check_lines(
    dwarf: &Dwarf,
    header: &UnitHeader<Section>,
    abbreviations: &Abbreviations,
) -> Result<usize, DebugError> {
    let mut entries = header.entries(abbreviations);
    let Some(root) = entries.next_dfs()? else {
        return Ok(0);
    };
    let Some(AttributeValue::DebugLineRef(offset)) = root.attr_value(gimli::DW_AT_stmt_list) else {
        return Ok(0);
    };
    let mut reader = gimli::Section::reader(&dwarf.debug_line).clone();
    reader.skip(offset.0)?;
    let (_, format) = reader.read_initial_length()?;
    // From version 5 on the sizes of addresses stand before the head's own length.
    if reader.read_u16()? >= 5 {
        reader.skip(2)?;
    }
    let len = reader.read_length(format)?;
    reader.budget().check(Cost::LineHeads, len as u64)?;
    Ok(len)
}

/// A file's debug information.
pub struct DebugInfo {
    /// What reading the file may still cost.
    pub(super) budget: Budget,
    /// Something else of the file was too much before.
    pub(super) was_exceeded: bool,
    pub(super) dwarf: Rc<Dwarf>,
    /// What several files share (dwz).
    shared: Option<Rc<Dwarf>>,
    /// Parts of it in other files.
    split: Split,
    units: RefCell<HashMap<usize, Rc<Unit>>>,
    units_weight: Cell<usize>,
    /// Units that lie elsewhere: of types, and of the file that several share.
    elsewhere: RefCell<Elsewhere>,
    /// Where the units' headers lie, ascending.
    offsets: OnceCell<Vec<usize>>,
    /// Units of types of some debug information, by its address and the type's signature.
    signatures: RefCell<HashMap<usize, HashMap<u64, EntryRef>>>,
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

/// Units that lie elsewhere, and their numbers by what they are part of and where in it.
#[derive(Default)]
struct Elsewhere {
    units: Vec<(Rc<Dwarf>, UnitHeader<Section>)>,
    numbers: HashMap<(usize, Option<usize>, Option<usize>), usize>,
}

#[derive(Default)]
struct Index {
    ranges: Vec<(u64, u64, usize)>,
    filled: bool,
}

/// An entry of some unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct EntryRef {
    /// Where the unit's header lies in `.debug_info`, or a number of its own.
    pub unit: usize,
    /// Within the unit.
    pub offset: usize,
}

impl DebugInfo {
    /// Opens a file's debug information; `None` where it has none. `files`: where parts of it may lie.
    ///
    /// # Errors
    /// Where the file is not ELF, or a compressed section can't be read.
    pub fn open(file: &File, files: Option<DebugFiles>) -> Result<Option<Self>, DebugError> {
        Self::open_within(file, files, &Budget::default())
    }

    /// The same, within what reading the file may still cost.
    ///
    /// # Errors
    /// See [`open`](Self::open).
    pub fn open_within(
        file: &File,
        files: Option<DebugFiles>,
        budget: &Budget,
    ) -> Result<Option<Self>, DebugError> {
        let _reading = budget.reading();
        let Some(mut dwarf) = sections::dwarf(file, budget)? else {
            return Ok(None);
        };
        let mut shared_entries = None;
        if let Some((name, id)) = sections::shared_link(file, budget)?
            && let Some(shared) = files.as_ref().and_then(|files| files.shared(&name, &id))
            && let others = Budget::default()
            && let (Some(texts), Some(entries)) = (
                sections::dwarf(&shared, &others)?,
                sections::dwarf(&shared, &others)?,
            )
        {
            dwarf.set_sup(texts);
            shared_entries = Some(Rc::new(entries));
        }
        Ok(Some(Self {
            budget: budget.clone(),
            was_exceeded: budget.exceeded().is_some(),
            dwarf: Rc::new(dwarf),
            shared: shared_entries,
            split: Split::new(files),
            units: RefCell::default(),
            units_weight: Cell::new(0),
            elsewhere: RefCell::default(),
            offsets: OnceCell::new(),
            signatures: RefCell::default(),
            types_left: Cell::new(MAX_TYPES),
            functions: RefCell::default(),
            index: RefCell::default(),
        }))
    }

    /// Bytes of its entries.
    pub fn size(&self) -> usize {
        gimli::Reader::len(gimli::Section::reader(&self.dwarf.debug_info))
    }

    /// Where the headers of all units lie that have code or types of this file, ascending.
    pub(super) fn unit_offsets(&self) -> Result<&[usize], DebugError> {
        if let Some(known) = self.offsets.get() {
            return Ok(known);
        }
        let mut offsets = Vec::new();
        let mut headers = self.dwarf.units();
        while let Some(header) = headers.next()? {
            if offsets.len() == MAX_UNITS {
                break;
            }
            offsets.extend(header.debug_info_offset().map(|offset| offset.0));
        }
        Ok(self.offsets.get_or_init(|| offsets))
    }

    /// The unit whose header lies at `offset`; where all but its skeleton was put into a file of its own,
    /// and that is found, what is there.
    pub(super) fn unit(&self, offset: usize) -> Result<Rc<Unit>, DebugError> {
        if let Some(unit) = self.units.borrow().get(&offset) {
            return Ok(unit.clone());
        }
        let unit = Rc::new(self.passing_unit(offset)?);
        let mut units = self.units.borrow_mut();
        let weight = self.units_weight.get().saturating_add(unit.weight);
        if weight > MAX_KEPT_UNITS {
            units.clear();
        }
        self.units_weight.set(if units.is_empty() {
            unit.weight
        } else {
            weight
        });
        units.insert(offset, unit.clone());
        Ok(unit)
    }

    /// The same, not kept.
    pub(super) fn passing_unit(&self, offset: usize) -> Result<Unit, DebugError> {
        if let Some(place) = offset.checked_sub(ELSEWHERE) {
            let elsewhere = self.elsewhere.borrow();
            let Some((dwarf, header)) = elsewhere.units.get(place) else {
                return super::not("a reference leads nowhere");
            };
            return Unit::new(dwarf, header.clone());
        }
        let skeleton = self.skeleton(offset)?;
        Ok(match skeleton.dwo_id {
            Some(_) => self.split.unit(&skeleton)?.unwrap_or(skeleton),
            None => skeleton,
        })
    }

    /// What this file itself has of a unit.
    pub(super) fn skeleton(&self, offset: usize) -> Result<Unit, DebugError> {
        let header = self.dwarf.unit_header(DebugInfoOffset(offset))?;
        Unit::new(&self.dwarf, header)
    }

    /// The entry that an attribute of `unit` refers to.
    pub(super) fn reference(
        &self,
        unit: usize,
        value: AttributeValue<Section>,
    ) -> Option<EntryRef> {
        match value {
            AttributeValue::UnitRef(UnitOffset(offset)) => Some(EntryRef { unit, offset }),
            AttributeValue::DebugInfoRef(offset) => {
                if unit < ELSEWHERE {
                    let offsets = self.unit_offsets().ok()?;
                    let place = offsets.partition_point(|start| *start <= offset.0);
                    let unit = *offsets.get(place.checked_sub(1)?)?;
                    return Some(EntryRef {
                        unit,
                        offset: offset.0 - unit,
                    });
                }
                let dwarf = self.unit(unit).ok()?.dwarf.clone();
                self.entry_elsewhere(&dwarf, offset)
            }
            AttributeValue::DebugInfoRefSup(offset) => {
                self.entry_elsewhere(self.shared.as_ref()?, offset)
            }
            AttributeValue::DebugTypesRef(signature) => {
                self.type_of_signature(unit, signature.0).ok()?
            }
            _ => None,
        }
    }

    /// An entry of debug information that is not the file's own.
    fn entry_elsewhere(&self, dwarf: &Rc<Dwarf>, at: DebugInfoOffset) -> Option<EntryRef> {
        let mut units = dwarf.units();
        while let Ok(Some(header)) = units.next() {
            if let Some(UnitOffset(offset)) = at.to_unit_offset(&header) {
                return Some(EntryRef {
                    unit: self.number(dwarf, header),
                    offset,
                });
            }
        }
        None
    }

    /// The number of a unit that lies elsewhere, given where it has none yet.
    fn number(&self, dwarf: &Rc<Dwarf>, header: UnitHeader<Section>) -> usize {
        let place = (
            Rc::as_ptr(dwarf) as usize,
            header.debug_info_offset().map(|offset| offset.0),
            header.debug_types_offset().map(|offset| offset.0),
        );
        let Elsewhere { units, numbers } = &mut *self.elsewhere.borrow_mut();
        *numbers.entry(place).or_insert_with(|| {
            // It keeps the address its own.
            units.push((dwarf.clone(), header));
            ELSEWHERE + units.len() - 1
        })
    }

    /// A type that has a unit of its own, seen from a unit.
    fn type_of_signature(
        &self,
        unit: usize,
        signature: u64,
    ) -> Result<Option<EntryRef>, DebugError> {
        let dwarf = self.unit(unit)?.dwarf.clone();
        let known = Rc::as_ptr(&dwarf) as usize;
        if !self.signatures.borrow().contains_key(&known) {
            let types = self.type_units(&dwarf)?;
            self.signatures.borrow_mut().insert(known, types);
        }
        let found = self
            .signatures
            .borrow()
            .get(&known)
            .and_then(|types| types.get(&signature).copied());
        if found.is_some() {
            return Ok(found);
        }
        // In a package they lie apart from what refers to them.
        let Some(apart) = self.split.types(signature, &self.dwarf)? else {
            return Ok(None);
        };
        let types = self.type_units(&apart)?;
        let found = types.get(&signature).copied();
        if let Some(found) = found
            && let Some(known) = self.signatures.borrow_mut().get_mut(&known)
        {
            known.insert(signature, found);
        }
        Ok(found)
    }

    fn type_units(&self, dwarf: &Rc<Dwarf>) -> Result<HashMap<u64, EntryRef>, DebugError> {
        let mut types = HashMap::new();
        let mut note = |header: UnitHeader<Section>| {
            if let UnitType::Type {
                type_signature,
                type_offset: UnitOffset(offset),
            }
            | UnitType::SplitType {
                type_signature,
                type_offset: UnitOffset(offset),
            } = header.type_()
            {
                let unit = self.number(dwarf, header);
                types.insert(type_signature.0, EntryRef { unit, offset });
            }
        };
        let mut headers = dwarf.type_units();
        while let Some(header) = headers.next()? {
            note(header);
        }
        let mut headers = dwarf.units();
        while let Some(header) = headers.next()? {
            note(header);
        }
        Ok(types)
    }

    pub(super) fn entry(&self, at: EntryRef) -> Result<(Rc<Unit>, Entry), DebugError> {
        let unit = self.unit(at.unit)?;
        let entry = unit.entry(UnitOffset(at.offset))?;
        Ok((unit, entry))
    }

    /// The name that an entry has.
    pub(super) fn name(&self, unit: &Unit, entry: &Entry) -> Option<String> {
        self.text_of(unit, entry, gimli::DW_AT_name)
    }

    /// A text that an entry has.
    pub(super) fn text_of(
        &self,
        unit: &Unit,
        entry: &Entry,
        attribute: gimli::DwAt,
    ) -> Option<String> {
        let value = entry.attr_value(attribute)?;
        let text = unit.dwarf.attr_string(unit, value).ok()?;
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
        for offset in self.unit_offsets()? {
            let Ok(unit) = self.skeleton(*offset) else {
                continue;
            };
            let mut entries = unit.entries();
            let Ok(Some(root)) = entries.next_dfs() else {
                continue;
            };
            let ranges = unit.ranges(root).unwrap_or_default();
            self.budget
                .take(Cost::Memory, ranges.len().saturating_mul(24) as u64)?;
            index
                .ranges
                .extend(ranges.into_iter().map(|(begin, end)| (begin, end, *offset)));
        }
        Ok(())
    }
}
