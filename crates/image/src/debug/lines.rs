//! Code of source lines.

use gimli::{AttributeValue, UnitOffset};

use super::{DebugError, DebugInfo, not, reader::Section, units::Unit};

/// Rows of line tables that are looked at.
const MAX_ROWS: usize = 50_000_000;
/// Calls that were inlined into a function, at most.
const MAX_INLINED: usize = 100_000;

/// Source lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines<'a> {
    /// Name of the file, or the end of its path.
    pub file: &'a str,
    /// The first.
    pub first: u64,
    /// The last; to the end of the function where `None`.
    pub last: Option<u64>,
}

/// Code of some lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineCode {
    /// Addresses at which a statement of the lines begins, with its line.
    pub statements: Vec<(u64, u64)>,
    /// Where the lines' code lies, that of calls in them which were inlined included.
    pub ranges: Vec<(u64, u64)>,
}

impl Lines<'_> {
    fn contain(&self, line: u64) -> bool {
        self.first <= line && self.last.is_none_or(|last| line <= last)
    }

    fn is_of(&self, path: &str) -> bool {
        path == self.file
            || path
                .strip_suffix(self.file)
                .is_some_and(|before| before.ends_with('/'))
    }
}

impl DebugInfo {
    /// The code of some lines. `near`: a function that is likely to have them; where it is of a unit that was
    /// compiled from that very file, no other is looked at.
    ///
    /// # Errors
    /// Where the debug information makes no sense, or too much of it would have to be read.
    pub(super) fn read_lines(
        &self,
        wanted: &Lines<'_>,
        near: Option<u64>,
    ) -> Result<LineCode, DebugError> {
        let unit = near.map(|address| self.unit_of(address)).transpose()?;
        if let Some(offset) = unit.flatten()
            && let Some(name) = &self.skeleton(offset)?.name
            && wanted.is_of(&gimli::Reader::to_string_lossy(name)?)
        {
            let code = self.lines_in(&[offset], wanted)?;
            if !code.statements.is_empty() {
                return Ok(code);
            }
        }
        self.lines_in(self.unit_offsets()?, wanted)
    }

    fn lines_in(&self, units: &[usize], wanted: &Lines<'_>) -> Result<LineCode, DebugError> {
        let mut code = LineCode::default();
        let mut rows_left = MAX_ROWS;
        for offset in units {
            // Line tables stay in the program's file.
            let unit = self.skeleton(*offset)?;
            let Some(files) = self.files(&unit, wanted)? else {
                continue;
            };
            let before = code.ranges.len();
            self.rows(&unit, wanted, &files, &mut code, &mut rows_left)?;
            if code.ranges.len() > before {
                let unit = self.unit(*offset)?;
                self.inlined(&unit, wanted, &files, &mut code)?;
            }
        }
        code.statements.sort_unstable();
        code.ranges = merged(code.ranges);
        Ok(code)
    }

    /// Numbers of the wanted file in a unit's line table; `None` where it has none of it.
    fn files(&self, unit: &Unit, wanted: &Lines<'_>) -> Result<Option<Vec<u64>>, DebugError> {
        let Some(program) = &unit.line_program else {
            return Ok(None);
        };
        let header = program.header();
        let first = u64::from(header.version() < 5);
        let mut found = Vec::new();
        for (place, file) in header.file_names().iter().enumerate() {
            let name = self.text(unit, file.path_name())?;
            if !wanted
                .file
                .ends_with(name.rsplit('/').next().unwrap_or(&name))
            {
                continue;
            }
            let mut path = name.clone();
            if !name.starts_with('/')
                && let Some(folder) = file.directory(header)
            {
                path = format!("{}/{name}", self.text(unit, folder)?);
            }
            if wanted.is_of(&path) {
                found.push(place as u64 + first);
            }
        }
        Ok((!found.is_empty()).then_some(found))
    }

    fn text(&self, unit: &Unit, value: AttributeValue<Section>) -> Result<String, DebugError> {
        let text = unit.dwarf.attr_string(unit, value)?;
        Ok(gimli::Reader::to_string_lossy(&text)?.into_owned())
    }

    fn rows(
        &self,
        unit: &Unit,
        wanted: &Lines<'_>,
        files: &[u64],
        code: &mut LineCode,
        left: &mut usize,
    ) -> Result<(), DebugError> {
        let Some(program) = unit.line_program.clone() else {
            return Ok(());
        };
        let mut rows = program.rows();
        let mut open: Option<u64> = None;
        while let Some((_, row)) = rows.next_row()? {
            *left = left.saturating_sub(1);
            if *left == 0 {
                return not("its line tables are too large");
            }
            let line = row.line().map_or(0, std::num::NonZeroU64::get);
            // Line 0 says that code belongs to no line: it goes with what is before.
            let inside = if line == 0 && !row.end_sequence() {
                open.is_some()
            } else {
                !row.end_sequence() && files.contains(&row.file_index()) && wanted.contain(line)
            };
            if let Some(start) = open.take_if(|_| !inside)
                && row.address() > start
            {
                code.ranges.push((start, row.address()));
            }
            if inside {
                open.get_or_insert(row.address());
                if row.is_stmt() && line != 0 {
                    code.statements.push((row.address(), line));
                }
            }
        }
        Ok(())
    }

    /// Adds the code of calls in the lines that were inlined.
    fn inlined(
        &self,
        unit: &Unit,
        wanted: &Lines<'_>,
        files: &[u64],
        code: &mut LineCode,
    ) -> Result<(), DebugError> {
        let mut entries = unit.entries();
        let mut count = 0;
        let mut found: Vec<UnitOffset> = Vec::new();
        while let Some(entry) = entries.next_dfs()? {
            if entry.tag() != gimli::DW_TAG_inlined_subroutine {
                continue;
            }
            count += 1;
            if count > MAX_INLINED {
                break;
            }
            let number = |name| entry.attr_value(name).and_then(|value| value.udata_value());
            let file = match entry.attr_value(gimli::DW_AT_call_file) {
                Some(AttributeValue::FileIndex(index)) => Some(index),
                other => other.and_then(|value| value.udata_value()),
            };
            if file.is_some_and(|file| files.contains(&file))
                && number(gimli::DW_AT_call_line).is_some_and(|line| wanted.contain(line))
            {
                found.push(entry.offset());
            }
        }
        for offset in found {
            let entry = unit.entry(offset)?;
            code.ranges.extend(unit.ranges(&entry)?);
        }
        Ok(())
    }
}

/// Ranges in ascending order, those that touch as one.
fn merged(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut out: Vec<(u64, u64)> = Vec::new();
    for (start, end) in ranges {
        match out.last_mut() {
            Some((_, last)) if start <= *last => *last = end.max(*last),
            _ => out.push((start, end)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_by_the_end_of_their_path() {
        let lines = |file| Lines {
            file,
            first: 3,
            last: Some(5),
        };
        assert!(lines("order.c").is_of("/src/shop/order.c"));
        assert!(lines("shop/order.c").is_of("/src/shop/order.c"));
        assert!(!lines("order.c").is_of("/src/shop/reorder.c"));
        assert!(!lines("hop/order.c").is_of("/src/shop/order.c"));
        assert!(lines("a").contain(3) && lines("a").contain(5) && !lines("a").contain(6));
    }

    #[test]
    fn ranges_that_touch_are_one() {
        assert_eq!(
            merged(vec![(8, 9), (1, 3), (3, 4), (2, 3), (6, 7)]),
            [(1, 4), (6, 7), (8, 9)]
        );
    }
}
