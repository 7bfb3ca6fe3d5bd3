//! Where functions were inlined, in every unit of a file.

use std::collections::{HashMap, hash_map::Entry as Known};

use gimli::{AttributeValue, UnitOffset};

use super::{
    DebugError, DebugInfo, not,
    units::{Entry, EntryRef, Unit},
};

/// Places that are looked at, in all units together.
const MAX_PLACES: usize = 20_000_000;
/// Rows of a unit's line table that are looked at.
const MAX_ROWS: usize = 10_000_000;
/// Places of one function that are kept.
const MAX_KEPT: usize = 10_000;

/// A function that was inlined somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlinedFunction {
    /// Its symbol, or its name where it has none.
    pub symbol: String,
    /// Where, ascending.
    pub places: Vec<InlinedPlace>,
}

/// A place where a function was inlined.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InlinedPlace {
    /// Where its code begins.
    pub entry: u64,
    /// Its code: first address and end.
    pub ranges: Vec<(u64, u64)>,
    /// The statement that it begins with begins elsewhere in it once more: a loop around the call was unrolled,
    /// perhaps, and this is the code of several calls.
    pub is_repeated: bool,
}

impl DebugInfo {
    /// Where functions were inlined whose symbol or name is `wanted`. It reads all of the debug information,
    /// so it is only for who asks for it.
    ///
    /// # Errors
    /// Where the debug information makes no sense, or there is too much of it.
    pub(super) fn read_inlined_functions(
        &self,
        mut wanted: impl FnMut(&str) -> bool,
    ) -> Result<Vec<InlinedFunction>, DebugError> {
        // Places by where the function is described, of those that are wanted; of others, nothing.
        let mut places: HashMap<EntryRef, Option<(String, Vec<EntryRef>)>> = HashMap::new();
        let mut names = Qualified::default();
        let mut apart: Vec<(EntryRef, EntryRef)> = Vec::new();
        let mut seen = 0usize;
        let mut note = |names: &Qualified, unit: &Unit, origin: EntryRef, place: EntryRef| {
            let of_function = places.entry(origin).or_insert_with(|| {
                let symbol = self.symbol_of(unit, origin, names)?;
                wanted(&symbol).then(|| (symbol, Vec::new()))
            });
            let Some((symbol, places)) = of_function else {
                return Ok(());
            };
            if places.len() == MAX_KEPT {
                return not(format!(
                    "{symbol} was inlined at more than {MAX_KEPT} places"
                ));
            }
            places.push(place);
            Ok(())
        };
        for offset in self.unit_offsets()?.iter().copied() {
            // Nearly all units have nothing of what is wanted: they are not kept.
            let Ok(unit) = self.passing_unit(offset) else {
                continue;
            };
            let at = |place| EntryRef {
                unit: offset,
                offset: place,
            };
            let mut own: Vec<(usize, usize)> = Vec::new();
            names.path.clear();
            let mut entries = unit.entries();
            while let Some(entry) = entries.next_dfs()? {
                let place = entry.offset().0;
                names.pass(entry, at(place), || self.name(&unit, entry));
                if entry.tag() != gimli::DW_TAG_inlined_subroutine {
                    continue;
                }
                seen += 1;
                if seen > MAX_PLACES {
                    return not("it has too many inlined calls");
                }
                match entry.attr_value(gimli::DW_AT_abstract_origin) {
                    Some(AttributeValue::UnitRef(UnitOffset(origin))) => own.push((origin, place)),
                    Some(other) => {
                        let origin = self.reference(offset, other);
                        apart.extend(origin.map(|origin| (origin, at(place))));
                    }
                    None => {}
                }
            }
            // Functions may be described behind the places.
            for (origin, place) in own {
                note(&names, &unit, at(origin), at(place))?;
            }
        }
        for (origin, place) in apart {
            if let Ok(unit) = self.unit(origin.unit) {
                note(&names, &unit, origin, place)?;
            }
        }
        let mut lines: HashMap<usize, Statements> = HashMap::new();
        let mut found: HashMap<String, Vec<InlinedPlace>> = HashMap::new();
        for (symbol, places) in places.into_values().flatten() {
            let of_symbol = found.entry(symbol).or_default();
            for at in places {
                let lines = match lines.entry(at.unit) {
                    Known::Occupied(known) => known.into_mut(),
                    Known::Vacant(new) => new.insert(self.statements(at.unit)?),
                };
                of_symbol.extend(self.place(at, lines)?);
            }
        }
        let mut found: Vec<InlinedFunction> = found
            .into_iter()
            .map(|(symbol, mut places)| {
                places.sort_unstable();
                places.dedup_by_key(|place| place.entry);
                InlinedFunction { symbol, places }
            })
            .collect();
        found.sort_unstable_by(|a, b| a.symbol.cmp(&b.symbol));
        Ok(found)
    }

