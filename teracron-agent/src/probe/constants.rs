//! What the kernel side has to know of a program's own constants to read the text of its failures.

use teracron_common::record::MAX_CONSTANTS;

use crate::{
    symbol::{Elf, Language, Names},
    target::Module,
};

/// Addresses in the processes that are traced, beyond sites.
#[derive(Debug, Default)]
pub struct Constants {
    /// Go types whose values are errors with a text, and where it lies in them.
    pub go_texts: Vec<(u64, u64)>,
    /// Functions that drop a Rust string.
    pub rust_strings: Vec<u64>,
    /// Memory with constants of Rust programs: first byte, end.
    pub rust_memory: Vec<(u64, u64)>,
}

/// Where a module is loaded, counted from its own addresses; zero where it is not loaded yet.
pub fn bias(module: &Module, elf: &Elf) -> u64 {
    // Mappings are whole pages, and the page at a border is mapped twice: the segment tells.
    let code = elf.segments.iter().filter(|segment| segment.executable);
    module
        .mappings
        .iter()
        .find_map(|(start, _, offset)| {
            let segment = code
                .clone()
                .find(|segment| segment.offset & !PAGE == *offset)?;
            Some(start.wrapping_sub(segment.address & !PAGE))
        })
        .unwrap_or(0)
}

/// Low bits of an address within a page.
const PAGE: u64 = 0xfff;

impl Constants {
    /// Notes what a Rust program has.
    pub fn add_rust(&mut self, module: &Module, elf: &Elf) {
        let bias = bias(module, elf);
        for symbol in &elf.symbols {
            if !(symbol.name.contains("drop_in_place") && symbol.name.contains("String")) {
                continue;
            }
            let names = Names::of_file(&symbol.name, &elf.budget);
            let plain = names.plain.replace("::<", "<");
            if names.language == Language::Rust
                && plain == "core::ptr::drop_in_place<alloc::string::String>"
            {
                self.rust_strings.push(symbol.address.wrapping_add(bias));
            }
        }
        for segment in elf.segments.iter().filter(|segment| !segment.writable) {
            if self.rust_memory.len() < MAX_CONSTANTS as usize {
                let start = segment.address.wrapping_add(bias);
                self.rust_memory
                    .push((start, start.wrapping_add(segment.file_size)));
            }
        }
    }
}
