//! Processes and the kernel: who is traced, what is attached to them, what the kernel side reports, and what `/proc`
//! says of their memory.
//!
//! **Invariant**: nothing here knows a network, or where spans go.

#![forbid(unsafe_code)]

pub mod assemble;
pub mod decode;
pub mod kernel;
pub mod memory;
pub mod process;
