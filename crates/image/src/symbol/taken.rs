//! Functions whose addresses a file's data has: who finds one there may call it, so that its compiler had to leave it
//! as every other function is.
//!
//! Sources: System V ABI, "Relocation"; psABI for x86-64, table 4.10; generic ABI, `SHT_RELR`.

use std::{fs::File, os::unix::fs::FileExt as _, time::Instant};

use super::{
    Elf, ElfError,
    layout::{Layout, SectionHeader, kind, long},
};

/// Bytes that are read at a time: whole entries of every kind.
const AT_A_TIME: u64 = 24 << 15;
/// Bytes of relocations and data that are read in all.
const MAX_READ: u64 = 256 << 20;
/// `R_X86_64_64`, `R_X86_64_RELATIVE`.
const ABSOLUTE: u64 = 1;
const RELATIVE: u64 = 8;
/// Words of data that are noted.
const MAX_WORDS: usize = 4096;
/// Bytes of a relocation of `SHT_RELA`.
const RELOCATION: usize = 24;

/// What a program keeps its data in. What compilers describe functions in (profiles, patchable entries, unwind tables)
/// has addresses of every function, and is left out.
const DATA: [&[u8]; 6] = [
    b".data",
    b".rodata",
    b".init_array",
    b".fini_array",
    b".got",
    b".ldata",
];

impl Elf {
    /// Those of `wanted` (ascending) whose addresses are in the file's data, as far as it can be read until then.
    ///
    /// # Errors
    /// Where the file makes no sense, or costs too much.
    pub fn taken_in_data(
        &self,
        file: &File,
        wanted: &[u64],
        until: Instant,
    ) -> Result<Vec<u64>, ElfError> {
        let layout = Layout::read(file, &self.budget)?;
        let mut search = Search {
            layout: &layout,
            wanted,
            until,
            left: MAX_READ,
            words: Vec::new(),
            found: Vec::new(),
        };
        let sections = || layout.sections.iter();
        let of_kind = |wanted| {
            sections().filter(move |section| section.kind == wanted && section.address != 0)
        };
        for section in of_kind(kind::RELOCATIONS) {
            search.relocations(section)?;
        }
        let is_short = of_kind(kind::SHORT_RELOCATIONS).next().is_some();
        if self.is_fixed || is_short {
            for section in sections().filter(|section| is_data(section)) {
                search.words(section)?;
            }
        }
        if self.is_fixed {
            let words = std::mem::take(&mut search.words);
            search.found.extend(words.iter().map(|(_, value)| *value));
        }
        for section in of_kind(kind::SHORT_RELOCATIONS) {
            search.short_relocations(section)?;
        }
        let mut found = search.found;
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

fn is_data(section: &SectionHeader) -> bool {
    DATA.iter().any(|name| section.name.starts_with(name))
}

struct Search<'a> {
    layout: &'a Layout<'a>,
    wanted: &'a [u64],
    until: Instant,
    left: u64,
    /// Words of data that are one of them, with their addresses.
    words: Vec<(u64, u64)>,
    found: Vec<u64>,
}

impl Search<'_> {
    fn note(&mut self, value: u64) {
        if self.wanted.binary_search(&value).is_ok() && !self.found.contains(&value) {
            self.found.push(value);
        }
    }

    /// Hands over a section, a part at a time.
    fn parts(
        &mut self,
        section: &SectionHeader,
        mut visit: impl FnMut(&mut Self, &[u8]),
    ) -> Result<(), ElfError> {
        let (offset, size) = self.layout.range(section)?;
        let mut done = 0;
        while done < size {
            let now = (size - done).min(AT_A_TIME);
            if self.left < now || Instant::now() >= self.until {
                return Ok(());
            }
            self.left -= now;
            let mut bytes = vec![0; now as usize];
            self.layout
                .file()
                .read_exact_at(&mut bytes, offset.saturating_add(done))
                .or(Err(ElfError::Parse("a section of it can't be read")))?;
            visit(self, &bytes);
            done += now;
        }
        Ok(())
    }

