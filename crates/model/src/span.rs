//! Spans, samples and what they carry.

use std::{borrow::Cow, sync::Arc};

use wire::{Fields, Sample, Status};

use crate::ProcessIdentity;

/// A name that spans carry: index in the records.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProbeName {
    /// The workflow.
    pub workflow: Arc<str>,
    /// The plain function name.
    pub operation: Arc<str>,
}

/// A span.
#[derive(Clone, Debug, PartialEq)]
pub struct Span<'a> {
    /// The call chain.
    pub trace_id: [u64; 2],
    /// This span.
    pub span_id: [u64; 2],
    /// The span around it; zero for a root.
    pub parent_id: [u64; 2],
    /// Workflow and qualified function name.
    pub name: &'a ProbeName,
    /// Status.
    pub status: Status,
    /// Wall clock, nanoseconds since 1970.
    pub started_at_ns: u64,
    /// Monotonic duration, nanoseconds.
    pub duration_ns: u64,
    /// What went wrong.
    pub error_type: Option<Cow<'a, str>>,
    /// Its text, at most [`MAX_ERROR_MESSAGE`](wire::MAX_ERROR_MESSAGE) characters.
    pub error_message: Option<Cow<'a, str>>,
    /// The process.
    pub process: &'a ProcessIdentity,
    /// Thread id.
    pub tid: u32,
    /// What the span did to the process's memory.
    pub memory: Option<SpanMemory>,
    /// How it was polled, where it is a future.
    pub polls: Option<Polls>,
    /// It did not return: its process ended inside it, by `exit(0)`.
    pub ended_with_process: bool,
    /// What was read of the call.
    pub captured: Fields,
}

/// What a span did to its process's memory: on the wire `mem.rss`, `mem.rss_delta` and
/// `mem.page_faults`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanMemory {
    /// Resident size of the process at the end, bytes.
    pub rss: Option<u64>,
    /// Change of it over the span, bytes.
    pub rss_delta: Option<i64>,
    /// Page faults that the thread took itself.
    pub page_faults: u32,
}

/// How a future was polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polls {
    /// How often.
    pub count: u32,
    /// Nanoseconds in polls.
    pub busy_ns: u64,
}

/// A sample with what it is of.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct ProcessSample {
    /// The process.
    pub process: Arc<ProcessIdentity>,
    /// What the program is: `gcc 12.2.0`.
    pub runtime: String,
    /// The figures.
    pub sample: Sample,
}

/// Names of the signals that end a process (signal(7), x86-64).
pub fn signal_name(number: u32) -> Cow<'static, str> {
    const NAMES: [&str; 31] = [
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    match (number as usize)
        .checked_sub(1)
        .and_then(|index| NAMES.get(index))
    {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(format!("signal {number}")),
    }
}

#[cfg(test)]
mod tests {
    use super::signal_name;

    #[test]
    fn signals() {
        assert_eq!(signal_name(9), "SIGKILL");
        assert_eq!(signal_name(11), "SIGSEGV");
        assert_eq!(signal_name(31), "SIGSYS");
        assert_eq!(signal_name(40), "signal 40");
    }
}
