//! The open frames of a thread, as the kernel side keeps them. User space reads them once, when it
//! stops, to show what was still running.

use crate::{Ahead, SpanRecord};

/// Open frames kept per thread; calls nested deeper are counted, not traced. A power of two, so
/// that the verifier can be shown the bound by a mask; and not more than the return probes that
/// the kernel keeps per thread (`MAX_URETPROBE_DEPTH` in kernel/events/uprobes.c), so that none
/// of those is lost unseen.
pub const MAX_FRAMES: usize = 64;

/// Panics of a goroutine that are kept apart, each started by a function that another one runs.
pub const MAX_PANICS: usize = 4;

/// Which stack a frame lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StackClass {
    /// The thread's own stack.
    Native = 0,
    /// The alternate signal stack.
    Signal = 1,
    /// Any other: a fiber's, a coroutine's.
    Other = 2,
}

/// [`Frame::state`]: the place is not in use; frames above it may be.
pub const FRAME_FREE: u8 = 0;
/// [`Frame::state`]: a call that has not ended.
pub const FRAME_OPEN: u8 = 1;
/// [`Frame::state`]: ended, its record is about to be sent.
pub const FRAME_ENDED: u8 = 2;
/// [`Frame::state`]: ended, and nobody can tell how; it is only counted.
pub const FRAME_LOST: u8 = 3;

/// [`Frame::doubt`]: another call was known by the same, and nobody can tell which of them has ended.
pub const DOUBT_UNCLEAR: u8 = 1;
/// [`Frame::doubt`]: it began before it was known that stacks are copied: it is known by its address alone.
pub const DOUBT_OLD: u8 = 2;

/// A flag of a target's value in the map of targets (see [`layout`](crate::layout)): its calls are traced.
pub const TRACED: u32 = 1;
/// The same: and its stacks are copied away and back (greenlets).
pub const STACK_COPIED: u32 = 2;

/// A call that has not ended: its record in the making, and where it lies.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Canonical frame address.
    pub cfa: u64,
    /// What lies at `cfa - 8`; 0 where it was not read. Where stacks are copied: made of that and of registers.
    pub return_address: u64,
    /// One of the `FRAME_*` states.
    pub state: u8,
    /// A [`StackClass`].
    pub class: u8,
    /// 1 if the function may end by a jump to another probed function.
    pub tail_calls: u8,
    /// 1 if the frame began in a split-off part (`.part.0`).
    pub part: u8,
    /// 1 if the frame's trace is left out by sampling: it is kept only for its children.
    pub unsampled: u8,
    /// Which set of probes opened it, see [`EnterCookie::generation`](crate::EnterCookie::generation).
    pub generation: u8,
    /// Where stacks are copied: how it is known ([`DOUBT_UNCLEAR`], [`DOUBT_OLD`]).
    pub doubt: u8,
    /// Keeps the record aligned.
    pub reserved: u8,
    /// What is sent when the call ends; complete but for the end.
    pub record: SpanRecord,
}

/// Where the spans of an owner belong that has no open frame: a goroutine that was started inside a span.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The trace.
    pub trace_id: [u64; 2],
    /// The span inside which it was started.
    pub parent_id: [u64; 2],
    /// 1 if there is one; else its spans are traces of their own.
    pub known: u32,
    /// 1 if sampling leaves the trace out.
    pub unsampled: u32,
}

/// A goroutine that was started inside a span whose probe wants it to belong there.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spawned {
    /// Its id: its `g` is used again for others.
    pub goid: u64,
    /// Where its spans belong.
    pub origin: Origin,
}

/// A place for a call on a stack of the program's own making.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FiberKey {
    /// Canonical frame address.
    pub cfa: u64,
    /// Process id.
    pub tgid: u64,
}

/// State of a walk over the frames of a thread, from the youngest down.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    /// The place after the one that comes next.
    pub cursor: u32,
    /// The place that was looked for, plus 1.
    pub found: u32,
    /// Second choice, plus 1.
    pub second: u32,
    /// Whether frames were marked as ended.
    pub marked: u32,
    /// The address that frames are compared with.
    pub cfa: u64,
    /// A second address: where the stretch of stack begins.
    pub low: u64,
    /// The time of what ends frames, nanoseconds.
    pub now: u64,
    /// How they end, and which: each walk has its own packing.
    pub what: u64,
    /// When `longjmp` was called and its destination could not be read; 0 otherwise.
    pub jump_ns: u64,
}

