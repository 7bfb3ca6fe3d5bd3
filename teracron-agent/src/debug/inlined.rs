//! Where functions were inlined, in every unit of a file.

use std::collections::HashMap;

use gimli::{AttributeValue, UnitOffset};

use super::{
    DebugError, DebugInfo, not,
    units::{Entry, EntryRef, Unit},
};

/// Places that are looked at, in all units together.
const MAX_PLACES: usize = 20_000_000;
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
}

impl DebugInfo {
    /// Where functions were inlined whose symbol or name is `wanted`. It reads all of the debug information,
    /// so it is only for who asks for it.
    ///
    /// # Errors
    /// Where the debug information makes no sense, or there is too much of it.
    pub fn inlined_functions(
        &self,
        mut wanted: impl FnMut(&str) -> bool,
    ) -> Result<Vec<InlinedFunction>, DebugError> {
        // Symbols by where the function is described; places by the same, where it may come later.
        let mut symbols: HashMap<EntryRef, String> = HashMap::new();
        let mut places: Vec<(EntryRef, EntryRef)> = Vec::new();
        let mut seen = 0usize;
        for offset in self.unit_offsets()?.iter().copied() {
            let Ok(unit) = self.passing_unit(offset) else {
                continue;
            };
            let mut own: Vec<(usize, usize)> = Vec::new();
            let mut entries = unit.entries();
            while let Some(entry) = entries.next_dfs()? {
                let at = entry.offset().0;
                if entry.tag() == gimli::DW_TAG_subprogram {
                    if entry.attr_value(gimli::DW_AT_inline).is_some()
                        && let Some(symbol) = self.symbol_of(&unit, entry)
                        && wanted(&symbol)
                    {
                        let described = EntryRef {
                            unit: offset,
                            offset: at,
                        };
                        symbols.insert(described, symbol);
                    }
                    continue;
                }
                if entry.tag() != gimli::DW_TAG_inlined_subroutine {
                    continue;
                }
                seen += 1;
                if seen > MAX_PLACES {
                    return not("it has too many inlined calls");
                }
                match entry.attr_value(gimli::DW_AT_abstract_origin) {
                    Some(AttributeValue::UnitRef(UnitOffset(origin))) => own.push((origin, at)),
                    Some(other) => {
                        let place = EntryRef {
                            unit: offset,
                            offset: at,
                        };
                        places.extend(self.reference(offset, other).map(|origin| (origin, place)));
                    }
                    None => {}
                }
            }
            let described = |origin| EntryRef {
                unit: offset,
                offset: origin,
            };
            places.extend(
                own.into_iter()
                    .map(|(origin, at)| (described(origin), described(at)))
                    .filter(|(origin, _)| symbols.contains_key(origin)),
            );
        }
        let mut found: HashMap<String, Vec<InlinedPlace>> = HashMap::new();
        for (origin, at) in places {
            if let Some(symbol) = symbols.get(&origin)
                && let Some(place) = self.place(at)?
            {
                let places = found.entry(symbol.clone()).or_default();
                if places.len() < MAX_KEPT {
                    places.push(place);
                }
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

    /// The symbol of a function that may have no code of its own; its name where it has none.
    fn symbol_of(&self, unit: &Unit, entry: &Entry) -> Option<String> {
        const LINKAGE: [gimli::DwAt; 2] =
            [gimli::DW_AT_linkage_name, gimli::DW_AT_MIPS_linkage_name];
        let own = LINKAGE
            .into_iter()
            .find_map(|name| self.text_of(unit, entry, name));
        own.or_else(|| {
            let Some(AttributeValue::UnitRef(declared)) =
                entry.attr_value(gimli::DW_AT_specification)
            else {
                return None;
            };
            let declared = unit.entry(declared).ok()?;
            LINKAGE
                .into_iter()
                .chain([gimli::DW_AT_name])
                .find_map(|name| self.text_of(unit, &declared, name))
        })
        .or_else(|| self.name(unit, entry))
    }

    /// Where the code of an inlined call lies; `None` where nothing is left of it.
    fn place(&self, at: EntryRef) -> Result<Option<InlinedPlace>, DebugError> {
        let unit = self.unit(at.unit)?;
        let entry = unit.entry(UnitOffset(at.offset))?;
        let mut ranges = Vec::new();
        let mut listed = unit.dwarf.die_ranges(&unit, &entry)?;
        while let Some(range) = listed.next()? {
            if range.begin < range.end {
                ranges.push((range.begin, range.end));
            }
        }
        let Some((first, _)) = ranges.first().copied() else {
            return Ok(None);
        };
        let entry = match entry.attr_value(gimli::DW_AT_entry_pc) {
            // An offset from the first address (DWARF 5, 2.18).
            Some(AttributeValue::Udata(distance)) => first.wrapping_add(distance),
            Some(value) => unit.dwarf.attr_address(&unit, value)?.unwrap_or(first),
            None => first,
        };
        Ok(Some(InlinedPlace { entry, ranges }))
    }
}
