//! Names of functions, where they begin, and their code.

mod demangle;
mod elf;
mod elves;
mod go;
mod layout;
mod nearest;
mod notes;
mod pclntab;
mod proven;
mod starts;
mod taken;
mod unwind;

pub use demangle::{Language, Names, type_name, without_clone_marks};
pub use elf::{DebugLink, Elf, ElfError, Origin, Segment, Symbol, SymbolKind};
pub use elves::{Elves, unpacked};
pub use go::{GoLayout, GoProgram, plain_name as go_plain_name};
pub use layout::{Layout, SectionHeader};
pub use nearest::{how_near, nearest};
pub(crate) use notes::shared_link;
pub use proven::{Place, Proven};
pub use starts::{Start, Starts, Unconfirmed};
pub use unwind::UnwindSections;
