//! The tables of all files of a run.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Seek as _, Write},
    os::unix::fs::FileExt as _,
    sync::Arc,
};

use super::{Elf, ElfError};
use crate::{DebugTrust, FileKey, Image, separate_debug_file};

/// Largest compressed table of symbols that is read, and what it may become, in bytes.
const MAX_COMPRESSED: u64 = 64 << 20;
const MAX_SYMBOLS: usize = 512 << 20;

/// Tables of the modules, read once each: what a debug file says counts only where that is believed.
#[derive(Default)]
pub struct Elves(HashMap<(FileKey, DebugTrust), std::result::Result<Arc<Elf>, ElfError>>);

impl Elves {
    /// The tables of a module. Where it was stripped, its functions are those that its compressed
    /// symbols or its separate debug file name.
    pub fn get(&mut self, module: &Image) -> &std::result::Result<Arc<Elf>, ElfError> {
        self.0
            .entry((module.key, module.debug.trust()))
            .or_insert_with(|| read(module).map(Arc::new))
    }
}

fn read(module: &Image) -> std::result::Result<Elf, ElfError> {
    let mut elf = Elf::read(&module.file)?;
    if elf.has_symtab || elf.go.is_some() {
        return Ok(elf);
    }
    let separate = separate_debug_file(module, &elf)
        .and_then(|file| Elf::read(&file).ok())
        .filter(|debug| debug.has_symtab);
    // The compressed symbols leave out what the exported ones have.
    let found = separate.or_else(|| {
        let file = mini_debug_info(module, &elf)?;
        Elf::read(&file).ok()
    });
    if let Some(debug) = found {
        elf.add_symbols(debug.symbols);
    }
    Ok(elf)
}

/// The symbols in `.gnu_debugdata`, decompressed into memory.
fn mini_debug_info(module: &Image, elf: &Elf) -> Option<File> {
    let (offset, size) = elf.mini_debug_info?;
    let length = module.file.metadata().ok()?.len();
    if size > MAX_COMPRESSED || offset.checked_add(size)? > length {
        return None;
    }
    let mut compressed = vec![0; usize::try_from(size).ok()?];
    module.file.read_exact_at(&mut compressed, offset).ok()?;
    let memory = rustix::fs::memfd_create("symbols", rustix::fs::MemfdFlags::CLOEXEC).ok()?;
    let mut out = Bounded {
        file: File::from(memory),
        left: MAX_SYMBOLS,
    };
    lzma_rs::xz_decompress(&mut compressed.as_slice(), &mut out).ok()?;
    out.file.rewind().ok()?;
    Some(out.file)
}

/// Takes no more than was meant.
struct Bounded {
    file: File,
    left: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.left {
            return Err(io::Error::other("too large"));
        }
        let written = self.file.write(bytes)?;
        self.left -= written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
