//! The tables of all files of a run.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    sync::Arc,
};

use lzma_rust2::XzReader;

use super::{Elf, ElfError};
use crate::{
    DebugTrust, FileKey, Image,
    foreign::{Budget, Cost, Part, tell_reading},
    separate_debug_file,
};
use model::text;

/// Largest compressed table of symbols that is read, in bytes. Distributions' have some hundred kilobytes.
const MAX_COMPRESSED: u64 = 64 << 20;
/// Most memory that unpacking may need, in KiB: xz of the highest level refers back 64 MiB.
const MAX_UNPACKING: u32 = 68 << 10;

/// Tables of the modules, read once each: what a debug file says counts only where that is believed.
#[derive(Default)]
pub struct Elves {
    read: HashMap<(FileKey, DebugTrust), std::result::Result<Arc<Elf>, ElfError>>,
    /// What there is to say of files.
    notes: Vec<String>,
}

impl Elves {
    /// The tables of a module. Where it was stripped, its functions are those that its compressed
    /// symbols or its separate debug file name.
    pub fn get(&mut self, module: &Image) -> &std::result::Result<Arc<Elf>, ElfError> {
        let Self { read, notes } = self;
        read.entry((module.key, module.debug.trust()))
            .or_insert_with(|| {
                tell_reading(module);
                self::read(module, notes)
                    .map(Arc::new)
                    .inspect_err(|error| {
                        if let ElfError::Exceeded(exceeded) = error {
                            notes.push(note(module, exceeded));
                        }
                    })
            })
    }

    /// What there is to say of the files that were read: those that cost too much, each once, and names that were left
    /// as they are.
    pub fn take_notes(&mut self) -> Vec<String> {
        let mut notes = std::mem::take(&mut self.notes);
        let left: u64 = self
            .read
            .values()
            .flatten()
            .map(|elf| elf.budget.take_not_demangled())
            .sum();
        if left > 0 {
            notes.push(format!(
                "{left} names were not demangled, because that is too much work: they are known by their symbols"
            ));
        }
        notes
    }
}

fn note(module: &Image, problem: &dyn std::fmt::Display) -> String {
    format!("{} is not read: {problem}", text::shown(&module.path))
}

fn read(module: &Image, notes: &mut Vec<String>) -> std::result::Result<Elf, ElfError> {
    let mut elf = Elf::read(&module.file)?;
    if elf.has_symtab || elf.go.is_some() {
        return Ok(elf);
    }
    let mut note_of = |what: &str, error: ElfError| {
        if let ElfError::Exceeded(exceeded) = error {
            notes.push(format!(
                "{what} of {} is not read: {exceeded}",
                text::shown(&module.path)
            ));
        }
    };
    let separate = separate_debug_file(module, &elf)
        .and_then(|file| {
            Elf::read(&file)
                .map_err(|error| note_of("the debug file", error))
                .ok()
        })
        .filter(|debug| debug.has_symtab);
    // The compressed symbols leave out what the exported ones have.
    let found = separate.or_else(|| {
        unpacked(&module.file, &elf)
            .map_err(|error| note_of("the compressed symbol table", error))
            .ok()
            .flatten()
    });
    if let Some(debug) = found {
        elf.add_symbols(debug.symbols);
    }
    Ok(elf)
}

/// The symbols in `.gnu_debugdata`, decompressed into memory; `None` where there are none, or they make no sense.
///
/// # Errors
/// Where they cost too much.
pub fn unpacked(file: &File, elf: &Elf) -> std::result::Result<Option<Elf>, ElfError> {
    let Some((offset, size)) = elf.mini_debug_info else {
        return Ok(None);
    };
    let budget = &elf.budget;
    let _reading = budget.reading();
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    if size > MAX_COMPRESSED || offset.checked_add(size).is_none_or(|end| end > length) {
        return Ok(None);
    }
    budget.take(Cost::SectionData, size)?;
    let Ok(memory) = rustix::fs::memfd_create("symbols", rustix::fs::MemfdFlags::CLOEXEC) else {
        return Ok(None);
    };
    let mut unpacked = File::from(memory);
    let packed = io::BufReader::new(Part {
        file,
        at: offset,
        left: size,
    });
    // What it refers back to is checked before memory is taken for it.
    let most = u32::try_from(budget.limits().memory / 2 / 1024).unwrap_or(u32::MAX);
    let mut reader = XzReader::new_mem_limit(packed, true, MAX_UNPACKING.min(most));
    let mut chunk = vec![0; 64 << 10];
    let mut taken = 0;
    loop {
        let read = match reader.read(&mut chunk) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                budget.check(Cost::Memory, u64::MAX)?;
                return Ok(None);
            }
            Err(_) => return Ok(None),
        };
        if read == 0 {
            break;
        }
        budget.check_time()?;
        budget.take(Cost::Decompressed, read as u64)?;
        // The file is memory, too.
        budget.take(Cost::Memory, read as u64)?;
        taken += read as u64;
        let chunk = chunk.get(..read).unwrap_or_default();
        if unpacked.write_all(chunk).is_err() {
            return Ok(None);
        }
    }
    if unpacked.rewind().is_err() {
        return Ok(None);
    }
    let found = Elf::read_within(&unpacked, Budget::with(*budget.limits()));
    budget.give_back(taken);
    match found {
        Err(error @ ElfError::Exceeded(_)) => Err(error),
        found => Ok(found.ok()),
    }
}
