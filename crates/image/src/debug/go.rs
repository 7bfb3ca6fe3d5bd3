//! Go's types: which are errors with a text, and where it lies.

use std::collections::HashMap;

use super::{DebugError, DebugInfo, Type, TypeRef, units::EntryRef};

/// Debug information larger than this is not searched for types, in bytes.
const MAX_SEARCHED: usize = 256 << 20;
/// `DW_AT_go_runtime_type`: where the type lies, counted from `runtime.types` (cmd/internal/dwarf).
const RUNTIME_TYPE: gimli::DwAt = gimli::DwAt(0x2904);
/// Names of the field that holds an error's text, where there are several strings.
const TEXTS: [&str; 6] = ["s", "msg", "message", "text", "Msg", "Message"];

impl DebugInfo {
    /// Addresses of types, with the place in their values where a string lies that is the error's text:
    /// of the types with these names, as Go writes them (`*errors.errorString`, `shop.Declined`), where the text lies as
    /// many bytes from the beginning as is said there (`None`: the only string is known to be it). `types`: address of
    /// `runtime.types`.
    ///
    /// # Errors
    /// Where the debug information makes no sense.
    pub(super) fn read_go_error_texts(
        &self,
        names: &HashMap<String, Option<u64>>,
        types: u64,
    ) -> Result<Vec<(u64, u64)>, DebugError> {
        let mut found = Vec::new();
        if self.size() > MAX_SEARCHED {
            return Ok(found);
        }
        for offset in self.unit_offsets()? {
            let unit = self.unit(*offset)?;
            let mut entries = unit.entries();
            while let Some(entry) = entries.next_dfs()? {
                let is_type = matches!(
                    entry.tag(),
                    gimli::DW_TAG_pointer_type | gimli::DW_TAG_structure_type
                );
                let Some(address) = entry.attr_value(RUNTIME_TYPE).filter(|_| is_type) else {
                    continue;
                };
                let name = self.name(&unit, entry);
                let Some(expected) = name.and_then(|name| names.get(&name)) else {
                    continue;
                };
                let offset_in_types = address.udata_value();
                let Some(place) = offset_in_types.or(unit.dwarf.attr_address(&unit, address)?)
                else {
                    continue;
                };
                // It was an address in earlier versions.
                let address = if place < types { types + place } else { place };
                let at = EntryRef {
                    unit: *offset,
                    offset: entry.offset().0,
                };
                if place != 0
                    && let Some(place) = self.text_in(TypeRef(at))?
                    && expected.is_none_or(|expected| expected == place)
                {
                    found.push((address, place));
                }
            }
        }
        Ok(found)
    }

    /// Where the text of an error lies in what an interface points to.
    fn text_in(&self, type_ref: TypeRef) -> Result<Option<u64>, DebugError> {
        let structure = match self.type_of(type_ref)? {
            Type::Pointer { to: Some(to), .. } => self.type_of(to)?,
            other => other,
        };
        let Type::Structure { members, .. } = structure else {
            return Ok(None);
        };
        // A string by another name.
        if members
            .iter()
            .map(|member| member.name.as_str())
            .eq(["str", "len"])
        {
            return Ok(Some(0));
        }
        let mut strings = Vec::new();
        for member in &members {
            if self.name_of(member.type_ref) == "string" {
                strings.push(member);
            }
        }
        Ok(match strings.as_slice() {
            [only] => Some(only.offset),
            several => several
                .iter()
                .find(|member| TEXTS.contains(&member.name.as_str()))
                .map(|member| member.offset),
        })
    }
}
