//! What the kernel side has to know of a program's own constants to read the text of its failures.

use teracron_common::layout::MAX_CONSTANTS;

use image::symbol::{Elf, Language, Names};

/// Addresses of a file beyond its sites, as the file counts them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Constants {
    /// Go types whose values are errors with a text, and where it lies in them.
    pub go_texts: Vec<(u64, u64)>,
    /// Functions that drop a Rust string.
    pub rust_strings: Vec<u64>,
    /// Memory with constants of Rust programs: first byte, end.
    pub rust_memory: Vec<(u64, u64)>,
}

impl Constants {
    /// Whether there is nothing to know.
    pub fn is_empty(&self) -> bool {
        self.go_texts.is_empty() && self.rust_strings.is_empty() && self.rust_memory.is_empty()
    }

    /// The same as a process has it that loaded the file there.
    pub fn at(&self, bias: u64) -> Self {
        let moved = |address: &u64| address.wrapping_add(bias);
        Self {
            go_texts: self
                .go_texts
                .iter()
                .map(|(address, offset)| (moved(address), *offset))
                .collect(),
            rust_strings: self.rust_strings.iter().map(moved).collect(),
            rust_memory: self
                .rust_memory
                .iter()
                .map(|(start, end)| (moved(start), moved(end)))
                .collect(),
        }
    }

    /// Notes what a Rust program has.
    pub(crate) fn add_rust(&mut self, elf: &Elf) {
        for symbol in &elf.symbols {
            if !(symbol.name.contains("drop_in_place") && symbol.name.contains("String")) {
                continue;
            }
            let names = Names::of_file(&symbol.name, &elf.budget);
            let plain = names.plain.replace("::<", "<");
            if names.language == Language::Rust
                && plain == "core::ptr::drop_in_place<alloc::string::String>"
            {
                self.rust_strings.push(symbol.address);
            }
        }
        for segment in elf.segments.iter().filter(|segment| !segment.writable) {
            if self.rust_memory.len() < MAX_CONSTANTS {
                let start = segment.address;
                self.rust_memory
                    .push((start, start.wrapping_add(segment.file_size)));
            }
        }
    }
}
