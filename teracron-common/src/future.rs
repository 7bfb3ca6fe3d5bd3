//! Rust's futures that have begun and not ended: what the kernel side remembers of them between polls.
//!
//! A call of an `async fn` is a state machine that is polled; one byte of it says where it stands (rustc's
//! coroutine layout: 0 not begun, 1 returned, 2 panicked, from 3 on waiting).

use crate::{PlanId, ProbeId, SpanRecord};

/// The state byte: the first poll comes.
pub const STATE_BEGINS: u8 = 0;
/// The state byte: it has returned, and the poll answers `Ready`.
pub const STATE_RETURNED: u8 = 1;
/// Futures that are kept at a time, and async functions of a run.
pub const MAX_FUTURES: u32 = 32_768;

/// A future: the key in the map `FUTURES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FutureKey {
    /// Where it lies; pinned from its first poll on.
    pub address: u64,
    /// Process id.
    pub tgid: u32,
    /// The probe: a future may begin where another one does that it is part of.
    pub probe: ProbeId,
}

/// What is to be known of an async function's code: the value in the map `FUTURE_SITES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FutureSite {
    /// The probe.
    pub probe: ProbeId,
    /// Offset of the state byte in the future.
    pub state_offset: u32,
    /// Whether the future's address is the second argument: the first is where a large result goes.
    pub is_second: u32,
    /// Capture plan of a first poll; [`PlanId::NONE`] where nothing is captured.
    pub entry_plan: PlanId,
    /// Capture plan of a poll that is ready; [`PlanId::NONE`] where nothing is captured.
    pub exit_plan: PlanId,
}

/// A future that has begun: the value in the map `FUTURES`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FutureState {
    /// Its span, complete but for the end. Between polls `page_faults` are those of the polls so far.
    pub record: SpanRecord,
    /// When the poll that runs began.
    pub polled_ns: u64,
    /// Nanoseconds in polls that are over.
    pub busy_ns: u64,
    /// Polls, the one that runs included.
    pub polls: u32,
    /// 1 while a poll runs: the span is a frame of its thread.
    pub polling: u8,
    /// 1 if sampling leaves its trace out.
    pub unsampled: u8,
    /// Keeps the size a multiple of 8.
    pub reserved: [u8; 2],
}

/// How a future was polled; sent before the record of its span.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FutureRecord {
    /// [`RecordKind::Future`](crate::RecordKind::Future).
    pub kind: u32,
    /// Polls.
    pub polls: u32,
    /// The span.
    pub span_id: [u64; 2],
    /// Nanoseconds in polls.
    pub busy_ns: u64,
}

impl FutureRecord {
    /// Bytes of the record.
    pub const SIZE: usize = size_of::<Self>();
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, integers only, no padding.
unsafe impl aya::Pod for FutureKey {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for FutureSite {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for FutureState {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_have_no_padding() {
        assert_eq!(size_of::<FutureKey>(), 16);
        assert_eq!(size_of::<FutureSite>(), 20);
        assert_eq!(size_of::<FutureState>(), SpanRecord::SIZE + 24);
        assert_eq!(FutureRecord::SIZE, 32);
    }
}
