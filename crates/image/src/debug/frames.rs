//! Where a function's frame address lies at each of its instructions: call frame information
//! (`.eh_frame`, else `.debug_frame`).

use std::fs::File;

use gimli::{
    BaseAddresses, CfaRule, DebugFrame, EhFrame, FrameDescriptionEntry, UnwindContext,
    UnwindSection,
};
use teracron_common::CfaBase;

use super::{DebugError, reader::Section, sections::Sections};
use crate::{foreign::Budget, symbol::Layout};

/// Rows of a function that are kept.
const MAX_ROWS: usize = 10_000;

/// The frame address within a range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRow {
    /// First address.
    pub start: u64,
    /// End of the range.
    pub end: u64,
    /// Register that it is counted from.
    pub base: CfaBase,
    /// Distance.
    pub offset: i32,
}

/// The frame address at the instructions of the function at `address`, as far as it is known.
///
/// # Errors
/// Where the file's frame information makes no sense.
pub fn frame_rows(file: &File, address: u64) -> Result<Vec<FrameRow>, DebugError> {
    let budget = Budget::default();
    let _reading = budget.reading();
    let layout = Layout::read(file, &budget)?;
    let sections = Sections::of(&layout)?;
    let mut bases = BaseAddresses::default();
    if let Some(text) = layout.section(".text") {
        bases = bases.set_text(text.address);
    }
    let load = |name: &str| -> Result<Option<(u64, Section)>, DebugError> {
        let at = layout.section(name).map(|section| section.address);
        Ok(at.zip(sections.load(name)?))
    };
    if let Some((at, data)) = load(".eh_frame")? {
        bases = bases.set_eh_frame(at);
        let rows = rows_in(&EhFrame::from(data), &bases, address)?;
        if !rows.is_empty() {
            return Ok(rows);
        }
    }
    match load(".debug_frame")? {
        Some((_, data)) => rows_in(&DebugFrame::from(data), &bases, address),
        None => Ok(Vec::new()),
    }
}

fn rows_in<S>(section: &S, bases: &BaseAddresses, address: u64) -> Result<Vec<FrameRow>, DebugError>
where
    S: UnwindSection<Section>,
    S::Offset: gimli::UnwindOffset<usize>,
{
    let found: Result<FrameDescriptionEntry<Section>, _> =
        section.fde_for_address(bases, address, S::cie_from_offset);
    let entry = match found {
        Ok(entry) => entry,
        Err(gimli::Error::NoUnwindInfoForAddress) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut context = UnwindContext::new();
    let mut table = entry.rows(section, bases, &mut context)?;
    let mut rows = Vec::new();
    while let Some(row) = table.next_row()? {
        if rows.len() >= MAX_ROWS {
            break;
        }
        if let CfaRule::RegisterAndOffset { register, offset } = row.cfa() {
            let base = match register.0 {
                7 => CfaBase::StackPointer,
                6 => CfaBase::FramePointer,
                _ => continue,
            };
            if let Ok(offset) = i32::try_from(*offset) {
                rows.push(FrameRow {
                    start: row.start_address(),
                    end: row.end_address(),
                    base,
                    offset,
                });
            }
        }
    }
    Ok(rows)
}
