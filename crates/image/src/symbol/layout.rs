//! The headers of an ELF file: where its segments and sections lie. Read by hand, so that no size, count or offset of
//! the file is followed before it was compared with the file's length and its budget.
//!
//! Sources: System V ABI, "Object Files"; `elf.h` of the C library for GNU's section types.

use std::{collections::HashMap, ffi::CStr, fs::File, os::unix::fs::FileExt as _, rc::Rc};

use super::ElfError;
use crate::foreign::{Budget, Cost};

/// Bytes of the file's header, a segment's and a section's.
const FILE_HEADER: usize = 64;
const SEGMENT_HEADER: u64 = 56;
const SECTION_HEADER: u64 = 64;
/// Counts that do not fit into the file's header stand in the first section's (`PN_XNUM`, `SHN_XINDEX`).
const ELSEWHERE: u16 = 0xffff;
/// `EM_X86_64`.
const X86_64: u16 = 62;
/// `SHT_NOBITS`: nothing in the file.
const NO_BITS: u32 = 8;
/// `SHF_COMPRESSED`.
const COMPRESSED: u64 = 0x800;
/// Longest section name that is read, in bytes.
const MAX_NAME: usize = 255;

/// Kinds of sections.
pub(super) mod kind {
    /// `SHT_SYMTAB`.
    pub(crate) const SYMBOLS: u32 = 2;
    /// `SHT_RELA`.
    pub(crate) const RELOCATIONS: u32 = 4;
    /// `SHT_RELR`.
    pub(crate) const SHORT_RELOCATIONS: u32 = 19;
    /// `SHT_STRTAB`.
    pub(crate) const STRINGS: u32 = 3;
    /// `SHT_DYNAMIC`.
    pub(crate) const DYNAMIC: u32 = 6;
    /// `SHT_NOTE`.
    pub(crate) const NOTE: u32 = 7;
    /// `SHT_DYNSYM`.
    pub(crate) const DYNAMIC_SYMBOLS: u32 = 11;
    /// `SHT_GNU_verdef`.
    pub(crate) const VERSION_DEFINITIONS: u32 = 0x6fff_fffd;
    /// `SHT_GNU_versym`.
    pub(crate) const VERSIONS: u32 = 0x6fff_ffff;
}

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// `p_type`.
    pub kind: u32,
    /// `p_flags`.
    pub flags: u32,
    /// Offset in the file.
    pub offset: u64,
    /// Virtual address.
    pub address: u64,
    /// Bytes in the file.
    pub file_size: u64,
}

/// A section's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SectionHeader {
    /// Its name; empty where that can't be read.
    pub name: Box<[u8]>,
    /// `sh_type`: see the constants of `kind`.
    pub kind: u32,
    /// `sh_flags`.
    flags: u64,
    /// Virtual address.
    pub address: u64,
    offset: u64,
    size: u64,
    /// Number of another section.
    pub link: u32,
}

impl SectionHeader {
    /// Offset and size in the file, as they are said to be; `None` where it has nothing in the file.
    pub fn file_range(&self) -> Option<(u64, u64)> {
        (self.kind != NO_BITS).then_some((self.offset, self.size))
    }

    /// Bytes in memory.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether what is in the file is compressed, behind a header of its own.
    pub(crate) fn is_compressed(&self) -> bool {
        self.flags & COMPRESSED != 0
    }
}

/// An ELF file's headers.
#[derive(Debug)]
pub struct Layout<'a> {
    file: &'a File,
    budget: &'a Budget,
    length: u64,
    /// It always lies at its addresses (`ET_EXEC`).
    pub is_fixed: bool,
    /// Headers of segments.
    pub segments: Vec<SegmentHeader>,
    /// Headers of sections, by their numbers.
    pub sections: Vec<SectionHeader>,
}

fn parse<T>(what: &'static str) -> Result<T, ElfError> {
    Err(ElfError::Parse(what))
}