    /// The symbol of a function that may have no code of its own; its qualified name where it has none.
    fn symbol_of(&self, unit: &Unit, at: EntryRef, names: &Qualified) -> Option<String> {
        let linkage = |unit: &Unit, entry: &Entry| {
            [gimli::DW_AT_linkage_name, gimli::DW_AT_MIPS_linkage_name]
                .into_iter()
                .find_map(|name| self.text_of(unit, entry, name))
        };
        let entry = unit.entry(UnitOffset(at.offset)).ok()?;
        let own = linkage(unit, &entry).or_else(|| names.known.get(&at).cloned());
        own.or_else(|| {
            let specified = entry.attr_value(gimli::DW_AT_specification)?;
            if let AttributeValue::UnitRef(UnitOffset(offset)) = specified {
                let entry = unit.entry(UnitOffset(offset)).ok()?;
                let declared = EntryRef { offset, ..at };
                return linkage(unit, &entry).or_else(|| names.known.get(&declared).cloned());
            }
            let declared = self.reference(at.unit, specified)?;
            let (unit, entry) = self.entry(declared).ok()?;
            linkage(&unit, &entry).or_else(|| names.known.get(&declared).cloned())
        })
        .or_else(|| self.name(unit, &entry))
    }

    /// Where the code of an inlined call lies; `None` where nothing is left of it.
    fn place(&self, at: EntryRef, lines: &Statements) -> Result<Option<InlinedPlace>, DebugError> {
        let unit = self.unit(at.unit)?;
        let entry = unit.entry(UnitOffset(at.offset))?;
        let mut ranges = unit.ranges(&entry)?;
        let Some((first, _)) = ranges.first().copied() else {
            return Ok(None);
        };
        let entry = match entry.attr_value(gimli::DW_AT_entry_pc) {
            // An offset from the first address (DWARF 5, 2.18).
            Some(AttributeValue::Udata(distance)) => first.wrapping_add(distance),
            Some(value) => unit.dwarf.attr_address(&unit, value)?.unwrap_or(first),
            None => first,
        };
        ranges.sort_unstable();
        Ok(Some(InlinedPlace {
            is_repeated: lines.repeat(entry, &ranges),
            entry,
            ranges,
        }))
    }

    /// Where statements begin in a unit.
    fn statements(&self, unit: usize) -> Result<Statements, DebugError> {
        let mut rows = Vec::new();
        // Line tables stay in the program's file.
        if let Some(program) = self.skeleton(unit)?.line_program.clone() {
            let mut program = program.rows();
            while let Some((_, row)) = program.next_row()? {
                if rows.len() == MAX_ROWS {
                    return not("a line table of it is too large");
                }
                let line = row.line().map_or(0, std::num::NonZeroU64::get);
                if row.is_stmt() && line != 0 && !row.end_sequence() {
                    rows.push((row.address(), row.file_index(), line));
                }
            }
        }
        // Several at one address stay in their order: the last is in force.
        rows.sort_by_key(|(address, _, _)| *address);
        Ok(Statements(rows))
    }
}

/// Where statements begin: address, file and line, ascending.
struct Statements(Vec<(u64, u64, u64)>);

impl Statements {
    /// Whether the statement at `entry` begins more than once in the ranges.
    fn repeat(&self, entry: u64, ranges: &[(u64, u64)]) -> bool {
        let Self(rows) = self;
        let after = rows.partition_point(|(address, _, _)| *address <= entry);
        let Some((_, file, line)) = after.checked_sub(1).and_then(|last| rows.get(last)) else {
            // Nothing is known of its lines.
            return ranges.len() > 1;
        };
        let mut begins = 0;
        for (start, end) in ranges {
            let from = rows.partition_point(|(address, _, _)| address < start);
            let mut before = None;
            for (_, other, at) in rows.iter().skip(from).take_while(|row| row.0 < *end) {
                let is_same = (other, at) == (file, line);
                if is_same && before != Some((other, at)) {
                    begins += 1;
                }
                before = Some((other, at));
            }
        }
        begins > 1
    }
}

/// Names of functions without a symbol, with the namespaces and classes that they are in; filled while the
/// entries of units pass by.
#[derive(Default)]
struct Qualified {
    /// What the entry that passes is in: depth and name.
    path: Vec<(isize, String)>,
    known: HashMap<EntryRef, String>,
}

impl Qualified {
    /// Notes an entry.
    fn pass(&mut self, entry: &Entry, at: EntryRef, name: impl FnOnce() -> Option<String>) {
        let depth = entry.depth();
        while self.path.last().is_some_and(|(outer, _)| *outer >= depth) {
            self.path.pop();
        }
        match entry.tag() {
            gimli::DW_TAG_namespace => {
                let name = name().unwrap_or_else(|| "(anonymous namespace)".to_owned());
                self.path.push((depth, name));
            }
            gimli::DW_TAG_structure_type | gimli::DW_TAG_class_type => {
                self.path.extend(name().map(|name| (depth, name)));
            }
            gimli::DW_TAG_subprogram
                if !self.path.is_empty()
                    && entry.attr_value(gimli::DW_AT_linkage_name).is_none() =>
            {
                if let Some(name) = name() {
                    let outer = self.path.iter().map(|(_, name)| name.as_str());
                    let names: Vec<&str> = outer.chain([name.as_str()]).collect();
                    self.known.insert(at, names.join("::"));
                }
            }
            _ => {}
        }
    }
}
