//! What the files of a run say of what the kernel side keeps by address: where `errno` lies, constants of Rust
//! programs, types of Go, descriptions of exceptions. Where a process has it is a fact of the process, and told
//! elsewhere.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{
    capture::{ErrnoPlace, errno_place},
    probe::Constants,
};
use image::{FileKey, Image, symbol::Elf};

/// Longest code of `__errno_location` that is read, in bytes.
const MAX_ERRNO_CODE: u64 = 64;

/// What of one file is kept by address; all addresses as the file counts them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Its executable segments: offset in the file and address.
    pub code: Vec<(u64, u64)>,
    /// Where it keeps `errno`.
    pub errno: Option<ErrnoPlace>,
    /// What the kernel side reads the text of failures by.
    pub constants: Constants,
    /// It has types that spans may name by their address.
    pub has_types: bool,
    /// What exceptions are described by: to be in memory before the kernel side reads it.
    pub exception_data: Vec<u64>,
}

/// What of the files of a run is kept by address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutPlan(HashMap<FileKey, FileFacts>);

impl LayoutPlan {
    fn file(&mut self, key: FileKey, elf: &Elf) -> &mut FileFacts {
        self.0.entry(key).or_insert_with(|| FileFacts {
            code: elf.code_segments(),
            ..FileFacts::default()
        })
    }

    /// Takes note of a file that processes have mapped. Answers whether it says where `errno` lies.
    pub fn add(&mut self, image: &Image, elf: &Elf) -> bool {
        if !elf.exception_data.is_empty() {
            self.file(image.key, elf).exception_data = elf.exception_data.clone();
        }
        let Some(symbol) = elf.symbol("__errno_location") else {
            return false;
        };
        let size = symbol.size.clamp(1, MAX_ERRNO_CODE) as usize;
        let Some(code) = elf.bytes(&image.file, symbol.address, size) else {
            return false;
        };
        let errno = errno_place(&code, symbol.address);
        let is_known = errno.is_some();
        self.file(image.key, elf).errno = errno;
        is_known
    }

    /// Takes what is kept of a probed file; `has_types`: spans may name its types by their address.
    pub(crate) fn add_constants(
        &mut self,
        image: &Image,
        elf: &Elf,
        constants: Constants,
        has_types: bool,
    ) {
        let file = self.file(image.key, elf);
        file.constants = constants;
        file.has_types = has_types;
    }

    /// What is kept of a file.
    pub fn of(&self, key: FileKey) -> Option<&FileFacts> {
        self.0.get(&key)
    }
}
