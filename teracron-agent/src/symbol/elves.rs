//! The tables of all files of a run.

use std::{collections::HashMap, sync::Arc};

use super::{Elf, ElfError};
use crate::target::{FileKey, Module};

/// Tables of the modules, read once each.
#[derive(Default)]
pub struct Elves(HashMap<FileKey, std::result::Result<Arc<Elf>, ElfError>>);

impl Elves {
    /// The tables of a module.
    pub fn get(&mut self, module: &Module) -> &std::result::Result<Arc<Elf>, ElfError> {
        self.0
            .entry(module.key)
            .or_insert_with(|| Elf::read(&module.file).map(Arc::new))
    }
}
