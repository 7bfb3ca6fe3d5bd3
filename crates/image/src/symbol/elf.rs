//! What the agent reads from an ELF file: segments, functions, dynamic linking.
//!
//! Everything in the file is hostile: sizes and offsets are checked by the `object` crate against
//! the file's length, counts are bounded here, and the file is read with `pread`, never mapped, so
//! that a file cut short while it is read is an error and not a signal.

use std::{collections::HashSet, fs::File};

use object::{
    Endianness, Object as _, ObjectSection as _, ReadCache, elf,
    read::elf::{
        Dyn as _, ElfFile64, FileHeader as _, ProgramHeader as _, SectionHeader as _, Sym as _,
    },
};

use super::{
    go::{self, GoProgram},
    pclntab,
    unwind::{Extent, UnwindSections},
};

/// Symbols that are read from a file.
const MAX_SYMBOLS: usize = 4_000_000;
/// Longest symbol name that is kept, in bytes.
const MAX_NAME: usize = 16 << 10;
/// Largest function table of a Go program that is read, in bytes.
const MAX_GO_TABLE: u64 = 256 << 20;

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// It can't be parsed.
    #[error("not a usable ELF file ({0})")]
    Parse(#[from] object::Error),
    /// It is for another machine.
    #[error("not a 64-bit x86-64 program")]
    Machine,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Its executable segments: offset in the file and address.
    pub fn code_segments(&self) -> Vec<(u64, u64)> {
        let code = self.segments.iter().filter(|segment| segment.executable);
        code.map(|segment| (segment.offset, segment.address))
            .collect()
    }

    /// Reads the tables of a file.
    ///
    /// # Errors
    /// Where the file is not ELF for this machine, or makes no sense.
    pub fn read(file: &File) -> Result<Self, ElfError> {
        let cache = ReadCache::new(file);
        let data = &cache;
        let parsed: ElfFile64<'_, Endianness, _> = ElfFile64::parse(data)?;
        let endian = parsed.endian();
        let header = parsed.elf_header();
        if header.e_machine(endian) != elf::EM_X86_64 {
            return Err(ElfError::Machine);
        }
        let mut this = Self {
            segments: Vec::new(),
            symbols: Vec::new(),
            build_id: parsed.build_id()?.map(<[u8]>::to_vec),
            debug_link: parsed
                .gnu_debuglink()
                .ok()
                .flatten()
                .map(|(name, checksum)| DebugLink {
                    name: String::from_utf8_lossy(name).into_owned(),
                    checksum,
                }),
            mini_debug_info: parsed
                .section_by_name(".gnu_debugdata")
                .and_then(|section| section.file_range()),
            go: None,
            needed: Vec::new(),
            run_paths: Vec::new(),
            has_symtab: false,
            has_exception_tables: parsed.section_by_name(".gcc_except_table").is_some(),
            imports: HashSet::new(),
            exception_data: Vec::new(),
            stubs: parsed
                .sections()
                .filter(|section| section.name().is_ok_and(|name| name.starts_with(".plt")))
                .map(|section| {
                    let start = section.address();
                    (start, start.saturating_add(section.size()))
                })
                .collect(),
            unwind: UnwindSections {
                frames: extent(&parsed, ".eh_frame"),
                index: extent(&parsed, ".eh_frame_hdr"),
                text: parsed
                    .section_by_name(".text")
                    .map_or(0, |text| text.address()),
            },
            go_table_problem: None,
        };
        for segment in parsed.elf_program_headers() {
            if segment.p_type(endian) == elf::PT_LOAD {
                this.segments.push(Segment {
                    address: segment.p_vaddr(endian),
                    file_size: segment.p_filesz(endian),
                    offset: segment.p_offset(endian),
                    executable: segment.p_flags(endian).contains(elf::PF_X),
                    writable: segment.p_flags(endian).contains(elf::PF_W),
                });
            }
        }
        let sections = parsed.elf_section_table();
        let mut go_types = None;
        let versions = sections.versions(endian, data).ok().flatten();
        for kind in [elf::SHT_SYMTAB, elf::SHT_DYNSYM] {
            let table = sections.symbols(endian, data, kind)?;
            this.has_symtab |= kind == elf::SHT_SYMTAB && !table.is_empty();
            for (index, symbol) in table.enumerate().take(MAX_SYMBOLS) {
                let undefined = symbol.st_shndx(endian) == elf::SHN_UNDEF;
                if table.symbol_name(endian, symbol) == Ok(b"runtime.types") {
                    go_types = Some(symbol.st_value(endian));
                    continue;
                }
                let symbol_kind = match symbol.st_type() {
                    elf::STT_FUNC => SymbolKind::Function,
                    elf::STT_GNU_IFUNC => SymbolKind::Indirect,
                    // What is taken from elsewhere may have no type.
                    elf::STT_NOTYPE if undefined => SymbolKind::Function,
                    elf::STT_OBJECT if !undefined => {
                        if table
                            .symbol_name(endian, symbol)
                            .is_ok_and(describes_exceptions)
                        {
                            this.exception_data.push(symbol.st_value(endian));
                        }
                        continue;
                    }
                    _ => continue,
                };
                // A name that can't be read is no reason to refuse the rest.
                let Ok(name) = table.symbol_name(endian, symbol) else {
                    continue;
                };
                if name.is_empty() || name.len() > MAX_NAME {
                    continue;
                }
                // A static table writes the version behind the name: `f@V1`, and `f@@V2` for the usual one.
                let name = String::from_utf8_lossy(name);
                let (plain, mut version) = match name.split_once('@') {
                    Some((plain, version)) if !plain.is_empty() => {
                        (plain, Some(version.trim_start_matches('@').into()))
                    }
                    _ => (name.as_ref(), None),
                };
                if undefined {
                    this.imports.insert(plain.to_owned());
                    continue;
                }
                if kind == elf::SHT_DYNSYM
                    && let Some(versions) = &versions
                    && let Ok(Some(found)) =
                        versions.version(versions.version_index(endian, index).into())
                {
                    version = Some(String::from_utf8_lossy(found.name()).into());
                }
                this.symbols.push(Symbol {
                    name: plain.to_owned(),
                    version,
                    address: symbol.st_value(endian),
                    size: symbol.st_size(endian),
                    kind: symbol_kind,
                    is_local: symbol.st_bind() == elf::STB_LOCAL,
                    origin: match kind {
                        elf::SHT_DYNSYM => Origin::Exported,
                        _ => Origin::Own,
                    },
                });
            }
        }
        let is_go = parsed.section_by_name(".gopclntab").is_some()
            || parsed.section_by_name(".go.buildinfo").is_some();
        if is_go {
            this.read_go(&parsed, file, go_types);
        }
        this.sort_symbols();
        for section in sections.iter() {
            if let Ok(Some((entries, link))) = section.dynamic(endian, data) {
                let strings = sections.strings(endian, data, link).unwrap_or_default();
                for entry in entries {
                    let tag = entry.tag(endian);
                    let list = match tag {
                        elf::DT_NEEDED => &mut this.needed,
                        elf::DT_RUNPATH | elf::DT_RPATH => &mut this.run_paths,
                        _ => continue,
                    };
                    if let Ok(value) = entry.string(endian, strings)
                        && value.len() <= 4096
                        && list.len() < 1024
                    {
                        list.push(String::from_utf8_lossy(value).into_owned());
                    }
                }
            }
        }
        Ok(this)
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
    fn read_go<'data, R: object::ReadRef<'data>>(
        &mut self,
        parsed: &ElfFile64<'data, Endianness, R>,
        file: &File,
        types: Option<u64>,
    ) {
        let section = |name: &str| parsed.section_by_name(name);
        let bytes = |name: &str| -> Option<Vec<u8>> {
            let (offset, size) = section(name)?.file_range()?;
            if size > MAX_GO_TABLE || offset.checked_add(size)? > file.metadata().ok()?.len() {
                return None;
            }
            let mut bytes = vec![0; usize::try_from(size).ok()?];
            std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, offset).ok()?;
            Some(bytes)
        };
        // Counted from `runtime.types`; before 1.27 that is where the read-only data begins.
        let first = section(".go.type").or_else(|| section(".rodata"));
        self.go = Some(GoProgram {
            version: bytes(".go.buildinfo").and_then(|info| go::version(&info)),
            types: types.or_else(|| Some(first?.address())),
        });
        if self.has_symtab {
            return;
        }
        let version = self.go.as_ref().and_then(|go| go.version);
        match pclntab::find(self, file, version, &|name| extent(parsed, name)) {
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
        if offset.checked_add(len as u64)? > file.metadata().ok()?.len() {
            return None;
        }
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    }

    /// The same, and less where the file's image ends before.
    pub fn bytes_up_to(&self, file: &File, address: u64, len: usize) -> Option<Vec<u8>> {
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
fn extent<'data, R: object::ReadRef<'data>>(
    parsed: &ElfFile64<'data, Endianness, R>,
    name: &str,
) -> Option<Extent> {
    let section = parsed.section_by_name(name)?;
    let (offset, size) = section.file_range()?;
    Some(Extent {
        address: section.address(),
        offset,
        size,
    })
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
