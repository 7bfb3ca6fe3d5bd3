//! What the kernel side puts into the ring buffers: one record per finished span, and one per
//! change of a process.

use crate::{PlanId, ProbeId};

/// Bytes of an exception's (mangled) type name that are kept, with the closing NUL.
pub const TYPE_NAME_BYTES: usize = 256;
/// Bytes of an exception's text that are kept, with the closing NUL. The wire allows 1024
/// characters (wire.md, `error_message`).
pub const MESSAGE_BYTES: usize = 1025;

/// Room for both: a power of two, so that the verifier can be shown the bound by a mask.
pub const TEXT_BYTES: usize = 2048;

/// The first field of every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RecordKind {
    /// A [`SpanRecord`] without text.
    Span = 1,
    /// A [`SpanRecord`] followed by a type name and a message.
    SpanWithText = 2,
    /// A [`ProcessRecord`].
    Process = 3,
    /// A [`CaptureRecord`] followed by items.
    Capture = 4,
    /// A [`FutureRecord`](crate::FutureRecord).
    Future = 5,
}

/// How a span ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum End {
    /// The function returned, or ended in a tail call.
    Returned = 0,
    /// An exception went through the frame; type and message follow where they could be read.
    Exception = 1,
    /// `longjmp` left the frame.
    LongJump = 2,
    /// The thread ended (`pthread_exit`, `pthread_cancel`, or its main function).
    ThreadExited = 3,
    /// The process ended by `exit`: what it was given is in `detail`.
    ProcessExited = 4,
    /// The process died of a signal: its number is in `detail`.
    Signal = 5,
    /// The process replaced itself by another program.
    Exec = 6,
    /// The frame was gone when the thread was next seen, and nothing told how.
    Unwound = 7,
    /// Still running when the agent stopped (made by user space only).
    Open = 8,
    /// The function returned what the user calls a failure.
    Rule = 9,
    /// A future was dropped while it waited.
    Cancelled = 10,
}

impl End {
    /// Reads the number of a record.
    pub const fn from_u32(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Returned,
            1 => Self::Exception,
            2 => Self::LongJump,
            3 => Self::ThreadExited,
            4 => Self::ProcessExited,
            5 => Self::Signal,
            6 => Self::Exec,
            7 => Self::Unwound,
            8 => Self::Open,
            9 => Self::Rule,
            10 => Self::Cancelled,
            _ => return None,
        })
    }
}

/// [`SpanRecord::rss_delta`]: not known.
pub const UNKNOWN_DELTA: i32 = i32::MIN;

/// [`SpanRecord::detail`]: it was a goroutine that ended, not a thread.
pub const DETAIL_GOROUTINE: u8 = 1;

/// A finished span. Times are `CLOCK_MONOTONIC`, in nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanRecord {
    /// A [`RecordKind`].
    pub kind: u8,
    /// An [`End`].
    pub end: u8,
    /// The signal's number where `end` says so; [`DETAIL_GOROUTINE`] for what Go's runtime did.
    pub detail: u8,
    /// 1 while a future's poll runs: then `end_ns` is the future's address.
    pub future: u8,
    /// The probe.
    pub probe: ProbeId,
    /// Process id, in the initial pid namespace.
    pub tgid: u32,
    /// Thread id, in the initial pid namespace.
    pub tid: u32,
    /// When the call was seen.
    pub start_ns: u64,
    /// When its end was seen.
    pub end_ns: u64,
    /// Id of the call chain.
    pub trace_id: [u64; 2],
    /// Id of this span.
    pub span_id: [u64; 2],
    /// Id of the span around it; zero for a root.
    pub parent_id: [u64; 2],
    /// Bytes of type name after the record, without NUL.
    pub type_len: u16,
    /// Bytes of message after the type name, without NUL.
    pub message_len: u16,
    /// The process's resident pages at the end, 0 where not known; while the frame is open, at its
    /// beginning.
    pub rss_pages: u32,
    /// Change of these over the span; [`UNKNOWN_DELTA`] where not known.
    pub rss_delta: i32,
    /// Page faults that the thread took during the span; while the frame is open, before it.
    pub page_faults: u32,
}

impl SpanRecord {
    /// Bytes of the record.
    pub const SIZE: usize = size_of::<Self>();

    /// The record as it lies on the ring.
    #[cfg(feature = "user")]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: plain data without padding.
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast::<u8>(), Self::SIZE) }
    }
}

/// A span record with the text of a failure: the layout in kernel memory. On the ring only the
/// used part of `text` follows the record.
#[repr(C)]
pub struct FailureText {
    /// The record.
    pub record: SpanRecord,
    /// Type name, then message, without gap.
    pub text: [u8; TEXT_BYTES],
}

