//! From a name to the functions that it stands for.

mod demangle;
mod elf;
mod elves;
mod find;
mod go;
mod layout;
mod nearest;
mod notes;
mod pclntab;
mod proven;
mod starts;
mod unwind;

pub use demangle::{Language, Names, type_name};
pub use elf::{DebugLink, Elf, ElfError, Origin, Segment, Symbol, SymbolKind};
pub use elves::{Elves, unpacked};
pub use find::{Function, Functions, MAX_FUNCTIONS, future_owner, plain_names_of};
pub use go::{GoLayout, GoProgram};
pub use layout::{Layout, SectionHeader};
pub use nearest::nearest;
pub use notes::shared_link;
pub use proven::{Place, Proven};
pub use starts::{Start, Starts, Unconfirmed};
pub use unwind::UnwindSections;
