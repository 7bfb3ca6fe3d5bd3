//! Which frames a hit ends besides its own, which one encloses it, and which one is its call's.

use teracron_common::{
    End, Frame, MAX_FRAMES, ProbeId, StackClass, ThreadState, Walk, thread::FRAME_OPEN,
};

use crate::{
    copied,
    kernel::{END, NEXT},
    stack,
    thread::{self, walk},
};

/// In a walk: nobody can be told to be the caller.
const NOBODY: u32 = u32::MAX;

/// "No place in the frame table".
pub const NO_FRAME: usize = MAX_FRAMES;

/// Ends the frames that are certainly gone, seen from a function that begins at `cfa`. Answers
/// the place of the frame that encloses it, or [`NO_FRAME`] where there is none.
#[inline(never)]
pub fn settle(state: &mut ThreadState, cfa: u64, class: u64, now: u64) -> u64 {
    let walk = take_jump(state, cfa, now, class);
    thread::each_frame(state, walk, settle_one);
    let (found, second) = (walk!(state, found), walk!(state, second));
    if walk!(state, marked) != 0 {
        thread::flush::<false>(state);
    }
    let caller = if found != 0 { found } else { second };
    if caller == 0 || caller == NOBODY {
        NO_FRAME as u64
    } else {
        caller as u64 - 1
    }
}

#[inline(never)]
extern "C" fn settle_one(_: u64, table: thread::Table) -> u64 {
    let Some((state, index)) = thread::step(table) else {
        return END;
    };
    let view = View::of(state);
    let frame = thread::frame(state, index);
    if frame.state != FRAME_OPEN {
        return NEXT;
    }
    let replaced = frame.cfa == view.cfa && frame.tail_calls == 0;
    if view.end_if_gone(frame, replaced) {
        walk!(state, marked = 1);
        return NEXT;
    }
    // Alive. On the same stack it is the caller; the youngest frame on another is the next
    // best: the one that a signal interrupted, or that switched to this stack. A fiber's
    // frames are nobody's callers but on that fiber, or in a handler that interrupted it.
    if frame.class == view.class
        && (view.class != StackClass::Other as u8 || frame.cfa - view.cfa < stack::NEAR / 2)
    {
        walk!(state, found = index as u32 + 1);
        return END;
    }
    // Which of several stacks a handler on its own interrupted is not known.
    if frame.class == StackClass::Other as u8 {
        if view.class == StackClass::Signal as u8 {
            walk!(state, second = NOBODY);
        }
    } else if walk!(state, second) == 0 {
        walk!(state, second = index as u32 + 1);
    }
    NEXT
}

/// What a walk over the frames has to know; takes the pending `longjmp` with it. `what`: the stack's
/// class in its lowest byte.
#[inline(always)]
fn take_jump(state: &mut ThreadState, cfa: u64, now: u64, what: u64) -> Walk {
    let walk = Walk {
        cfa,
        now,
        what,
        low: state.jump_sp,
        jump_ns: state.jump_ns,
        ..Walk::PLAIN
    };
    state.jump_ns = 0;
    walk
}

/// What a hit knows that decides which frames are gone.
struct View {
    main_thread: bool,
    class: u8,
    cfa: u64,
    now: u64,
    jump_ns: u64,
    jump_sp: u64,
}

impl View {
    /// As [`take_jump`] has written it down.
    #[inline(always)]
    fn of(state: &ThreadState) -> Self {
        Self {
            main_thread: state.main_thread != 0,
            class: walk!(state, what) as u8,
            cfa: walk!(state, cfa),
            now: walk!(state, now),
            jump_ns: walk!(state, jump_ns),
            jump_sp: walk!(state, low),
        }
    }

