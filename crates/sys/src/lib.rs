//! Calls to the system that no library wraps.
//!
//! **Invariant**: this is the only crate of user space with `unsafe` code; each has its reason beside it, and what a
//! caller could do wrong is not in the faces.

pub mod bpf;
mod child;
mod memory;
#[cfg(feature = "wait")]
mod wait;

pub use child::dies_with_us;
pub use memory::give_back;
#[cfg(feature = "wait")]
pub use wait::readable;
