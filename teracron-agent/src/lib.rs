//! The Teracron agent: named functions of a running process become spans, without a change to it.
//!
//! The command line, the configuration, and what puts the crates together: `image` and `sites` say what a file has,
//! `planner` what is to be attached, `tracer` attaches it and reads the kernel's records, `pipeline` is where spans go.
//! ARCHITECTURE.md draws it.
//!
//! **Invariant**: what can be known without a process, a kernel or a network is not in this crate.

#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod delivering;
pub mod doctor;
mod logging;
pub mod planning;
pub mod run;
pub mod shut_in;
pub mod status;