    /// Marks `frame` if it is gone. `replaced`: another frame has its place.
    #[inline(always)]
    fn end_if_gone(&self, frame: &mut Frame, replaced: bool) -> bool {
        // What jumps from one stack to another, as coroutines do, says nothing about frames between.
        if self.jump_ns != 0
            && frame.class == StackClass::Native as u8
            && self.class == frame.class
            && frame.cfa > self.jump_sp
            && (frame.cfa < self.cfa || replaced)
        {
            thread::mark(frame, End::LongJump, self.jump_ns);
        } else if replaced || stack::is_dead(self.main_thread, frame, self.class, self.cfa) {
            if frame.class == StackClass::Other as u8 {
                // A fiber, which may have gone on in another thread.
                thread::lose(frame);
            } else {
                thread::mark(frame, End::Unwound, self.now);
            }
        } else {
            return false;
        }
        true
    }
}

/// The place of the open frame of a call, or [`NO_FRAME`].
#[inline(never)]
pub fn find_frame(state: &mut ThreadState, cfa: u64, probe: u64) -> u64 {
    if state.copies != 0 {
        return copied::find(state, cfa, probe);
    }
    let depth = state.depth as usize;
    if depth == 0 {
        return NO_FRAME as u64;
    }
    // In the usual case it is the youngest. Above it may be what jumped to it as its tail, what was left in a way that
    // nothing told, and other fibers' calls.
    let top = thread::frame(state, depth - 1);
    if top.state == FRAME_OPEN && top.cfa == cfa && top.record.probe.0 == probe as u32 {
        return depth as u64 - 1;
    }
    let walk = Walk {
        cfa,
        what: probe,
        ..Walk::PLAIN
    };
    thread::each_frame(state, walk, look_for_frame);
    match walk!(state, found) {
        0 => NO_FRAME as u64,
        found => found as u64 - 1,
    }
}

#[inline(never)]
extern "C" fn look_for_frame(_: u64, table: thread::Table) -> u64 {
    let Some((state, index)) = thread::step(table) else {
        return END;
    };
    let (cfa, probe) = (walk!(state, cfa), walk!(state, what));
    let frame = thread::frame(state, index);
    if frame.state == FRAME_OPEN && frame.cfa == cfa && frame.record.probe.0 == probe as u32 {
        walk!(state, found = index as u32 + 1);
        return END;
    }
    NEXT
}

/// In place of an [`End`]: the call that ends is another thread's, what this one has at its address is an older one that
/// has gone on elsewhere.
pub const GONE_ON: u8 = u8::MAX;

/// The ending frame is not the youngest: frames above it are gone, on another stack, or were never
/// seen; or frames below it end with it.
#[inline(never)]
pub fn exit_slow(state: &mut ThreadState, what: u64, cfa: u64, now: u64) -> u32 {
    let walk = take_jump(state, cfa, now, what);
    thread::each_frame(state, walk, exit_one);
    if walk!(state, marked) != 0 {
        thread::flush::<false>(state);
        thread::tidy(state);
    }
    0
}

#[inline(never)]
extern "C" fn exit_one(_: u64, table: thread::Table) -> u64 {
    let Some((state, index)) = thread::step(table) else {
        return END;
    };
    let view = View::of(state);
    let what = walk!(state, what);
    let (end, probe) = ((what >> 8) as u8, ProbeId((what >> 32) as u32));
    let returned = walk!(state, found) != 0;
    let frame = thread::frame(state, index);
    if frame.state != FRAME_OPEN {
        return NEXT;
    }
    let cfa = view.cfa;
    // What may end by a jump to another probed function has ended with that: also where the other
    // one's beginning did not count, because its probe is new.
    if frame.cfa == cfa && (frame.record.probe == probe || frame.tail_calls != 0) {
        thread::mark(frame, End::Returned, view.now);
        if frame.record.probe == probe {
            frame.record.end = end;
        }
        if end == GONE_ON {
            thread::lose(frame);
        }
        walk!(state, found = 1);
        walk!(state, marked = 1);
    } else if returned {
        if frame.class == view.class {
            return END;
        }
    } else if frame.cfa < cfa && cfa - frame.cfa < 8 {
        // A block of the function that returns.
        thread::mark(frame, End::Returned, view.now);
        walk!(state, marked = 1);
    } else if view.end_if_gone(frame, false) {
        walk!(state, marked = 1);
    } else if frame.class == view.class && view.class != StackClass::Other as u8 && frame.cfa > cfa
    {
        return END;
    }
    NEXT
}