impl<'a> Layout<'a> {
    /// Reads the headers of a file.
    ///
    /// # Errors
    /// Where it is not ELF for this machine, makes no sense, or has too many of them.
    pub fn read(file: &'a File, budget: &'a Budget) -> Result<Self, ElfError> {
        let length = file.metadata().or(parse("its length is not known"))?.len();
        let mut head = [0; FILE_HEADER];
        if file.read_exact_at(&mut head, 0).is_err() || !head.starts_with(b"\x7fELF") {
            return parse("it does not begin as one");
        }
        // 64 bits, little endian.
        if !matches!(head.get(4..6), Some([2, 1])) || half(&head, 18) != X86_64 {
            return Err(ElfError::Machine);
        }
        let mut this = Self {
            file,
            budget,
            length,
            // `ET_EXEC`
            is_fixed: half(&head, 16) == 2,
            segments: Vec::new(),
            sections: Vec::new(),
        };
        let (segments_at, sections_at) = (long(&head, 32), long(&head, 40));
        let (mut segments, mut sections) = (u64::from(half(&head, 56)), u64::from(half(&head, 60)));
        let mut names = u32::from(half(&head, 62));
        if sections_at != 0 {
            let first = this.bytes(sections_at, SECTION_HEADER);
            if let Ok(first) = &first {
                if sections == 0 {
                    sections = long(first, 32);
                }
                if names == u32::from(ELSEWHERE) {
                    names = word(first, 40);
                }
                if segments == u64::from(ELSEWHERE) {
                    segments = u64::from(word(first, 44));
                }
            } else if sections > 0 {
                return parse("its section headers lie behind its end");
            }
        } else {
            sections = 0;
        }
        if segments_at == 0 {
            segments = 0;
        }
        if segments > 0 && u64::from(half(&head, 54)) != SEGMENT_HEADER
            || sections > 0 && u64::from(half(&head, 58)) != SECTION_HEADER
        {
            return parse("its headers have another size");
        }
        budget.take(Cost::Sections, segments.saturating_add(sections))?;
        let table = this.bytes(segments_at, segments.saturating_mul(SEGMENT_HEADER))?;
        this.segments = table
            .chunks_exact(SEGMENT_HEADER as usize)
            .map(|header| SegmentHeader {
                kind: word(header, 0),
                flags: word(header, 4),
                offset: long(header, 8),
                address: long(header, 16),
                file_size: long(header, 32),
            })
            .collect();
        let table = this.bytes(sections_at, sections.saturating_mul(SECTION_HEADER))?;
        let headers = table.chunks_exact(SECTION_HEADER as usize);
        let name_offsets: Vec<u32> = headers.clone().map(|header| word(header, 0)).collect();
        this.sections = headers
            .map(|header| SectionHeader {
                name: Box::default(),
                kind: word(header, 4),
                flags: long(header, 8),
                address: long(header, 16),
                offset: long(header, 24),
                size: long(header, 32),
                link: word(header, 40),
            })
            .collect();
        this.read_names(names, &name_offsets)?;
        Ok(this)
    }

    fn read_names(&mut self, table: u32, offsets: &[u32]) -> Result<(), ElfError> {
        let Some(mut strings) = self.strings(table) else {
            return Ok(());
        };
        for (section, offset) in self.sections.iter_mut().zip(offsets) {
            let name = strings.get((*offset).into(), MAX_NAME).unwrap_or_default();
            self.budget.take(Cost::Names, name.len() as u64)?;
            section.name = name.into();
        }
        Ok(())
    }

