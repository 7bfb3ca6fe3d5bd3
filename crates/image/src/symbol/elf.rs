//! What the agent reads from an ELF file: segments, functions, dynamic linking.
//!
//! Everything in the file is hostile: sizes and offsets are compared with the file's length and taken from its
//! budget before anything is read, and the file is read with `pread`, never mapped, so that a file cut short while
//! it is read is an error and not a signal.

use std::{collections::HashSet, fs::File};

use super::{
    go::{self, GoProgram},
    layout::{Layout, SectionHeader, Strings, half, kind, long, word},
    notes::{Versions, build_id, debug_link},
    pclntab,
    unwind::{Extent, UnwindSections},
};
use crate::foreign::{Budget, Cost, Exceeded};

/// Longest name of what describes exceptions, in bytes: see [`describes_exceptions`].
const MAX_EXCEPTION_NAME: usize = 64;
/// Longest symbol name that is kept, in bytes.
const MAX_NAME: usize = 16 << 10;
/// Bytes of a Go program's build information that are read: its version stands at the beginning.
const MAX_BUILD_INFO: u64 = 4 << 10;
/// Bytes of a dynamic section that are read; each entry has 16.
const MAX_DYNAMIC: u64 = 1 << 20;
/// A symbol's entry, in bytes, and how many are read at a time.
const SYMBOL: usize = 24;
const SYMBOLS_AT_A_TIME: u64 = 4096;
/// What is kept of a symbol besides its name, in bytes, with what lists grow by.
const SYMBOL_KEPT: u64 = 160;
/// Exceptions whose descriptions are noted.
const MAX_EXCEPTION_DATA: usize = 1024;

/// `PT_LOAD`, `PF_X`, `PF_W`.
const LOADED: u32 = 1;
const EXECUTABLE: u32 = 1;
const WRITABLE: u32 = 2;
/// `STT_NOTYPE`, `STT_OBJECT`, `STT_FUNC`, `STT_GNU_IFUNC`.
const NO_TYPE: u8 = 0;
const OBJECT: u8 = 1;
const FUNCTION: u8 = 2;
const INDIRECT: u8 = 10;
/// `DT_NEEDED`, `DT_RPATH`, `DT_RUNPATH`.
const NEEDED: u64 = 1;
const OLD_RUN_PATH: u64 = 15;
const RUN_PATH: u64 = 29;

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// It can't be parsed.
    #[error("not a usable ELF file ({0})")]
    Parse(&'static str),
    /// It is for another machine.
    #[error("not a 64-bit x86-64 program")]
    Machine,
    /// It would cost too much.
    #[error("{0}")]
    Exceeded(#[from] Exceeded),
}

/// Kind of a symbol that has code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolKind {
    /// A function.
    Function,
    /// Code that answers which function to use (`STT_GNU_IFUNC`).
    Indirect,
}

/// Which table names a function: only what the file itself says confirms that one begins there
/// (`symbol/starts.rs`). In descending order of what a name is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// `.dynsym`: what the dynamic linker goes by.
    Exported,
    /// The file's own `.symtab`.
    Own,
    /// The function table of a Go program, which was checked.
    GoTable,
    /// Another file, or what was compressed: it names, and confirms nothing.
    Foreign,
}

/// A symbol with code in this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// As in the table, without a version.
    pub name: String,
    /// The version that its library gave it, where there are several: `GLIBC_2.14`.
    pub version: Option<Box<str>>,
    /// Virtual address.
    pub address: u64,
    /// Bytes; 0 where the table does not say.
    pub size: u64,
    /// Kind.
    pub kind: SymbolKind,
    /// Only its own file can call it by name: the compiler or linker knows all its callers.
    pub is_local: bool,
    /// Who says so.
    pub origin: Origin,
}

/// A loaded segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Segment {
    /// Virtual address of the first byte.
    pub address: u64,
    /// Bytes in the file.
    pub file_size: u64,
    /// Offset in the file.
    pub offset: u64,
    /// It holds code.
    pub executable: bool,
    /// It can be written.
    pub writable: bool,
}

/// What a program says of the file with its debug information (`.gnu_debuglink`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebugLink {
    /// Its name.
    pub name: String,
    /// Its CRC-32.
    pub checksum: u32,
}

