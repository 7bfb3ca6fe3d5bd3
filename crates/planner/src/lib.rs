//! From what the user asks for to what is attached: functions, sites and capture plans, as data.
//!
//! **Invariant**: planning looks at no process and asks the kernel nothing. It takes images and [`probe::ProcessFacts`],
//! needs no root, and can be done anywhere.

#![forbid(unsafe_code)]

pub mod capture;
pub mod find;
pub mod moving;
pub mod probe;
pub mod probe_spec;
mod scripts;
pub mod whole;

mod contract;
mod layout;

pub use layout::{FileFacts, LayoutPlan};
