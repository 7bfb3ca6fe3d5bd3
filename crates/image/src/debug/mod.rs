//! What a file's debug information (DWARF 2 to 5) says of a function: its parameters, their types,
//! and where each lies at an address.
//!
//! Only what is asked for is read: sections are read page by page (`reader`), of units the headers
//! and one root entry each until the one with the function is found, then that unit.

mod bounded;
mod deflated;
mod frames;
mod function;
mod go;
mod inlined;
mod lines;
mod location;
mod plain;
mod reader;
mod sections;
mod split;
mod types;
mod units;

pub use frames::{FrameRow, frame_rows};
pub use function::{FunctionInfo, Parameter};
pub use inlined::{InlinedFunction, InlinedPlace};
pub use lines::{LineCode, Lines};
pub use location::{Address, Base, Home, Piece};
pub use types::{Member, Type, TypeRef, Variant};
pub use units::DebugInfo;

/// Why debug information is of no use.
#[derive(Debug, thiserror::Error)]
pub enum DebugError {
    /// It makes no sense.
    #[error("the debug information can't be read ({0})")]
    Dwarf(#[from] gimli::Error),
    /// The file can't be read.
    #[error("the debug information can't be read ({0})")]
    File(crate::symbol::ElfError),
    /// It would cost too much.
    #[error("{0}")]
    Exceeded(#[from] crate::foreign::Exceeded),
    /// Something in it is not understood, or is missing.
    #[error("{0}")]
    Not(String),
}

impl From<crate::symbol::ElfError> for DebugError {
    fn from(error: crate::symbol::ElfError) -> Self {
        match error {
            crate::symbol::ElfError::Exceeded(exceeded) => Self::Exceeded(exceeded),
            error => Self::File(error),
        }
    }
}

/// Says what is not understood.
///
/// # Errors
/// Always: it is one.
pub fn not<T>(what: impl Into<String>) -> Result<T, DebugError> {
    Err(DebugError::Not(what.into()))
}