    /// The file.
    pub fn file(&self) -> &'a File {
        self.file
    }

    /// What reading it may still cost.
    pub fn budget(&self) -> &'a Budget {
        self.budget
    }

    /// Its length, when its headers were read.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The first section of a name.
    pub fn section(&self, name: &str) -> Option<&SectionHeader> {
        self.named(name).next()
    }

    /// All sections of a name.
    pub fn named(&self, name: &str) -> impl Iterator<Item = &SectionHeader> {
        self.sections
            .iter()
            .filter(move |section| *section.name == *name.as_bytes())
    }

    /// Whether the file has what a section's header says: offset and size.
    ///
    /// # Errors
    /// Where it ends before.
    pub fn range(&self, section: &SectionHeader) -> Result<(u64, u64), ElfError> {
        let (offset, size) = section.file_range().unwrap_or_default();
        match offset.checked_add(size) {
            Some(end) if end <= self.length => Ok((offset, size)),
            _ => parse("a section lies behind its end"),
        }
    }

    /// The first bytes of a section, `most` of them.
    ///
    /// # Errors
    /// Where the file ends before the section does, or the budget.
    pub fn beginning(&self, section: &SectionHeader, most: u64) -> Result<Vec<u8>, ElfError> {
        let (offset, size) = self.range(section)?;
        let size = size.min(most);
        self.budget.take(Cost::SectionData, size)?;
        self.bytes(offset, size)
    }

    /// A whole section.
    ///
    /// # Errors
    /// Where the file ends before the section does, or the budget.
    pub fn whole(&self, section: &SectionHeader) -> Result<Vec<u8>, ElfError> {
        let (_, size) = self.range(section)?;
        self.budget.check(Cost::Memory, size)?;
        self.beginning(section, size)
    }

    /// Bytes of the file, whose number is within the budget.
    fn bytes(&self, offset: u64, size: u64) -> Result<Vec<u8>, ElfError> {
        let end = offset.checked_add(size);
        let len = usize::try_from(size).ok();
        let (Some(len), true) = (len, end.is_some_and(|end| end <= self.length)) else {
            return parse("something lies behind its end");
        };
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(len).is_err() {
            return parse("there is no memory for it");
        }
        bytes.resize(len, 0);
        match self.file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(bytes),
            Err(_) => parse("it can't be read"),
        }
    }

    /// The texts of a string section, by its number.
    pub fn strings(&self, number: u32) -> Option<Strings<'a>> {
        let section = self.sections.get(usize::try_from(number).ok()?)?;
        if section.kind != kind::STRINGS {
            return None;
        }
        let (offset, size) = self.range(section).ok()?;
        Some(Strings {
            file: self.file,
            offset,
            size,
            // An eighth of what may be kept of the file, 64 MiB at most.
            most: (self.budget.limits().memory / 8 / WINDOW).clamp(1, 1024) as usize,
            windows: HashMap::new(),
            last: (0, Rc::default()),
            crossing: Vec::new(),
        })
    }
}

/// Bytes of a string section that are read at a time.
const WINDOW: u64 = 64 << 10;

/// A section of texts, each with a zero behind it: read where it is looked at.
pub struct Strings<'a> {
    file: &'a File,
    offset: u64,
    size: u64,
    most: usize,
    windows: HashMap<u64, Rc<[u8]>>,
    /// The one that was looked at last: the next name nearly always lies there, too.
    last: (u64, Rc<[u8]>),
    /// A text that lies in two windows.
    crossing: Vec<u8>,
}

impl Strings<'_> {
    /// The text at an offset, without its zero; `None` where there is none, or a longer one than `most`.
    pub fn get(&mut self, offset: u64, most: usize) -> Option<&[u8]> {
        if offset >= self.size {
            return None;
        }
        let (number, within) = (offset / WINDOW, (offset % WINDOW) as usize);
        // Nearly always all of it lies in one window.
        let window = self.window(number)?;
        let part = window.get(within..)?;
        let limit = part.len().min(most.saturating_add(1));
        if let Some(end) = zero(part.get(..limit)?) {
            return self.window(number)?.get(within..within + end);
        }
        if part.len() > most {
            return None;
        }
        let mut crossing = std::mem::take(&mut self.crossing);
        crossing.clear();
        crossing.extend_from_slice(self.window(number)?.get(within..)?);
        let mut number = number;
        loop {
            number += 1;
            let window = self.window(number)?;
            let left = most.saturating_add(1).saturating_sub(crossing.len());
            let part = window.get(..window.len().min(left))?;
            match zero(part) {
                Some(end) => {
                    crossing.extend_from_slice(part.get(..end)?);
                    self.crossing = crossing;
                    return Some(&self.crossing);
                }
                None if part.is_empty() || part.len() == left => return None,
                None => crossing.extend_from_slice(part),
            }
        }
    }

    fn window(&mut self, number: u64) -> Option<&[u8]> {
        if self.last.0 != number || self.last.1.is_empty() {
            if !self.windows.contains_key(&number) {
                let at = number.checked_mul(WINDOW)?;
                let len = self.size.checked_sub(at)?.min(WINDOW);
                let mut bytes = vec![0; usize::try_from(len).ok()?];
                self.file
                    .read_exact_at(&mut bytes, self.offset.checked_add(at)?)
                    .ok()?;
                if self.windows.len() >= self.most {
                    self.windows.clear();
                }
                self.windows.insert(number, bytes.into());
            }
            self.last = (number, self.windows.get(&number)?.clone());
        }
        Some(&self.last.1)
    }
}

