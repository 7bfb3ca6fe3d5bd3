//! The programs of the kernel side that can sit on a site. What each is called, loaded with and does stands in the table
//! of the tracer (`tracer/kernel/programs.rs`).

use serde::{Deserialize, Serialize};

/// A program of the kernel side that can sit on a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Program {
    /// A call ends; attached before entries, so that none is seen that can't end.
    SpanExit,
    /// A call returns, by return probe.
    SpanReturn,
    /// A call ends, and its result is looked at.
    CaptureExit,
    /// The same by return probe.
    CaptureReturn,
    /// A call of a Go function ends.
    GoExit,
    /// A poll of a Rust future ends.
    FutureExit,
    /// A Rust future is dropped.
    FutureDrop,
    /// An exception starts.
    UnwindRaise,
    /// The unwinder lands.
    UnwindLand,
    /// A handler begins, where landings can't be seen.
    UnwindCatch,
    /// A library is loaded.
    LibraryLoaded,
    /// `longjmp`.
    LongJump,
    /// A Go panic starts.
    GoPanic,
    /// A Go panic was recovered.
    GoRecover,
    /// A goroutine ends from within.
    GoGoexit,
    /// A goroutine has been made.
    GoStarted,
    /// A goroutine is about to be made.
    GoStarting,
    /// A call at a place where a function was inlined.
    InlineCount,
    /// A call begins, and arguments are looked at.
    CaptureEnter,
    /// A call of a Go function begins.
    GoEnter,
    /// A poll of a Rust future has begun, and arguments are looked at: attached before
    /// [`FutureEnter`](Self::FutureEnter), so that it runs after it.
    FutureCapture,
    /// A poll of a Rust future begins.
    FutureEnter,
    /// A call begins.
    SpanEnter,
    /// Nothing: it keeps breakpoints where a main thread has ended.
    Hold,
}
