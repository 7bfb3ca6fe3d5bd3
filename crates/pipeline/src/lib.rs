//! Where spans go: to a terminal, as JSON lines, and batched, sealed and spooled to the Teracron service.
//!
//! **Invariant**: nothing here knows the kernel or a process: it takes spans, samples and counts.

#![forbid(unsafe_code)]

pub mod batch;
pub mod output;
pub mod own_files;
pub mod pack;
pub mod scrub;
pub mod ship;
pub mod spool;
