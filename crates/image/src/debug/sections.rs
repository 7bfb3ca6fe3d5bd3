//! The sections of a file that debug information is read from.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    os::unix::fs::FileExt as _,
    rc::Rc,
};

use super::{
    DebugError,
    deflated::Deflated,
    not,
    reader::{Pages, Section},
};
use crate::{
    foreign::{Budget, Cost, Part},
    symbol::{self, Layout, SectionHeader},
};

/// Larger compressed sections are inflated where they are looked at, in bytes.
const MAX_WHOLE: u64 = 1 << 20;
/// Most bytes of a section that is there in parts.
const MAX_JOINED: u64 = 256 << 20;
/// The header of a compressed section: kind, something reserved, size, alignment (`Elf64_Chdr`).
const COMPRESSION_HEADER: u64 = 24;
/// `ELFCOMPRESS_ZLIB`, `ELFCOMPRESS_ZSTD`.
const ZLIB: u32 = 1;
const ZSTD: u32 = 2;
/// Farthest that zstd may refer back, in bytes; linkers stay below 8 MiB.
const MAX_WINDOW: u64 = 32 << 20;

/// What a file says of its debug information.
pub(super) type Dwarf = gimli::Dwarf<Section>;

/// The debug information of a file; `None` where it has none.
///
/// # Errors
/// Where the file is not ELF, or a compressed section can't be read.
pub(super) fn dwarf(file: &File, budget: &Budget) -> Result<Option<Dwarf>, DebugError> {
    with_sections(file, budget, |section| {
        if section(".debug_info")?.is_none() {
            return Ok(None);
        }
        gimli::Dwarf::load(|id| Ok(section(id.name())?.unwrap_or_else(|| empty(budget)))).map(Some)
    })
}

/// The part of the debug information that was put into a file of its own (`.dwo`).
///
/// # Errors
/// As for [`dwarf`].
pub(super) fn split(file: &File) -> Result<Dwarf, DebugError> {
    let budget = &Budget::default();
    with_sections(file, budget, |section| {
        gimli::Dwarf::load(|id| {
            let name = id.dwo_name();
            let found = name.map(&mut *section).transpose()?.flatten();
            Ok(found.unwrap_or_else(|| empty(budget)))
        })
    })
}

/// Many of these in one file (`.dwp`).
///
/// # Errors
/// As for [`dwarf`].
pub(super) fn package(file: &File) -> Result<gimli::DwarfPackage<Section>, DebugError> {
    let budget = &Budget::default();
    with_sections(file, budget, |section| {
        gimli::DwarfPackage::load(
            |id| {
                let name = id.dwo_name();
                let found = name.map(&mut *section).transpose()?.flatten();
                Ok::<_, DebugError>(found.unwrap_or_else(|| empty(budget)))
            },
            empty(budget),
        )
    })
}

/// A file's link to another that its debug information shares with others (`.gnu_debugaltlink`, made by
/// dwz): the name, and the build ID of what it names.
///
/// # Errors
/// Where the file is not ELF.
pub(super) fn shared_link(
    file: &File,
    budget: &Budget,
) -> Result<Option<(String, Vec<u8>)>, DebugError> {
    Ok(symbol::shared_link(&Layout::read(file, budget)?))
}

fn empty(budget: &Budget) -> Section {
    Section::of_bytes(Vec::new(), budget.clone())
}

fn with_sections<T>(
    file: &File,
    budget: &Budget,
    load: impl FnOnce(
        &mut dyn FnMut(&'static str) -> Result<Option<Section>, DebugError>,
    ) -> Result<T, DebugError>,
) -> Result<T, DebugError> {
    let layout = Layout::read(file, budget)?;
    let sections = Sections::of(&layout)?;
    load(&mut |name| sections.load(name))
}

/// The sections of a file, from which they are read.
pub(super) struct Sections<'a> {
    layout: &'a Layout<'a>,
    pages: Rc<Pages>,
}

impl<'a> Sections<'a> {
    /// Of a file.
    pub(super) fn of(layout: &'a Layout<'a>) -> Result<Self, DebugError> {
        let Ok(own) = layout.file().try_clone() else {
            return not("the file can't be opened once more");
        };
        let pages = Pages::of(own, layout.budget());
        Ok(Self { layout, pages })
    }

    /// The section of a name, decompressed where it is looked at if it is large.
    pub(super) fn load(&self, name: &str) -> Result<Option<Section>, DebugError> {
        let budget = self.layout.budget();
        let mut sections = self.layout.named(name);
        let Some(section) = sections.next() else {
            return Ok(None);
        };
        // What is not linked may have one for each type.
        if let Some(second) = sections.next() {
            let mut joined = Vec::new();
            for section in [section, second].into_iter().chain(sections) {
                let left = MAX_JOINED - joined.len() as u64;
                if !self.append(section, left, &mut joined)? {
                    return not(format!("{name} is too large in parts"));
                }
            }
            return Ok(Some(Section::of_bytes(joined, budget.clone())));
        }
        let Ok((offset, size)) = self.layout.range(section) else {
            return not(format!("{name} lies behind the end of the file"));
        };
        if !section.is_compressed() {
            let size = usize::try_from(size).unwrap_or_default();
            return Ok(Some(Section::of_file(
                self.pages.clone(),
                offset,
                size,
                budget.clone(),
            )));
        }
        let compressed = self.compressed(section)?;
        if compressed.kind == ZLIB
            && compressed.size > MAX_WHOLE
            && let Ok(file) = self.layout.file().try_clone()
        {
            budget.take(Cost::Decompressed, compressed.size)?;
            let (at, len) = (compressed.offset, compressed.compressed);
            let section =
                Deflated::new(file, at, len, compressed.size).keeping(budget.limits().memory / 64);
            let pages = Pages::inflated(section, budget);
            let size = usize::try_from(compressed.size).unwrap_or_default();
            return Ok(Some(Section::of_file(pages, 0, size, budget.clone())));
        }
        let mut bytes = Vec::new();
        self.decompress(&compressed, &mut bytes)?;
        Ok(Some(Section::of_bytes(bytes, budget.clone())))
    }

