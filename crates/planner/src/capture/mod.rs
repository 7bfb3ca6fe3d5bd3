//! Capture plans: from what a probe asks to read, and what the debug information says, to the steps
//! that the kernel side performs at a site.
//!
//! Everything here takes data and gives data: a plan can be made, printed and tested without a kernel.

mod arguments;
mod builder;
mod errno;
mod failure;
mod items;
mod locate;
mod plan;
mod reader;
mod sequence;
mod show;
mod value;
mod x86_64;

use std::{fmt, sync::Arc};

pub use errno::{ErrnoPlace, errno_place};

pub(crate) use errno::errno_text;
pub use items::{Captured, Items, read};
pub use locate::Certainty;
pub(crate) use locate::returns;
pub use plan::{InlinedPlaces, Request, SitePlans, Subject, at_entry, at_exit};
pub(crate) use plan::{reads_kept, result_registers};
use serde::{Deserialize, Serialize};
use teracron_common::Plan;

/// What an item of a plan stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The name in the span, or what else becomes of it.
    pub role: Role,
    /// How the bytes are read.
    pub meaning: Meaning,
}

/// What becomes of an item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A captured parameter of this name.
    Parameter(Arc<str>),
    /// The span's error type.
    ErrorType,
    /// The span's error message.
    ErrorMessage,
    /// Nothing: it was only looked at.
    Condition,
}

/// How an item's bytes are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Meaning {
    /// A whole number that can be negative.
    Signed,
    /// A whole number that can't.
    Unsigned,
    /// True or false.
    Boolean,
    /// A character.
    Character,
    /// A floating-point number of so many bytes.
    Float(u8),
    /// An address.
    Pointer,
    /// One of these names.
    Enumeration(Arc<Names>),
    /// A string.
    Text,
    /// The C library's error number.
    Errno,
    /// The address of a Go type.
    GoType,
}

/// Names of numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// Numbers with names.
    pub known: Vec<(u64, String)>,
    /// What every other number is called.
    pub other: Option<String>,
}

/// A plan with what its items stand for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturePlan {
    /// What the kernel side performs.
    #[serde(with = "crate::contract::steps")]
    pub steps: Plan,
    /// What the items are.
    pub keys: Vec<Key>,
    /// What a failed call is said to be, where nothing says it better.
    pub failure: Option<Arc<str>>,
    /// It reads what a call gives back, and not what it was given.
    pub at_exit: bool,
}

/// Something that was asked for and can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What was asked for.
    pub wanted: String,
    /// Why not.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} can't be read: {}",
            model::text::shown(&self.wanted),
            model::text::shown(&self.reason)
        )
    }
}

#[cfg(test)]
mod tests;