/// An ELF file's tables.
#[derive(Debug, Default)]
pub struct Elf {
    /// Loaded segments.
    pub segments: Vec<Segment>,
    /// Functions of `.symtab` and `.dynsym`, in ascending order of address and name, each once.
    pub symbols: Vec<Symbol>,
    /// The build ID, where there is one.
    pub build_id: Option<Vec<u8>>,
    /// Name and checksum of a file with its debug information.
    pub debug_link: Option<DebugLink>,
    /// Symbols that were compressed (`.gnu_debugdata`): where they lie in the file.
    pub mini_debug_info: Option<(u64, u64)>,
    /// It is a Go program.
    pub go: Option<GoProgram>,
    /// Names of needed libraries.
    pub needed: Vec<String>,
    /// `DT_RUNPATH` and `DT_RPATH`.
    pub run_paths: Vec<String>,
    /// It has a static symbol table.
    pub has_symtab: bool,
    /// It always lies at its addresses.
    pub is_fixed: bool,
    /// It lands exceptions, or cleans up when they pass.
    pub has_exception_tables: bool,
    /// Names of functions that it takes from other files.
    pub imports: HashSet<String>,
    /// Where what describes the standard exceptions lies: their types, names and virtual tables.
    pub exception_data: Vec<u64>,
    /// Stubs that jump to functions of other files (`.plt` and its relatives): addresses, first and end.
    pub stubs: Vec<(u64, u64)>,
    /// Where its unwind table lies.
    pub unwind: UnwindSections,
    /// Why the function table of a Go program is not used.
    pub go_table_problem: Option<String>,
    /// What reading the file may still cost.
    pub budget: Budget,
}

/// Whether a symbol is a type, its name or its virtual table (`_ZTI`, `_ZTS`, `_ZTV`), of the classes by which the
/// kernel side knows exceptions with a text (`teracron-ebpf/src/unwind.rs`, `what_pointer`).
fn describes_exceptions(symbol: &[u8]) -> bool {
    let Some(class) = [b"_ZTI", b"_ZTS", b"_ZTV"]
        .into_iter()
        .find_map(|kind| symbol.strip_prefix(kind))
    else {
        return false;
    };
    matches!(
        class,
        b"St13runtime_error"
            | b"St11logic_error"
            | b"N10__cxxabiv120__si_class_type_infoE"
            | b"N10__cxxabiv121__vmi_class_type_infoE"
    )
}

impl Elf {
    /// Whether code of Rust's runtime is in it: what unwinds through Rust has this personality.
    pub fn has_rust(&self) -> bool {
        let mut names = self.symbols.iter().map(|symbol| symbol.name.as_str());
        names.any(|name| name.contains("rust_eh_personality"))
    }

    /// Its executable segments: offset in the file and address.
    pub fn code_segments(&self) -> Vec<(u64, u64)> {
        let code = self.segments.iter().filter(|segment| segment.executable);
        code.map(|segment| (segment.offset, segment.address))
            .collect()
    }

    /// Reads the tables of a file, within a budget of its own.
    ///
    /// # Errors
    /// Where the file is not ELF for this machine, makes no sense, or costs too much.
    pub fn read(file: &File) -> Result<Self, ElfError> {
        Self::read_within(file, Budget::default())
    }

    /// The same, within this budget.
    ///
    /// # Errors
    /// See [`read`](Self::read).
    pub fn read_within(file: &File, budget: Budget) -> Result<Self, ElfError> {
        let reading = budget.reading();
        let layout = Layout::read(file, &budget)?;
        let text = layout.section(".text").map_or(0, |text| text.address);
        let mut this = Self {
            segments: segments(&layout),
            is_fixed: layout.is_fixed,
            build_id: build_id(&layout)?,
            debug_link: debug_link(&layout),
            mini_debug_info: layout
                .section(".gnu_debugdata")
                .and_then(SectionHeader::file_range),
            has_exception_tables: layout.section(".gcc_except_table").is_some(),
            stubs: layout
                .sections
                .iter()
                .filter(|section| section.name.starts_with(b".plt"))
                .map(|section| {
                    let start = section.address;
                    (start, start.saturating_add(section.size()))
                })
                .collect(),
            unwind: UnwindSections {
                frames: extent(&layout, ".eh_frame"),
                index: extent(&layout, ".eh_frame_hdr"),
                text,
            },
            budget: budget.clone(),
            ..Self::default()
        };
        let versions = Versions::read(&layout)?;
        let mut go_types = None;
        for table in [kind::SYMBOLS, kind::DYNAMIC_SYMBOLS] {
            let mut sections = layout.sections.iter();
            if let Some(section) = sections.find(|section| section.kind == table) {
                this.read_symbols(&layout, section, &versions, &mut go_types)?;
            }
        }
        let is_go =
            layout.section(".gopclntab").is_some() || layout.section(".go.buildinfo").is_some();
        if is_go {
            this.read_go(&layout, file, go_types);
        }
        this.sort_symbols();
        this.read_dynamic(&layout)?;
        drop(reading);
        Ok(this)
    }