impl Walk {
    /// A walk that looks for nothing in particular; where it begins is set when it begins.
    pub const PLAIN: Self = Self {
        cursor: 0,
        found: 0,
        second: 0,
        marked: 0,
        cfa: 0,
        low: 0,
        now: 0,
        what: 0,
        jump_ns: 0,
    };
}

/// The key of a goroutine in the map of owners: never that of a thread, whose ids end at 2^22
/// (`PID_MAX_LIMIT` in include/linux/threads.h). A `g` is a heap object of over 256 bytes and lies below
/// 2^47.
#[inline(always)]
pub const fn goroutine_key(tgid: u32, g: u64) -> u64 {
    (g >> 5) << 22 | tgid as u64 & 0x3f_ffff
}

/// Whether a key is that of a goroutine of a process.
pub const fn is_goroutine_of(key: u64, tgid: u32) -> bool {
    key >= 1 << 22 && key & 0x3f_ffff == tgid as u64 & 0x3f_ffff
}

/// What a goroutine's frame addresses are counted from, upwards from its stack's end: stacks move, the
/// distance from the end does not.
pub const GOROUTINE_BASE: u64 = 1 << 46;

/// All open frames of one owner: a thread, or a goroutine.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ThreadState {
    /// Process id.
    pub tgid: u32,
    /// Places in use, from the oldest; the last one is open.
    pub depth: u32,
    /// Lowest address of the thread's own stack.
    pub stack_low: u64,
    /// End of the thread's own stack.
    pub stack_high: u64,
    /// When `longjmp` was called and its destination could not be read; 0 otherwise.
    pub jump_ns: u64,
    /// The stack pointer then.
    pub jump_sp: u64,
    /// 1 for the process's first thread, whose stack bounds are certain; and for goroutines.
    pub main_thread: u32,
    /// Go before 1.22: panics in [`panics`](Self::panics).
    pub panicking: u32,
    /// The key in the map: a thread id, or [`goroutine_key`].
    pub key: u64,
    /// The goroutine's id: its `g` is used again for others.
    pub goid: u64,
    /// Go before 1.22: type and data of panics that have not been recovered, the outermost first.
    pub panics: [[u64; 2]; MAX_PANICS],
    /// Whether the future whose poll begins goes on. It lies here for the same reason as [`walk`](Self::walk).
    pub goes_on: u64,
    /// State of the thread's random number generator.
    pub random: [u64; 2],
    /// What it was started by.
    pub origin: Origin,
    /// Not 0 where the thread's stack is copied away and back ([`STACK_COPIED`]).
    pub copies: u32,
    /// For which [`Control::copies_epoch`](crate::Control::copies_epoch) that was learned.
    pub copies_epoch: u32,
    /// There: how the call of this hit is known, besides by its address.
    pub around: u64,
    /// There: by one of 64 bits each, what calls are known by of which one was not kept or was let go: what ends so may be
    /// that one.
    pub poison: u64,
    /// Free places below open ones.
    pub holes: u32,
    /// Keeps the size a multiple of 8.
    pub reserved: u32,
    /// What the process's memory was like when the walk began: see [`SpanRecord::rss_pages`] and
    /// [`SpanRecord::page_faults`].
    pub memory: [u32; 2],
    /// What was decided about the next traces.
    pub ahead: Ahead,
    /// What a walk over the frames carries from one to the next. It lies here and not in a register,
    /// because the verifier follows registers, not map values: it then sees every step of the walk
    /// in the same state and checks it once.
    pub walk: Walk,
    /// The frames, oldest first.
    pub frames: [Frame; MAX_FRAMES],
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, integers only, no padding.
unsafe impl aya::Pod for ThreadState {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for Spawned {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_the_kernels_8k_slab_with_its_hash_element() {
        assert_eq!(size_of::<Frame>(), 24 + SpanRecord::SIZE);
        assert_eq!(size_of::<Spawned>(), 8 + 40);
        assert!(MAX_FRAMES.is_power_of_two());
        assert!(size_of::<ThreadState>() + 64 <= 8192);
    }
}