/// What a capture plan read at a site; sent before the record of the span that it belongs to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureRecord {
    /// [`RecordKind::Capture`].
    pub kind: u32,
    /// Which plan: it tells what the items' keys stand for.
    pub plan: PlanId,
    /// The span.
    pub span_id: [u64; 2],
    /// Bytes of items that follow.
    pub len: u32,
    /// Keeps the size a multiple of 8.
    pub reserved: u32,
}

impl CaptureRecord {
    /// Bytes of the record.
    pub const SIZE: usize = size_of::<Self>();
}

/// Where a thread's captures are made: the machine that runs plans, and the record in the making.
#[repr(C)]
pub struct CaptureState {
    /// See [`plan::PLACES`](crate::plan::PLACES).
    pub places: [u64; crate::plan::PLACES],
    /// The value.
    pub value: u64,
    /// The next step.
    pub step: u32,
    /// Bytes of items so far.
    pub used: u32,
    /// Whether a step said that the call has failed.
    pub failed: u32,
    /// Items that are missing.
    pub missing: u32,
    /// See [`plan::PLACE_KEPT`](crate::plan::PLACE_KEPT), by the frame's place.
    pub kept: [u64; crate::MAX_FRAMES],
    /// The record.
    pub record: CaptureRecord,
    /// Its items; behind the last that begins within the room, a whole one fits.
    pub items: [u8; crate::plan::ROOM + crate::plan::MAX_TEXT + 16],
}

/// What happened to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ProcessEvent {
    /// A traced process forked; `other` is the child.
    Fork = 1,
    /// A traced process, or one that is traced from now on, runs a new program; `other` is the id that
    /// the calling thread had until then (its leader's where that called).
    Exec = 2,
    /// The last thread of a traced process ended; `other` is the exit code as `wait` reports it.
    Exit = 3,
    /// A traced process has loaded or unloaded a library, or is about to.
    Mapped = 4,
    /// A thread of a traced process (`other`) gets a signal that ends the process with a core dump, if
    /// nothing holds it up: the head of a [`DyingRecord`].
    Dying = 5,
    /// A thread of a traced process (`other`) has ended that probes are tied to, or that is the main one, while others go
    /// on.
    ThreadEnded = 6,
}

/// A change of a traced process.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessRecord {
    /// [`RecordKind::Process`].
    pub kind: u32,
    /// A [`ProcessEvent`].
    pub event: u32,
    /// Process id.
    pub tgid: u32,
    /// See [`ProcessEvent`].
    pub other: u32,
    /// When it happened: `CLOCK_MONOTONIC`, in nanoseconds.
    pub at_ns: u64,
}

/// Signals whose default action is a core dump (signal(7)), a bit each: those that say something of the
/// place at which a process dies. Whatever else kills reaches a thread as SIGKILL (`complete_signal` of
/// the kernel); which it was is in the exit code.
pub const CORE_SIGNALS: u32 = {
    // SIGQUIT, ILL, TRAP, ABRT, BUS, FPE, SEGV, XCPU, XFSZ, SYS.
    let numbers = [3, 4, 5, 6, 7, 8, 11, 24, 25, 31];
    let (mut bits, mut place) = (0u32, 0);
    while place < numbers.len() {
        bits |= 1 << numbers[place];
        place += 1;
    }
    bits
};

/// A thread gets a signal that ends its process.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DyingRecord {
    /// With [`ProcessEvent::Dying`].
    pub process: ProcessRecord,
    /// The signal.
    pub signal: u32,
    /// `si_code`: above zero where the kernel sends the signal, because of what the thread did.
    pub code: i32,
    /// The thread's instruction pointer; 0 where it is not known.
    pub ip: u64,
    /// `si_addr` where `code` is above zero, else the sender's process id and user id (`si_pid`, `si_uid`).
    pub detail: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_have_no_padding() {
        const { assert!(TYPE_NAME_BYTES + MESSAGE_BYTES <= TEXT_BYTES) };
        assert_eq!(SpanRecord::SIZE, 4 * 4 + 2 * 8 + 3 * 16 + 2 * 2 + 3 * 4);
        assert_eq!(size_of::<FailureText>() % 8, 0);
        assert_eq!(size_of::<ProcessRecord>(), 4 * 4 + 8);
        assert_eq!(size_of::<DyingRecord>(), 24 + 2 * 4 + 2 * 8);
        assert_eq!(CaptureRecord::SIZE, 2 * 4 + 16 + 2 * 4);
        assert!(size_of::<CaptureState>() + 64 <= 8192);
    }

    #[test]
    fn ends_round_trip() {
        for number in 0..11 {
            assert_eq!(End::from_u32(number).map(|end| end as u32), Some(number));
        }
        assert_eq!(End::from_u32(11), None);
    }
}