    /// Reads a table of symbols, a part at a time.
    fn read_symbols(
        &mut self,
        layout: &Layout<'_>,
        section: &SectionHeader,
        versions: &Versions,
        go_types: &mut Option<u64>,
    ) -> Result<(), ElfError> {
        let (offset, size) = layout.range(section)?;
        let count = size / SYMBOL as u64;
        self.budget.take(Cost::Symbols, count)?;
        let is_static = section.kind == kind::SYMBOLS;
        self.has_symtab |= is_static && count > 0;
        let Some(mut strings) = layout.strings(section.link) else {
            return Ok(());
        };
        let mut part = vec![0; SYMBOL * SYMBOLS_AT_A_TIME.min(count) as usize];
        let mut done = 0;
        while done < count {
            self.budget.check_time()?;
            let now = (count - done).min(SYMBOLS_AT_A_TIME);
            let part = part
                .get_mut(..SYMBOL * now as usize)
                .ok_or(ElfError::Parse("its symbol table makes no sense"))?;
            std::os::unix::fs::FileExt::read_exact_at(
                layout.file(),
                part,
                offset + done * SYMBOL as u64,
            )
            .or(Err(ElfError::Parse("its symbol table can't be read")))?;
            for (place, entry) in part.chunks_exact(SYMBOL).enumerate() {
                let index = done + place as u64;
                let version = (!is_static).then(|| versions.of(index)).flatten();
                self.add_symbol(entry, is_static, version, &mut strings, go_types)?;
            }
            done += now;
        }
        Ok(())
    }

