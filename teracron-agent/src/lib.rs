//! The Teracron agent: named functions of a running process become spans, without a change to it.
//!
//! Data flows one way, a module a stage:
//! [`spec`] → [`target`] → [`symbol`] → [`site`] → [`probe`] → [`attach`] → [`read`] → [`span`] → [`output`];
//! [`run`] puts them together, [`cli`] is how people reach them. ARCHITECTURE.md draws it.

pub mod attach;
pub mod batch;
pub mod capture;
pub mod cli;
pub mod config;
pub mod debug;
pub mod doctor;
pub mod error;
pub mod foreign;
pub mod memory;
pub mod notes;
pub mod output;
pub mod own_files;
pub mod pack;
pub mod probe;
pub mod read;
pub mod run;
pub mod scrub;
pub mod seal;
pub mod ship;
pub mod site;
pub mod span;
pub mod spec;
pub mod spool;
pub mod status;
pub mod symbol;
pub mod target;
pub mod text;
pub mod totals;
