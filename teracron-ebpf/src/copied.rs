//! Threads whose stack is copied away and back: greenlets.
//!
//! A greenlet that does not run has its piece of the thread's own stack on the heap, and other calls lie at the
//! same addresses meanwhile. So an address below the stack pointer says nothing, nor does one that is used again.
//! Here a frame is known by its address, its return address and the registers that a function gives back to its
//! caller as it got them (System V ABI, 3.2.1): they hold what the caller works on, which differs between
//! greenlets. A frame ends when a call ends with all of them the same. Where two are the same nobody can tell
//! which one it is, and their ends are counted as lost. Whose caller a frame is can't be known either: calls
//! have no parents here.

use aya_ebpf::bindings::pt_regs;
use teracron_common::{
    Control, End, StackClass, ThreadState,
    thread::{FRAME_LOST, FRAME_OPEN, STACK_COPIED},
};

use crate::{
    kernel::user_at,
    maps::TARGETS,
    thread::{self, Seek, walk},
};

/// Learns whether the thread's stack is copied, where that may have changed, and how this call is known.
#[inline(always)]
pub fn begins(state: &mut ThreadState, control: &Control, regs: *const pt_regs, cfa: u64) {
    if state.copies_epoch != control.copies_epoch {
        state.copies_epoch = control.copies_epoch;
        // SAFETY: a map value; user space writes whole words.
        let flags = TARGETS
            .get_ptr(state.tgid)
            .map_or(0, |flags| unsafe { *flags });
        state.copies = flags & STACK_COPIED;
    }
    ends(state, regs, cfa);
}

/// How the call that ends is known.
#[inline(always)]
pub fn ends(state: &mut ThreadState, regs: *const pt_regs, cfa: u64) {
    if state.copies != 0 {
        // SAFETY: the registers are the context itself.
        let regs = unsafe { &*regs };
        let mut hash = user_at::<u64>(cfa.wrapping_sub(8)).unwrap_or(0);
        for word in [regs.rbx, regs.r12, regs.r13, regs.r14, regs.r15] {
            // The constant of splitmix64 (Steele, Lea, Flood, 2014).
            hash = (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        state.around = hash | 1;
    }
}

/// Ends the call at `cfa`. `what`: see `span::exit`.
#[inline(never)]
pub fn exit(state: &mut ThreadState, what: u64, cfa: u64, now: u64) -> u32 {
    let mut seek = Seek {
        cfa,
        now,
        what,
        low: state.around,
        jump_ns: 0,
    };
    thread::each_frame(state, seek, count_one);
    let same = walk!(state, second);
    if same == 0 {
        return 0;
    }
    // More than one: whose end this is can't be known.
    seek.jump_ns = (same > 1) as u64;
    thread::each_frame(state, seek, end_one);
    thread::flush::<false>(state);
    0
}

#[inline(never)]
extern "C" fn count_one(_: u64, table: thread::Table) -> u64 {
    let Some((state, index)) = thread::step(table) else {
        return thread::END;
    };
    let (cfa, around) = (walk!(state, cfa), walk!(state, low));
    let probe = (walk!(state, what) >> 32) as u32;
    let frame = thread::frame(state, index);
    if frame.state == FRAME_OPEN
        && frame.cfa == cfa
        && frame.return_address == around
        && frame.record.probe == probe
    {
        let same = walk!(state, second);
        walk!(state, second = same + 1);
    }
    thread::NEXT
}

#[inline(never)]
extern "C" fn end_one(_: u64, table: thread::Table) -> u64 {
    let Some((state, index)) = thread::step(table) else {
        return thread::END;
    };
    let (cfa, around) = (walk!(state, cfa), walk!(state, low));
    let (what, now, unclear) = (
        walk!(state, what),
        walk!(state, now),
        walk!(state, jump_ns) != 0,
    );
    let frame = thread::frame(state, index);
    let own = frame.record.probe == (what >> 32) as u32;
    if frame.state == FRAME_OPEN
        && frame.cfa == cfa
        && frame.return_address == around
        && (own || frame.tail_calls != 0)
    {
        let end = if own {
            (what >> 8) as u8
        } else {
            End::Returned as u8
        };
        thread::mark_as(frame, end, now);
        if unclear {
            frame.state = thread::left(frame, FRAME_LOST);
        }
    }
    thread::NEXT
}

/// Makes room in a full table: the oldest call may never end.
#[inline(never)]
pub fn make_room(state: &mut ThreadState) -> u32 {
    let oldest = thread::frame(state, 0);
    if oldest.state == FRAME_OPEN && oldest.class == StackClass::Native as u8 {
        oldest.state = thread::left(oldest, FRAME_LOST);
    }
    thread::flush::<false>(state);
    0
}