    fn add_symbol(
        &mut self,
        entry: &[u8],
        is_static: bool,
        exported_version: Option<&str>,
        strings: &mut Strings<'_>,
        go_types: &mut Option<u64>,
    ) -> Result<(), ElfError> {
        let (name_at, value) = (u64::from(word(entry, 0)), long(entry, 8));
        let info = entry.get(4).copied().unwrap_or_default();
        // `SHN_UNDEF`
        let undefined = half(entry, 6) == 0;
        if strings.get(name_at, b"runtime.types".len()) == Some(b"runtime.types") {
            *go_types = Some(value);
            return Ok(());
        }
        let symbol_kind = match info & 0xf {
            FUNCTION => SymbolKind::Function,
            INDIRECT => SymbolKind::Indirect,
            // What is taken from elsewhere may have no type.
            NO_TYPE if undefined => SymbolKind::Function,
            OBJECT if !undefined => {
                let name = strings.get(name_at, MAX_EXCEPTION_NAME);
                if name.is_some_and(describes_exceptions)
                    && self.exception_data.len() < MAX_EXCEPTION_DATA
                {
                    self.exception_data.push(value);
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        // A name that can't be read is no reason to refuse the rest.
        let Some(name) = strings
            .get(name_at, MAX_NAME)
            .filter(|name| !name.is_empty())
        else {
            return Ok(());
        };
        self.budget.take(Cost::Names, name.len() as u64)?;
        self.budget
            .take(Cost::Memory, SYMBOL_KEPT + name.len() as u64)?;
        // A static table writes the version behind the name: `f@V1`, and `f@@V2` for the usual one.
        let name = String::from_utf8_lossy(name);
        let (plain, version) = match name.split_once('@') {
            Some((plain, version)) if !plain.is_empty() => {
                (plain, Some(version.trim_start_matches('@').into()))
            }
            _ => (name.as_ref(), None),
        };
        if undefined {
            self.imports.insert(plain.to_owned());
            return Ok(());
        }
        self.symbols.push(Symbol {
            name: plain.to_owned(),
            version: exported_version.map(Into::into).or(version),
            address: value,
            size: long(entry, 16),
            kind: symbol_kind,
            // `STB_LOCAL`, or `STV_INTERNAL` and `STV_HIDDEN`.
            is_local: info >> 4 == 0 || matches!(entry.get(5).map(|other| other & 3), Some(1 | 2)),
            origin: if is_static {
                Origin::Own
            } else {
                Origin::Exported
            },
        });
        Ok(())
    }

    /// Reads what the dynamic linker is told.
    fn read_dynamic(&mut self, layout: &Layout<'_>) -> Result<(), ElfError> {
        let mut sections = layout.sections.iter();
        let Some(section) = sections.find(|section| section.kind == kind::DYNAMIC) else {
            return Ok(());
        };
        // That one is cut short is no reason to refuse the rest.
        let entries = match layout.beginning(section, MAX_DYNAMIC) {
            Err(error @ ElfError::Exceeded(_)) => return Err(error),
            entries => entries.unwrap_or_default(),
        };
        let Some(mut strings) = layout.strings(section.link) else {
            return Ok(());
        };
        for entry in entries.chunks_exact(16) {
            let list = match long(entry, 0) {
                NEEDED => &mut self.needed,
                RUN_PATH | OLD_RUN_PATH => &mut self.run_paths,
                _ => continue,
            };
            if list.len() < 1024
                && let Some(value) = strings.get(long(entry, 8), 4096)
            {
                list.push(String::from_utf8_lossy(value).into_owned());
            }
        }
        Ok(())
    }

    fn sort_symbols(&mut self) {
        self.symbols.sort_by(|a, b| {
            (a.address, &a.name, &b.version, b.size).cmp(&(b.address, &b.name, &a.version, a.size))
        });
        self.symbols.dedup_by(|a, b| {
            let same = a.address == b.address && a.name == b.name;
            if same && a.origin < b.origin {
                // What the file itself says of its size counts, too.
                (b.origin, b.size) = (a.origin, a.size);
            }
            same
        });
    }

    /// Adds functions that another file names. They confirm nothing.
    pub fn add_symbols(&mut self, symbols: Vec<Symbol>) {
        self.symbols
            .extend(symbols.into_iter().map(|symbol| Symbol {
                origin: Origin::Foreign,
                ..symbol
            }));
        self.has_symtab = true;
        self.sort_symbols();
    }

    /// Reads what only Go programs have.
    fn read_go(&mut self, layout: &Layout<'_>, file: &File, types: Option<u64>) {
        let section = |name: &str| layout.section(name);
        let bytes = |name: &str| layout.beginning(section(name)?, MAX_BUILD_INFO).ok();
        // Counted from `runtime.types`; before 1.27 that is where the read-only data begins.
        let first = section(".go.type").or_else(|| section(".rodata"));
        self.go = Some(GoProgram {
            version: bytes(".go.buildinfo").and_then(|info| go::version(&info)),
            types: types.or_else(|| Some(first?.address)),
        });
        if self.has_symtab {
            return;
        }
        let version = self.go.as_ref().and_then(|go| go.version);
        match pclntab::find(self, file, version, &|name| extent(layout, name)) {
            Ok(found) => {
                self.symbols.extend(found.functions);
                // What the C linker put together begins with C's constants.
                if let (Some(go), Some(types)) = (&mut self.go, found.types) {
                    go.types = Some(types);
                }
            }
            Err(problem) => self.go_table_problem = Some(problem),
        }
    }

    /// The name of the Go type at an address of this file.
    pub fn go_type_name(&self, file: &File, address: u64) -> Option<String> {
        let types = self.go.as_ref()?.types?;
        go::type_name(address, types, &|address, len| {
            self.bytes(file, address, len)
        })
    }

    /// Offset in the file of the byte at a virtual address.
    pub fn file_offset(&self, address: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let distance = address.checked_sub(segment.address)?;
            (distance < segment.file_size)
                .then(|| segment.offset.checked_add(distance))
                .flatten()
        })
    }

    /// Virtual address of the byte at an offset in the file.
    pub fn address_of_offset(&self, offset: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let distance = offset.checked_sub(segment.offset)?;
            (distance < segment.file_size)
                .then(|| segment.address.checked_add(distance))
                .flatten()
        })
    }

    /// Reads initialised memory of the file's image.
    pub fn bytes(&self, file: &File, address: u64, len: usize) -> Option<Vec<u8>> {
        use std::os::unix::fs::FileExt as _;
        let segment = self.segments.iter().find(|segment| {
            address
                .checked_sub(segment.address)
                .is_some_and(|distance| {
                    distance
                        .checked_add(len as u64)
                        .is_some_and(|end| end <= segment.file_size)
                })
        })?;
        let offset = segment.offset.checked_add(address - segment.address)?;
        // Before memory is taken for it: the header may say anything.
        if offset.checked_add(len as u64)? > file.metadata().ok()?.len()
            || !self.budget.has_room_for(len as u64)
        {
            return None;
        }
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    }

    /// The same, and less where the file's image ends before.
    pub(crate) fn bytes_up_to(&self, file: &File, address: u64, len: usize) -> Option<Vec<u8>> {
        let left = self.segments.iter().find_map(|segment| {
            let distance = address.checked_sub(segment.address)?;
            segment
                .file_size
                .checked_sub(distance)
                .filter(|left| *left > 0)
        })?;
        self.bytes(
            file,
            address,
            usize::try_from(left).map_or(len, |left| left.min(len)),
        )
    }

    /// Whether it takes the function of this name from another file.
    pub fn imports(&self, name: &str) -> bool {
        self.imports.contains(name)
    }

    /// The symbol with exactly this name.
    pub fn symbol(&self, name: &str) -> Option<&Symbol> {
        self.symbols.iter().find(|symbol| symbol.name == name)
    }

    /// The symbol with exactly this name that the file itself has: what the agent probes of its own accord is
    /// never looked up in another file.
    pub fn own_symbol(&self, name: &str) -> Option<&Symbol> {
        let own = |symbol: &&Symbol| symbol.name == name && symbol.origin != Origin::Foreign;
        self.symbols
            .iter()
            .filter(own)
            .min_by_key(|symbol| symbol.origin)
    }
}

