//! What the agent's parts hand each other: spans, samples, counts of what was lost, errors, and sentences for people.

#![forbid(unsafe_code)]

pub mod error;
mod figures;
mod glob;
mod identity;
mod kind;
pub mod notes;
mod sent;
mod span;
pub mod text;
pub mod totals;
pub mod wrap;

pub use identity::{ContainerId, Namespaces, ProcessIdentity};
pub use kind::Kind;
pub use sent::ENDED_WITH_PROCESS;
pub use span::{Polls, ProbeName, ProcessSample, Span, SpanMemory, signal_name};
