//! The programs of the kernel side that can sit on a site.

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

/// Programs that are loaded together, because a run needs all of them or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// In every run.
    Always,
    /// Where arguments or results are looked at.
    Capture,
    /// Where Go functions are traced.
    Go,
    /// Where goroutines belong to the span that started them.
    Spawn,
    /// Where async functions of Rust are traced.
    Future,
    /// Where a main thread has ended.
    Hold,
}

impl Program {
    /// Every program, in the order of attachment.
    pub const ALL: [Self; 24] = [
        Self::SpanExit,
        Self::SpanReturn,
        Self::CaptureExit,
        Self::CaptureReturn,
        Self::GoExit,
        Self::FutureExit,
        Self::FutureDrop,
        Self::UnwindRaise,
        Self::UnwindLand,
        Self::UnwindCatch,
        Self::LibraryLoaded,
        Self::LongJump,
        Self::GoPanic,
        Self::GoRecover,
        Self::GoGoexit,
        Self::GoStarted,
        Self::GoStarting,
        Self::InlineCount,
        Self::CaptureEnter,
        Self::GoEnter,
        Self::FutureCapture,
        Self::FutureEnter,
        Self::SpanEnter,
        Self::Hold,
    ];

    /// With which others it is loaded.
    pub fn group(self) -> Group {
        match self {
            Self::CaptureEnter | Self::CaptureExit | Self::CaptureReturn => Group::Capture,
            Self::GoEnter | Self::GoExit | Self::GoPanic | Self::GoRecover | Self::GoGoexit => {
                Group::Go
            }
            Self::GoStarting | Self::GoStarted => Group::Spawn,
            Self::FutureEnter | Self::FutureCapture | Self::FutureExit | Self::FutureDrop => {
                Group::Future
            }
            Self::Hold => Group::Hold,
            _ => Group::Always,
        }
    }

    /// Whether it belongs to a set of probes; what watches unwinders and other runtimes does not.
    pub fn is_of_set(self) -> bool {
        self.is_entry() || self.is_exit() || matches!(self, Self::GoStarting | Self::GoStarted)
    }

    /// Whether it sees calls end.
    pub fn is_exit(self) -> bool {
        matches!(
            self,
            Self::SpanExit
                | Self::SpanReturn
                | Self::CaptureExit
                | Self::CaptureReturn
                | Self::GoExit
                | Self::FutureExit
                | Self::FutureDrop
        )
    }

    /// Whether it opens spans.
    pub fn opens(self) -> bool {
        self.is_entry() && self != Self::InlineCount
    }

    /// Whether it sees calls begin: its cookie is that of an entry.
    pub fn is_entry(self) -> bool {
        matches!(
            self,
            Self::SpanEnter
                | Self::InlineCount
                | Self::CaptureEnter
                | Self::GoEnter
                | Self::FutureCapture
                | Self::FutureEnter
        )
    }

    /// Whether it is attached as a return probe.
    pub fn is_return_probe(self) -> bool {
        matches!(self, Self::SpanReturn | Self::CaptureReturn)
    }

    /// Name of the program that a multi link takes for it: there a return probe is a matter of the
    /// link, and a return is a way out at which the stack pointer is the frame address.
    pub fn multi_name(self) -> &'static str {
        match self {
            Self::SpanReturn => Self::SpanExit.name(),
            Self::CaptureReturn => Self::CaptureExit.name(),
            other => other.name(),
        }
    }

    /// Its name in the eBPF object.
    pub fn name(self) -> &'static str {
        match self {
            Self::SpanExit => "span_exit",
            Self::SpanReturn => "span_return",
            Self::CaptureEnter => "capture_enter",
            Self::CaptureExit => "capture_exit",
            Self::CaptureReturn => "capture_return",
            Self::GoEnter => "go_enter",
            Self::GoExit => "go_exit",
            Self::FutureEnter => "future_enter",
            Self::FutureCapture => "future_capture",
            Self::FutureExit => "future_exit",
            Self::FutureDrop => "future_drop",
            Self::GoPanic => "go_panic",
            Self::GoRecover => "go_recover",
            Self::GoGoexit => "go_goexit",
            Self::GoStarted => "go_started",
            Self::GoStarting => "go_starting",
            Self::InlineCount => "inline_count",
            Self::UnwindRaise => "unwind_raise",
            Self::UnwindLand => "unwind_land",
            Self::UnwindCatch => "unwind_catch",
            Self::LongJump => "long_jump",
            Self::LibraryLoaded => "library_loaded",
            Self::SpanEnter => "span_enter",
            Self::Hold => "hold",
        }
    }
}