    /// Whether what lies at an address is data.
    fn lies_in_data(&self, address: u64) -> bool {
        self.layout.sections.iter().any(|section| {
            is_data(section)
                && address
                    .checked_sub(section.address)
                    .is_some_and(|distance| distance < section.size())
        })
    }

    fn relocations(&mut self, section: &SectionHeader) -> Result<(), ElfError> {
        self.parts(section, |this, bytes| {
            for entry in bytes.chunks_exact(RELOCATION) {
                let (place, info, value) = (long(entry, 0), long(entry, 8), long(entry, 16));
                // With a symbol it is not the value alone.
                if matches!(info, ABSOLUTE | RELATIVE)
                    && this.wanted.binary_search(&value).is_ok()
                    && this.lies_in_data(place)
                {
                    this.note(value);
                }
            }
        })
    }

    /// Which of the words are relocated: addresses, and behind each the bits of the words that follow.
    fn short_relocations(&mut self, section: &SectionHeader) -> Result<(), ElfError> {
        let mut next = 0u64;
        self.parts(section, |this, bytes| {
            for entry in bytes.chunks_exact(8) {
                let entry = long(entry, 0);
                let is_bits = entry & 1 == 1;
                let words = &this.words;
                let relocated = words.iter().filter(|(place, _)| {
                    let distance = place.wrapping_sub(next);
                    match is_bits {
                        true => distance < 63 * 8 && entry >> (distance / 8 + 1) & 1 == 1,
                        false => *place == entry,
                    }
                });
                this.found.extend(relocated.map(|(_, value)| *value));
                next = match is_bits {
                    true => next.wrapping_add(63 * 8),
                    false => entry.wrapping_add(8),
                };
            }
        })
    }

    /// Notes the words of a section that are one of them.
    fn words(&mut self, section: &SectionHeader) -> Result<(), ElfError> {
        // Pointers lie at multiples of their size, and so does a section that has some.
        if !section.address.is_multiple_of(8) {
            return Ok(());
        }
        let mut place = section.address;
        self.parts(section, |this, bytes| {
            for word in bytes.chunks_exact(8) {
                let value = long(word, 0);
                if this.wanted.binary_search(&value).is_ok() && this.words.len() < MAX_WORDS {
                    this.words.push((place, value));
                }
                place = place.wrapping_add(8);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{path::PathBuf, process::Command, time::Duration};

    fn built(name: &str, flags: &[&str]) -> (File, Elf) {
        let folder = tempfile::tempdir().unwrap();
        let (source, out): (PathBuf, PathBuf) =
            (folder.path().join("t.c"), folder.path().join(name));
        std::fs::write(
            &source,
            "static void a(void) {} static void b(void) {}\n\
             static void (*const known[])(void) = { a, a };\n\
             int main(int n, char **v) { b(); known[n](); return (long)v; }",
        )
        .unwrap();
        let mut command = Command::new("gcc");
        let output = command
            .args(flags)
            .arg("-o")
            .arg(&out)
            .arg(&source)
            .output();
        assert!(output.unwrap().status.success());
        let file = File::open(&out).unwrap();
        let elf = Elf::read(&file).unwrap();
        (file, elf)
    }

    #[test]
    fn what_is_in_a_table() {
        for flags in [
            &["-O0"][..],
            &["-O0", "-no-pie", "-fno-pic"],
            &["-O0", "-Wl,-z,pack-relative-relocs"],
            &["-O0", "-fpatchable-function-entry=2"],
        ] {
            let (file, elf) = built("t", flags);
            let address = |name: &str| elf.symbol(name).unwrap().address;
            let mut wanted = [address("a"), address("b")];
            wanted.sort_unstable();
            let until = Instant::now() + Duration::from_secs(10);
            let found = elf.taken_in_data(&file, &wanted, until).unwrap();
            assert_eq!(found, [address("a")], "{flags:?}");
            assert_eq!(elf.is_fixed, flags.contains(&"-no-pie"));
        }
    }
}
