//! What a file says of itself beside its tables: its build ID, the name of its debug file, the versions of what it
//! exports.
//!
//! Sources: System V ABI ("Note Section"); the Linux Standard Base ("Symbol Versioning").

use std::collections::HashMap;

use super::{
    ElfError,
    elf::DebugLink,
    layout::{Layout, half, kind, word},
};
use crate::foreign::Cost;

/// Bytes of sections of notes, and of links to other files, that are looked at.
pub(super) const MAX_NOTES: u64 = 64 << 10;
/// Sections of notes that are looked at.
const MAX_NOTE_SECTIONS: usize = 64;

/// The build ID, among the file's notes.
pub(super) fn build_id(layout: &Layout<'_>) -> Result<Option<Vec<u8>>, ElfError> {
    let sections = layout
        .sections
        .iter()
        .filter(|section| section.kind == kind::NOTE);
    for section in sections.take(MAX_NOTE_SECTIONS) {
        let notes = layout.beginning(section, MAX_NOTES)?;
        if let Some(id) = build_id_in(&notes) {
            return Ok(Some(id.to_vec()));
        }
    }
    Ok(None)
}

/// Each note has the lengths of its name and contents, a type, and these, each up to a multiple of 4 bytes.
fn build_id_in(mut notes: &[u8]) -> Option<&[u8]> {
    /// `NT_GNU_BUILD_ID`
    const BUILD_ID: u32 = 3;
    /// Longest build ID that is taken for one, in bytes.
    const MAX: usize = 64;
    while notes.len() >= 12 {
        let (name, len) = (word(notes, 0) as usize, word(notes, 4) as usize);
        let start = 12usize.checked_add(name.checked_next_multiple_of(4)?)?;
        let contents = notes.get(start..start.checked_add(len)?)?;
        if word(notes, 8) == BUILD_ID
            && notes.get(12..12 + name) == Some(b"GNU\0")
            && !contents.is_empty()
            && len <= MAX
        {
            return Some(contents);
        }
        notes = notes.get(start.checked_add(len.checked_next_multiple_of(4)?)?..)?;
    }
    None
}

/// The debug link: a name, zeros up to a multiple of 4 bytes, a checksum.
pub(super) fn debug_link(layout: &Layout<'_>) -> Option<DebugLink> {
    let section = layout.section(".gnu_debuglink")?;
    let bytes = layout.beginning(section, MAX_NOTES).ok()?;
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let sum = bytes.get((end + 1).next_multiple_of(4)..)?.first_chunk()?;
    Some(DebugLink {
        name: String::from_utf8_lossy(bytes.get(..end)?).into_owned(),
        checksum: u32::from_le_bytes(*sum),
    })
}

/// Versions of the symbols that a library exports.
#[derive(Default)]
pub(super) struct Versions {
    /// Two bytes for each symbol: the number of its version.
    numbers: Vec<u8>,
    names: HashMap<u16, String>,
}

impl Versions {
    /// Reads them; where they make no sense, there are none.
    ///
    /// # Errors
    /// Where they cost too much.
    pub(super) fn read(layout: &Layout<'_>) -> Result<Self, ElfError> {
        /// Bytes of the definitions that are read; each has 20.
        const MAX_DEFINITIONS: u64 = 2 << 20;
        const LONGEST: usize = 255;
        let of_kind = |kind| layout.sections.iter().find(|section| section.kind == kind);
        let (Some(numbers), Some(definitions)) =
            (of_kind(kind::VERSIONS), of_kind(kind::VERSION_DEFINITIONS))
        else {
            return Ok(Self::default());
        };
        let Some(mut strings) = layout.strings(definitions.link) else {
            return Ok(Self::default());
        };
        // What makes no sense is no reason to refuse the rest.
        let read = |section, most| match layout.beginning(section, most) {
            Err(error @ ElfError::Exceeded(_)) => Err(error),
            read => Ok(read.unwrap_or_default()),
        };
        let most = layout.budget().limits().symbols.saturating_mul(2);
        let mut this = Self {
            numbers: read(numbers, most)?,
            names: HashMap::new(),
        };
        let bytes = read(definitions, MAX_DEFINITIONS)?;
        let mut rest = &bytes[..];
        // Each says where the next is, and where its name is.
        while rest.len() >= 20 && this.names.len() <= usize::from(u16::MAX) {
            let (aside, next) = (word(rest, 12) as usize, word(rest, 16) as usize);
            if let Some(name) = rest.get(aside..).filter(|name| name.len() >= 8)
                && let Some(name) = strings.get(word(name, 0).into(), LONGEST)
            {
                layout.budget().take(Cost::Names, name.len() as u64)?;
                let name = String::from_utf8_lossy(name).into_owned();
                this.names.entry(half(rest, 4) & 0x7fff).or_insert(name);
            }
            match rest.get(next..) {
                Some(following) if next > 0 => rest = following,
                _ => break,
            }
        }
        Ok(this)
    }

    /// The version of the symbol with this number.
    pub(super) fn of(&self, symbol: u64) -> Option<&str> {
        let at = usize::try_from(symbol).ok()?.checked_mul(2)?;
        let number = half(self.numbers.get(at..)?, 0) & 0x7fff;
        // 0: local, 1: without a version.
        (number > 1).then(|| self.names.get(&number).map(String::as_str))?
    }
}

/// A file's link to another that its debug information shares with others (`.gnu_debugaltlink`): the name, and the
/// build ID of what it names.
pub(crate) fn shared_link(layout: &Layout<'_>) -> Option<(String, Vec<u8>)> {
    let section = layout.section(".gnu_debugaltlink")?;
    let bytes = layout.beginning(section, MAX_NOTES).ok()?;
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let name = String::from_utf8_lossy(bytes.get(..end)?).into_owned();
    Some((name, bytes.get(end + 1..)?.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn notes() {
        let id = b"\x04\0\0\0\x04\0\0\0\x03\0\0\0GNU\0abcd";
        let other = b"\x02\0\0\0\x01\0\0\0\x03\0\0\0X\0\0\0!\0\0\0";
        assert_eq!(build_id_in(id), Some(&b"abcd"[..]));
        assert_eq!(build_id_in(&[&other[..], id].concat()), Some(&b"abcd"[..]));
        assert_eq!(build_id_in(&id[..19]), None);
        assert_eq!(build_id_in(other), None);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80), huge in any::<[u32; 2]>()) {
            let _ = build_id_in(&bytes);
            let mut head: Vec<u8> = huge.iter().flat_map(|word| word.to_le_bytes()).collect();
            head.extend_from_slice(&bytes);
            let _ = build_id_in(&head);
        }
    }
}
