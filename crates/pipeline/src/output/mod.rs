//! Where spans go: the contract of every sink, and the two that show them, on a terminal or as JSON lines.
//!
//! **Invariant**: received = delivered + waiting + dropped by cause, per sink ([`Sink::books`]).

mod console;
mod json;
mod losses;
mod queue;
mod status;
mod stdout;
mod summary;
mod unseen;

use std::io;

use teracron_common::Counters;

pub use console::Console;
pub use json::Json;
pub use queue::{Lines, Queue};
pub use status::StatusLine;
pub use stdout::{is_closed_pipe, print_line};
pub use summary::{CallCost, Summary, summary_line};
pub use unseen::{Gap, Unseen};

use model::{ProcessSample, Span, totals::KindTotals};

/// How spans are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputMode {
    /// Trees for people.
    Console,
    /// One object per line.
    Json,
    /// Nothing.
    None,
}

/// When colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorMode {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Calls of a function that were counted at the places where it was inlined.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct InlinedCalls {
    /// The probe's workflow.
    pub workflow: String,
    /// The function.
    pub operation: String,
    /// Calls so far.
    pub calls: u64,
}

/// A traced process that died by a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// The process.
    pub pid: u32,
    /// Its name, escaped; empty where it is not known.
    pub comm: String,
    /// The signal's name.
    pub signal: String,
    /// The instruction; known where the process died of something that it did.
    pub address: Option<u64>,
    /// Name of the file that was mapped there, escaped.
    pub module: Option<String>,
    /// Offset in that file.
    pub offset: Option<u64>,
    /// The probed function that begins nearest before.
    pub function: Option<String>,
    /// The agent's breakpoints may have been the cause.
    pub suspected: bool,
}

/// Where spans go, and what else is told beside them. It makes nobody wait: what it has no room for is dropped, and
/// counted.
pub trait Sink {
    /// What it is called in a status and in the last line.
    fn name(&self) -> &'static str;
    /// What became of the spans that it was given.
    fn books(&self) -> KindTotals;
    /// A span has ended (or was open at the end).
    ///
    /// # Errors
    /// Where nothing more can be delivered; so do the others.
    fn span(&mut self, span: &Span<'_>) -> io::Result<()>;
    /// A process's memory was sampled.
    fn memory(&mut self, _: &ProcessSample) -> io::Result<()> {
        Ok(())
    }
    /// Calls were lost since the last report; the counters are totals.
    fn loss(&mut self, _: &Counters) -> io::Result<()> {
        Ok(())
    }
    /// Calls were counted where functions were inlined; totals, told at the end.
    fn inlined(&mut self, _: &[InlinedCalls]) -> io::Result<()> {
        Ok(())
    }
    /// A process died by a signal.
    fn death(&mut self, _: &Death) -> io::Result<()> {
        Ok(())
    }
    /// Calls of new processes that nobody saw; totals, told at the end.
    fn unseen(&mut self, _: &Unseen) -> io::Result<()> {
        Ok(())
    }
    /// All that was read by now has been handed over.
    fn flush(&mut self) -> io::Result<()>;
    /// No more spans will come.
    fn finish(&mut self) -> io::Result<()> {
        self.flush()
    }
    /// Traces that were not shown because there were too many.
    fn hidden(&self) -> u64 {
        0
    }
}
