//! On programs that were compiled for it, and on those of this machine.

use std::path::Path;

use super::*;
use crate::target::standalone;

fn of_file(path: &Path) -> Option<String> {
    let module = standalone(path, true).ok()?;
    let elf = Elf::read(&module.file).ok()?;
    may_move_text(&module, &elf)
}