/// The place of the first zero.
fn zero(bytes: &[u8]) -> Option<usize> {
    let text = CStr::from_bytes_until_nul(bytes).ok()?;
    Some(text.count_bytes())
}

/// A number of 16 bits; 0 where the bytes end before.
pub(super) fn half(bytes: &[u8], at: usize) -> u16 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    found.map_or(0, |found| u16::from_le_bytes(*found))
}

/// A number of 32 bits.
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    found.map_or(0, |found| u32::from_le_bytes(*found))
}

/// A number of 64 bits.
pub(super) fn long(bytes: &[u8], at: usize) -> u64 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    found.map_or(0, |found| u64::from_le_bytes(*found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn strings(bytes: &[u8], most: usize) -> (File, u64, usize) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"head").unwrap();
        file.write_all(bytes).unwrap();
        (file, bytes.len() as u64, most)
    }

    #[test]
    fn texts_across_windows() {
        let long_text = vec![b'x'; 3 * WINDOW as usize];
        let mut bytes = b"\0first\0".to_vec();
        bytes.resize(WINDOW as usize - 3, b'-');
        bytes.extend_from_slice(b"\0across\0");
        bytes.extend_from_slice(&long_text);
        bytes.extend_from_slice(b"\0no end");
        let (file, size, most) = strings(&bytes, 1);
        let mut strings = Strings {
            file: &file,
            offset: 4,
            size,
            most,
            windows: HashMap::new(),
            last: (0, Rc::default()),
            crossing: Vec::new(),
        };
        assert_eq!(strings.get(0, 100), Some(&b""[..]));
        assert_eq!(strings.get(1, 100), Some(&b"first"[..]));
        assert_eq!(strings.get(1, 5), Some(&b"first"[..]));
        assert_eq!(strings.get(1, 4), None);
        let across = WINDOW - 2;
        assert_eq!(strings.get(across, 6), Some(&b"across"[..]));
        assert_eq!(strings.get(across, 5), None);
        assert_eq!(strings.get(across + 7, 1 << 20), Some(&long_text[..]));
        assert_eq!(strings.get(across + 7, 1 << 17), None);
        assert_eq!(strings.get(size - 6, 100), None);
        assert_eq!(strings.get(size, 100), None);
        assert_eq!(strings.get(u64::MAX, 100), None);
    }

    #[test]
    fn counts_that_stand_in_the_first_section() {
        let mut bytes = vec![0u8; 64 + 64 * 3];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18] = 62;
        bytes[40] = 64;
        bytes[58] = 64;
        bytes[64 + 32] = 3;
        let file = strings(&[], 0).0;
        file.write_all_at(&bytes, 0).unwrap();
        assert_eq!(
            Layout::read(&file, &Budget::default())
                .unwrap()
                .sections
                .len(),
            3
        );
        for count in [4u64, 1 << 20, 1 << 32, 1 << 58, u64::MAX] {
            file.write_all_at(&count.to_le_bytes(), 64 + 32).unwrap();
            let error = Layout::read(&file, &Budget::default()).unwrap_err();
            let words = if count == 4 {
                "behind its end"
            } else {
                "sections and segments"
            };
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