/// Where a section lies.
fn extent(layout: &Layout<'_>, name: &str) -> Option<Extent> {
    let section = layout.section(name)?;
    let (offset, size) = section.file_range()?;
    Some(Extent {
        address: section.address,
        offset,
        size,
    })
}

fn segments(layout: &Layout<'_>) -> Vec<Segment> {
    let loaded = layout.segments.iter().filter(|it| it.kind == LOADED);
    loaded
        .map(|segment| Segment {
            address: segment.address,
            file_size: segment.file_size,
            offset: segment.offset,
            executable: segment.flags & EXECUTABLE != 0,
            writable: segment.flags & WRITABLE != 0,
        })
        .collect()
}

/// Reads a small file part without parsing, for tests of what is not ELF.
#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;

    fn file_with(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn reads_the_c_library() {
        let file = File::open("/lib/x86_64-linux-gnu/libc.so.6").unwrap();
        let elf = Elf::read(&file).unwrap();
        let malloc = elf.symbol("malloc").unwrap();
        assert!(malloc.size > 0);
        let offset = elf.file_offset(malloc.address).unwrap();
        assert_eq!(elf.address_of_offset(offset), Some(malloc.address));
        assert_eq!(elf.bytes(&file, malloc.address, 16).unwrap().len(), 16);
        assert!(elf.bytes(&file, malloc.address, usize::MAX).is_none());
        assert!(elf.build_id.is_some());
        assert!(elf.go.is_none());
        assert!(!elf.imports("malloc") && elf.imports("__tls_get_addr"));
    }

    #[test]
    fn refuses_other_files() {
        assert!(Elf::read(&file_with(b"")).is_err());
        assert!(Elf::read(&file_with(b"#!/bin/sh\n")).is_err());
        let mut real = std::fs::read("/bin/true").unwrap();
        for cut in [4, 63, 64, 100, 1000, real.len() / 2] {
            let _ = Elf::read(&file_with(&real[..cut]));
        }
        // Another machine.
        real[18] = 183;
        assert!(matches!(
            Elf::read(&file_with(&real)),
            Err(ElfError::Machine)
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn never_panics_on_damage(places in proptest::collection::vec((0usize..100_000, any::<u8>()), 1..40)) {
            let mut bytes = std::fs::read("/bin/true").unwrap();
            let len = bytes.len();
            for (place, byte) in places {
                // Mostly the headers, which decide the most.
                let place = if place % 2 == 0 { place % 1024 } else { len - 1 - place % 4096 };
                bytes[place % len] = byte;
            }
            let file = file_with(&bytes);
            if let Ok(elf) = Elf::read(&file) {
                for symbol in elf.symbols.iter().take(50) {
                    let _ = elf.bytes(&file, symbol.address, symbol.size as usize);
                }
            }
        }
    }
}
