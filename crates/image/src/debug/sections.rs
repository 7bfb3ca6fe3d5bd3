//! The sections of a file that debug information is read from.

use std::fs::File;

use object::{
    Endianness, Object as _, ObjectSection as _, ReadCache,
    read::elf::{ElfFile64, SectionHeader as _},
};

use super::{
    DebugError,
    deflated::Deflated,
    not,
    reader::{Pages, Section},
};

/// Largest section that is decompressed, in bytes.
const MAX_DECOMPRESSED: u64 = 2 << 30;

/// Larger compressed sections are inflated where they are looked at, in bytes.
const MAX_WHOLE: u64 = 1 << 20;
/// Most bytes of a section that is there in parts.
const MAX_JOINED: usize = 256 << 20;

/// What a file says of its debug information.
pub(super) type Dwarf = gimli::Dwarf<Section>;

/// The debug information of a file; `None` where it has none.
///
/// # Errors
/// Where the file is not ELF, or a compressed section can't be read.
pub(super) fn dwarf(file: &File) -> Result<Option<Dwarf>, DebugError> {
    with_sections(file, |section| {
        if section(".debug_info")?.is_none() {
            return Ok(None);
        }
        gimli::Dwarf::load(|id| Ok(section(id.name())?.unwrap_or_else(empty))).map(Some)
    })
}

/// The part of the debug information that was put into a file of its own (`.dwo`).
///
/// # Errors
/// As for [`dwarf`].
pub(super) fn split(file: &File) -> Result<Dwarf, DebugError> {
    with_sections(file, |section| {
        gimli::Dwarf::load(|id| {
            let name = id.dwo_name();
            let found = name.map(&mut *section).transpose()?.flatten();
            Ok(found.unwrap_or_else(empty))
        })
    })
}

/// Many of these in one file (`.dwp`).
///
/// # Errors
/// As for [`dwarf`].
pub(super) fn package(file: &File) -> Result<gimli::DwarfPackage<Section>, DebugError> {
    with_sections(file, |section| {
        gimli::DwarfPackage::load(
            |id| {
                let name = id.dwo_name();
                let found = name.map(&mut *section).transpose()?.flatten();
                Ok::<_, DebugError>(found.unwrap_or_else(empty))
            },
            empty(),
        )
    })
}

/// A file's link to another that its debug information shares with others (`.gnu_debugaltlink`, made by
/// dwz): the name, and the build ID of what it names.
///
/// # Errors
/// Where the file is not ELF.
pub(super) fn shared_link(file: &File) -> Result<Option<(String, Vec<u8>)>, DebugError> {
    let cache = ReadCache::new(file);
    let parsed: ElfFile64<'_, Endianness, _> = ElfFile64::parse(&cache)?;
    Ok(parsed
        .gnu_debugaltlink()?
        .map(|(name, id)| (String::from_utf8_lossy(name).into_owned(), id.to_vec())))
}

fn empty() -> Section {
    Section::of_bytes(Vec::new())
}

fn with_sections<T>(
    file: &File,
    load: impl FnOnce(
        &mut dyn FnMut(&'static str) -> Result<Option<Section>, DebugError>,
    ) -> Result<T, DebugError>,
) -> Result<T, DebugError> {
    let cache = ReadCache::new(file);
    let parsed: ElfFile64<'_, Endianness, _> = ElfFile64::parse(&cache)?;
    let Ok(own) = file.try_clone() else {
        return not("the file can't be opened once more");
    };
    let pages = Pages::of(own);
    let length = file.metadata().map(|data| data.len()).unwrap_or(0);
    load(&mut |name| {
        let mut sections = parsed
            .sections()
            .filter(|section| section.name_bytes() == Ok(name.as_bytes()));
        let Some(section) = sections.next() else {
            return Ok(None);
        };
        // What is not linked may have one for each type.
        if let Some(second) = sections.next() {
            let mut joined = Vec::new();
            for section in [section, second].into_iter().chain(sections) {
                let data = section.uncompressed_data()?;
                if joined.len().saturating_add(data.len()) > MAX_JOINED {
                    return not(format!("{name} is too large in parts"));
                }
                joined.extend_from_slice(&data);
            }
            return Ok(Some(Section::of_bytes(joined)));
        }
        let header = section.elf_section_header();
        let flags = header.sh_flags(parsed.endian());
        if flags.contains(object::elf::SHF_COMPRESSED) {
            let range = section.compressed_file_range()?;
            let size = range.uncompressed_size;
            let is_there = range
                .offset
                .checked_add(range.compressed_size)
                .is_some_and(|end| end <= length);
            if size > MAX_WHOLE
                && size <= MAX_DECOMPRESSED
                && is_there
                && range.format == object::CompressionFormat::Zlib
                && let Ok(file) = file.try_clone()
            {
                let section = Deflated::new(file, range.offset, range.compressed_size, size);
                let pages = Pages::inflated(section);
                return Ok(Some(Section::of_file(pages, 0, size as usize)));
            }
            let data = section.compressed_data()?;
            if data.uncompressed_size > MAX_DECOMPRESSED {
                return not(format!("{name} is larger than 2 GiB"));
            }
            return Ok(Some(Section::of_bytes(data.decompress()?.into_owned())));
        }
        let Some((offset, size)) = section.file_range() else {
            return Ok(Some(empty()));
        };
        if offset.checked_add(size).is_none_or(|end| end > length) {
            return not(format!("{name} lies behind the end of the file"));
        }
        Ok(Some(Section::of_file(pages.clone(), offset, size as usize)))
    })
}
