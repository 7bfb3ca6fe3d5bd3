//! Which stack is the thread on, and is a frame on it still alive?
//!
//! A frame whose address lies below the stack pointer is dead, but only on the same stack: a
//! signal handler, a fiber or a coroutine says nothing about frames elsewhere. The thread's own
//! stack and the alternate signal stack are known from the kernel; of any other stack only this
//! is sure: a frame is dead once its return address has been overwritten.

use teracron_common::{FiberKey, Frame, StackClass, ThreadState};

use crate::{
    kernel::{config, current_task, kernel_at, user_at},
    maps::FIBERS,
};

/// The kernel keeps at least this much address space free below a main thread's stack
/// (`MIN_GAP` in mm/util.c).
const MAIN_STACK_ROOM: u64 = 128 << 20;
/// A thread's stack where the limit says nothing (glibc's `ARCH_STACK_DEFAULT_SIZE`).
const DEFAULT_THREAD_STACK: u64 = 2 << 20;
/// Largest stack that is believed of a thread that is not the first.
const MAX_THREAD_STACK: u64 = 64 << 20;
/// Two frames closer than this are on the same stack: fibers' stacks are larger.
pub const NEAR: u64 = 16 << 10;

/// Finds the bounds of the running thread's own stack.
#[inline(never)]
pub fn learn_bounds(state: &mut ThreadState, tid: u32) -> u32 {
    let task = current_task();
    if state.tgid == tid {
        let mm: u64 = kernel_at(task, config!(task_mm)).unwrap_or(0);
        let high: u64 = kernel_at(mm, config!(mm_start_stack)).unwrap_or(0);
        state.stack_high = high;
        state.stack_low = high.saturating_sub(MAIN_STACK_ROOM);
        state.main_thread = 1;
    } else {
        // glibc and musl put a thread's control block at the top of its stack.
        let high: u64 = kernel_at(task, config!(task_fsbase)).unwrap_or(0);
        let signal: u64 = kernel_at(task, config!(task_signal)).unwrap_or(0);
        let limit: u64 = kernel_at(signal, config!(signal_stack_limit)).unwrap_or(0);
        let size = if limit == 0 || limit > MAX_THREAD_STACK {
            DEFAULT_THREAD_STACK
        } else {
            limit
        };
        state.stack_high = high;
        state.stack_low = high.saturating_sub(size);
        state.main_thread = 0;
    }
    0
}

/// The stack that `sp` lies on.
#[inline(always)]
pub fn classify(state: &ThreadState, sp: u64) -> StackClass {
    let native = sp >= state.stack_low && sp < state.stack_high;
    if native && state.main_thread != 0 {
        return StackClass::Native;
    }
    // A thread's signal stack may lie within its assumed bounds, so it is asked first.
    if let Some([start, size]) = kernel_at::<[u64; 2]>(current_task(), config!(task_sas_ss_sp))
        && size != 0
        && sp > start
        && sp - start <= size
    {
        return StackClass::Signal;
    }
    if native {
        StackClass::Native
    } else {
        StackClass::Other
    }
}

/// Whether `frame` is certainly dead, seen from a function whose frame address is `cfa` on a
/// stack of class `class`. `frame.cfa == cfa` is for the caller to judge.
#[inline(always)]
pub fn is_dead(main_thread: bool, frame: &Frame, class: u8, cfa: u64) -> bool {
    if frame.class == class && class != StackClass::Other as u8 {
        if frame.cfa >= cfa {
            return false;
        }
        if main_thread || class == StackClass::Signal as u8 || cfa - frame.cfa < NEAR {
            return true;
        }
        // The bounds of this thread's stack are a guess: ask the frame itself.
        return return_address_changed(frame);
    }
    if frame.class == StackClass::Other as u8 {
        return return_address_changed(frame);
    }
    false
}

#[inline(always)]
fn place(state: &ThreadState, cfa: u64) -> FiberKey {
    FiberKey {
        cfa,
        tgid: state.tgid as u64,
    }
}

/// A call begins on a stack of the program's own making.
#[inline(never)]
pub fn begins_in(state: &ThreadState, cfa: u64) -> u32 {
    // Where there is no room nothing is known of it.
    let _ = FIBERS.insert(place(state, cfa), &(state.key as u32), 0);
    0
}

/// Whether the last call at an address of such a stack began in another thread: then a frame that this one has there is an
/// older call's, which has gone on elsewhere.
#[inline(never)]
pub fn began_elsewhere(state: &ThreadState, cfa: u64) -> u32 {
    match FIBERS.get_ptr(place(state, cfa)) {
        // SAFETY: a map value; written as a whole word.
        Some(owner) => (unsafe { *owner } != state.key as u32) as u32,
        None => 0,
    }
}

/// Whether the place of the frame's return address holds something else by now.
#[inline(always)]
fn return_address_changed(frame: &Frame) -> bool {
    if frame.return_address == 0 {
        return false;
    }
    match user_at::<u64>(frame.cfa.wrapping_sub(8)) {
        Some(now) => now != frame.return_address,
        None => true,
    }
}
