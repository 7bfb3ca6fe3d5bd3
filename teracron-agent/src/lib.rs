//! The Teracron agent: named functions of a running process become spans, without a change to it.
//!
//! Data flows one way, a module a stage:
//! [`spec`] → [`target`] → [`symbol`] → [`site`] → [`probe`] → [`attach`] → [`read`] → [`span`] → [`output`];
//! [`run`] puts them together, [`cli`] is how people reach them. ARCHITECTURE.md draws it.

pub mod attach;
pub mod cli;
pub mod doctor;
pub mod error;
pub mod output;
pub mod probe;
pub mod read;
pub mod run;
pub mod site;
pub mod span;
pub mod spec;
pub mod symbol;
pub mod target;
pub mod text;