    /// Appends what a section has, where that is `most` bytes at most; else answers `false`.
    fn append(
        &self,
        section: &SectionHeader,
        most: u64,
        to: &mut Vec<u8>,
    ) -> Result<bool, DebugError> {
        if section.is_compressed() {
            let compressed = self.compressed(section)?;
            if compressed.size > most {
                return Ok(false);
            }
            self.decompress(&compressed, to)?;
            return Ok(true);
        }
        let (_, size) = self.layout.range(section)?;
        if size > most {
            return Ok(false);
        }
        self.layout.budget().take(Cost::Memory, size)?;
        to.extend_from_slice(&self.layout.whole(section)?);
        Ok(true)
    }

    fn compressed(&self, section: &SectionHeader) -> Result<Compressed, DebugError> {
        let (offset, size) = self.layout.range(section)?;
        let mut header = [0; COMPRESSION_HEADER as usize];
        let read = self.layout.file().read_exact_at(&mut header, offset);
        let (Ok(()), Some(compressed)) = (read, size.checked_sub(COMPRESSION_HEADER)) else {
            return not("a compressed section is cut short");
        };
        let [
            k0,
            k1,
            k2,
            k3,
            _,
            _,
            _,
            _,
            s0,
            s1,
            s2,
            s3,
            s4,
            s5,
            s6,
            s7,
            ..,
        ] = header;
        Ok(Compressed {
            kind: u32::from_le_bytes([k0, k1, k2, k3]),
            offset: offset + COMPRESSION_HEADER,
            compressed,
            size: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
        })
    }

    /// Appends a decompressed section. Memory is taken as it comes: what its header says is a claim.
    fn decompress(&self, section: &Compressed, to: &mut Vec<u8>) -> Result<(), DebugError> {
        let budget = self.layout.budget();
        budget.take(Cost::Decompressed, section.size)?;
        budget.take(Cost::Memory, section.size)?;
        let Ok(file) = self.layout.file().try_clone() else {
            return not("the file can't be opened once more");
        };
        let part = Part {
            file,
            at: section.offset,
            left: section.compressed,
        };
        let wanted = section.size;
        let read = match section.kind {
            ZLIB => {
                let mut section =
                    Deflated::new(part.file, section.offset, section.compressed, wanted);
                fill(to, wanted, budget, |at, chunk| {
                    section
                        .read(at, chunk)
                        .map_err(|error| io::Error::other(error.to_string()))
                })
            }
            ZSTD => unpack_zstd(BufReader::new(part), wanted, budget, to),
            _ => return not("a section is compressed in a way that is not known"),
        };
        read.or_else(|error| match budget.exceeded() {
            Some(exceeded) => Err(exceeded.into()),
            None => not(format!("a compressed section can't be read ({error})")),
        })
    }
}

/// Where a compressed section lies, and what it says that it becomes.
struct Compressed {
    kind: u32,
    offset: u64,
    compressed: u64,
    size: u64,
}

/// Appends `wanted` bytes, as `read` has them at a place.
fn fill(
    to: &mut Vec<u8>,
    wanted: u64,
    budget: &Budget,
    mut read: impl FnMut(u64, &mut [u8]) -> io::Result<usize>,
) -> io::Result<()> {
    let mut chunk = vec![0; 64 << 10];
    let mut at = 0;
    while at < wanted {
        budget.check_time().map_err(io::Error::other)?;
        let len = (wanted - at).min(chunk.len() as u64) as usize;
        let got = read(at, chunk.get_mut(..len).unwrap_or_default())?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.extend_from_slice(chunk.get(..got).unwrap_or_default());
        at += got as u64;
    }
    Ok(())
}

/// Decompresses zstd: one frame behind the other, as linkers with several threads write them.
fn unpack_zstd(
    mut part: BufReader<Part<File>>,
    wanted: u64,
    budget: &Budget,
    to: &mut Vec<u8>,
) -> io::Result<()> {
    use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
    let mut frame = FrameDecoder::new();
    frame.set_max_window_size(MAX_WINDOW);
    let mut left = wanted;
    while left > 0 {
        let mut decoder =
            StreamingDecoder::new_with_decoder(&mut part, &mut frame).map_err(io::Error::other)?;
        let before = to.len();
        let mut chunk = vec![0; 64 << 10];
        while left > 0 {
            budget.check_time().map_err(io::Error::other)?;
            let len = left.min(chunk.len() as u64) as usize;
            match decoder.read(chunk.get_mut(..len).unwrap_or_default())? {
                0 => break,
                got => {
                    to.extend_from_slice(chunk.get(..got).unwrap_or_default());
                    left -= got as u64;
                }
            }
        }
        if to.len() == before {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}
