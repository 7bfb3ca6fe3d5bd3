//! Threads whose stack is copied away and back: greenlets.
//!
//! A greenlet that does not run has its piece of the thread's own stack on the heap, and other calls lie at the
//! same addresses meanwhile. So an address below the stack pointer says nothing, nor does one that is used again.
//! Here a frame is known by its address, its return address and the registers that a function gives back to its
//! caller as it got them (System V ABI, 3.2.1): they hold what the caller works on, which differs between
//! greenlets. A frame ends when a call ends with all of them the same. Where two are the same nobody can tell
//! which one it is: one of them is counted as lost at each end, and none is told until all have ended. Whose
//! caller a frame is can't be known either: calls have no parents here.

use aya_ebpf::bindings::pt_regs;
use teracron_common::{
    Control, End, ProbeId, ThreadState, Walk,
    thread::{DOUBT_OLD, DOUBT_UNCLEAR, FRAME_OPEN, STACK_COPIED},
};

use crate::{
    arch,
    kernel::{END, NEXT, user_at},
    maps::TARGETS,
    settle::NO_FRAME,
    thread::{self, walk},
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
        if state.copies == 0 && flags & STACK_COPIED != 0 && state.depth != 0 {
            thread::each_frame(state, Walk::PLAIN, make_old);
        }
        state.copies = flags & STACK_COPIED;
    }
    ends(state, regs, cfa);
}

/// How the call that ends is known.
#[inline(always)]
pub fn ends(state: &mut ThreadState, regs: *const pt_regs, cfa: u64) {
    if state.copies != 0 {
        // SAFETY: the registers are the context itself.
        let kept = unsafe { arch::kept_by_callees(regs) };
        let mut hash = user_at::<u64>(cfa.wrapping_sub(8)).unwrap_or(0);
        for word in kept {
            // The constant of splitmix64 (Steele, Lea, Flood, 2014).
            hash = (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        state.around = hash | 1 << 6;
    }
}

#[inline(never)]
extern "C" fn make_old(_: u64, table: thread::Table) -> u64 {
    let Some((state, index)) = thread::step(table) else {
        return END;
    };
    thread::frame(state, index).doubt = DOUBT_OLD;
    NEXT
}

/// Counts the open calls that this hit's may be: afterwards the walk's `second` is their number, `found` the youngest of
/// them plus 1, `marked` not 0 where one of them is unclear already.
#[inline(always)]
fn count(state: &mut ThreadState, cfa: u64, probe: ProbeId) -> u32 {
    let walk = Walk {
        cfa,
        low: state.around,
        what: (probe.0 as u64) << 32,
        ..Walk::PLAIN
    };
    thread::each_frame(state, walk, count_one);
    walk!(state, second)
}

#[inline(never)]
extern "C" fn count_one(_: u64, table: thread::Table) -> u64 {
    let Some((state, index)) = thread::step(table) else {
        return END;
    };
    let (cfa, around) = (walk!(state, cfa), walk!(state, low));
    let probe = ProbeId((walk!(state, what) >> 32) as u32);
    let frame = thread::frame(state, index);
    if frame.state != FRAME_OPEN || frame.cfa != cfa || frame.record.probe != probe {
        return NEXT;
    }
    let doubt = frame.doubt;
    if frame.return_address == around || doubt & DOUBT_OLD != 0 {
        let same = walk!(state, second);
        walk!(state, second = same + 1);
        if same == 0 {
            walk!(state, found = index as u32 + 1);
        }
        if doubt & DOUBT_UNCLEAR != 0 {
            walk!(state, marked = 1);
        }
    }
    NEXT
}

/// Whether a call that begins in a split-off part has begun already: it was jumped to.
#[inline(never)]
pub fn has_begun(state: &mut ThreadState, cfa: u64, probe: u64) -> u64 {
    (count(state, cfa, ProbeId(probe as u32)) != 0) as u64
}

/// The place of the call that ends with this hit, or [`NO_FRAME`] where that is not certain.
#[inline(never)]
pub fn find(state: &mut ThreadState, cfa: u64, probe: u64) -> u64 {
    let same = count(state, cfa, ProbeId(probe as u32));
    if same == 1 && walk!(state, marked) == 0 && !is_poisoned(state) {
        walk!(state, found) as u64 - 1
    } else {
        NO_FRAME as u64
    }
}

#[inline(always)]
fn is_poisoned(state: &ThreadState) -> bool {
    state.poison >> (state.around & 63) & 1 != 0
}

/// A call is not kept, or let go before it ends: what is known in the same way may be that one from now on.
#[inline(always)]
pub fn poison(state: &mut ThreadState, around: u64) {
    state.poison |= 1 << (around & 63);
}

/// Ends the call at `cfa`. `what`: see `span::exit`.
#[inline(never)]
pub fn exit(state: &mut ThreadState, what: u64, cfa: u64, now: u64) -> u32 {
    let same = count(state, cfa, ProbeId((what >> 32) as u32));
    if same == 0 {
        return 0;
    }
    let unclear = same > 1 || walk!(state, marked) != 0 || is_poisoned(state);
    let walk = Walk {
        cfa,
        now,
        what,
        low: state.around,
        marked: unclear as u32,
        ..Walk::PLAIN
    };
    thread::each_frame(state, walk, end_one);
    thread::flush::<false>(state);
    thread::tidy(state);
    0
}

#[inline(never)]
extern "C" fn end_one(_: u64, table: thread::Table) -> u64 {
    let Some((state, index)) = thread::step(table) else {
        return END;
    };
    let (cfa, around) = (walk!(state, cfa), walk!(state, low));
    let (what, now) = (walk!(state, what), walk!(state, now));
    let unclear = walk!(state, marked) != 0;
    let dropped = walk!(state, found) != 0;
    let frame = thread::frame(state, index);
    let own = frame.record.probe.0 == (what >> 32) as u32;
    if frame.state != FRAME_OPEN
        || frame.cfa != cfa
        || (frame.return_address != around && frame.doubt & DOUBT_OLD == 0)
        || (!own && frame.tail_calls == 0)
    {
        return NEXT;
    }
    if !unclear {
        let end = if own {
            (what >> 8) as u8
        } else {
            End::Returned as u8
        };
        thread::mark_as(frame, end, now);
    } else if !own || !dropped {
        // One of them has ended.
        thread::lose(frame);
        if own {
            walk!(state, found = index as u32 + 1);
        }
    } else {
        frame.doubt |= DOUBT_UNCLEAR;
    }
    NEXT
}
