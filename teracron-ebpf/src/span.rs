//! A traced function begins and ends.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_get_attach_cookie,
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use teracron_common::{
    Age, CfaBase, Control, Counter, End, EnterCookie, ExitCookie, Frame, MAX_FRAMES, RecordKind,
    SpanRecord, StackClass, ThreadState,
    cookie::condition_holds,
    record::UNKNOWN_DELTA,
    sampling,
    thread::{FRAME_FREE, FRAME_LOST, FRAME_OPEN},
};

use crate::{
    emit,
    kernel::{count, current_ids, memory_now, now_ns, random_id, user_at},
    maps::{AHEAD, CONTROL},
    stack,
    thread::{self, NoTable, walk},
};

/// Entry of a traced function: opens a frame.
#[uprobe]
pub fn span_enter(ctx: ProbeContext) -> u32 {
    // SAFETY: the context is the one the kernel passed.
    let cookie = EnterCookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    // SAFETY: the registers are the context itself.
    let sp = unsafe { (*ctx.regs).rsp };
    let Some(control) = CONTROL.get_ptr(0) else {
        return 0;
    };
    // SAFETY: a map value, which lives as long as the program. User space may be writing it.
    let control = unsafe { &*control };
    let age = Age::of(cookie.generation, control.generation);
    if let Age::Coming = age {
        return 0;
    }
    let (tgid, tid) = current_ids();
    let state = match thread::find(tid) {
        Some(state) => state,
        None => match thread::create(tgid, tid) {
            Ok(state) => {
                stack::learn_bounds(state, tid);
                state
            }
            Err(NoTable::NotTraced) => return 0,
            Err(NoTable::Full) => {
                count(Counter::Entered);
                count(Counter::LostThreads);
                return 0;
            }
        },
    };
    let cfa = sp.wrapping_add(cookie.cfa_offset as i64 as u64);
    if let Age::Going = age
        && was_opened(state, cookie, cfa)
    {
        return 0;
    }
    enter(state, control, cookie, [sp, cfa], tid);
    0
}

/// Whether the set of probes that replaces this one has opened the call: while both are attached, each
/// hit runs both programs, the new one first (the kernel puts new consumers of a uprobe at the head of
/// its list). If it did not count yet, this one still does: no call is lost or counted twice.
#[inline(always)]
fn was_opened(state: &mut ThreadState, cookie: EnterCookie, cfa: u64) -> bool {
    if state.depth == 0 {
        return false;
    }
    let index = state.depth as usize - 1;
    let top = thread::frame(state, index);
    top.cfa == cfa && top.generation != cookie.generation
}

#[inline(always)]
fn enter(
    state: &mut ThreadState,
    control: &Control,
    cookie: EnterCookie,
    [sp, cfa]: [u64; 2],
    tid: u32,
) {
    let class = stack::classify(state, sp);
    let now = now_ns();

    // In the usual case the youngest frame is the caller, or there is none.
    let mut caller = NO_FRAME;
    let mut settled = state.depth == 0;
    if state.jump_ns == 0 && state.depth != 0 && class as u8 == StackClass::Native as u8 {
        let index = state.depth as usize - 1;
        let top = thread::frame(state, index);
        if top.class == StackClass::Native as u8 && top.cfa > cfa {
            caller = index;
            settled = true;
        }
    }
    if !settled {
        caller = settle(state, cfa, class as u64, now) as usize;
    }

    let (trace_id, parent_id, unsampled) = if caller != NO_FRAME {
        let parent = thread::frame(state, caller);
        if cookie.part && parent.record.probe == cookie.probe && parent.part == 0 {
            // The function calls the part that the compiler split off it: the same call.
            return;
        }
        (
            parent.record.trace_id,
            parent.record.span_id,
            parent.unsampled,
        )
    } else {
        let (trace_id, unsampled) = new_trace(state, control);
        (trace_id, [0; 2], unsampled)
    };

    count(Counter::Entered);
    if unsampled != 0 {
        count(Counter::Unsampled);
    }
    let return_address = if class as u8 == StackClass::Native as u8 && state.main_thread != 0 {
        0
    } else {
        user_at(cfa.wrapping_sub(8)).unwrap_or(0)
    };
    let depth = state.depth;
    if depth as usize >= MAX_FRAMES {
        if unsampled == 0 {
            count(Counter::LostFrames);
        }
        return;
    }
    let tgid = state.tgid;
    let (span_id, [rss_pages, page_faults]) = if unsampled == 0 {
        (random_id(&mut state.random), memory_now())
    } else {
        ([0; 2], [0; 2])
    };
    let frame = thread::frame(state, depth as usize);
    frame.cfa = cfa;
    frame.return_address = return_address;
    frame.state = FRAME_OPEN;
    frame.class = class as u8;
    frame.tail_calls = cookie.tail_calls as u8;
    frame.part = cookie.part as u8;
    frame.unsampled = unsampled;
    frame.generation = cookie.generation;
    frame.record = SpanRecord {
        kind: RecordKind::Span as u8,
        end: End::Open as u8,
        detail: 0,
        reserved: 0,
        probe: cookie.probe,
        tgid,
        tid,
        start_ns: now,
        end_ns: 0,
        trace_id,
        span_id,
        parent_id,
        type_len: 0,
        message_len: 0,
        rss_pages,
        rss_delta: UNKNOWN_DELTA,
        page_faults,
    };
    state.depth = depth + 1;
}

/// The id of a new trace, and whether sampling leaves it out (1 or 0): then it needs no id.
#[inline(always)]
fn new_trace(state: &mut ThreadState, control: &Control) -> ([u64; 2], u8) {
    match control.mode {
        sampling::ALL => (random_id(&mut state.random), 0),
        sampling::NONE => ([0; 2], 1),
        _ => decide(state, control),
    }
}

#[inline(always)]
fn decide(state: &mut ThreadState, control: &Control) -> ([u64; 2], u8) {
    let epoch = control.epoch;
    if state.ahead.epoch != epoch {
        // Nothing decided, or for another rate.
        state.ahead.epoch = 0;
        if let Ok(Some(ahead)) = AHEAD.pop() {
            count(Counter::AheadTaken);
            state.ahead = ahead;
        }
        if state.ahead.epoch != epoch {
            state.ahead.epoch = 0;
            let trace_id = random_id(&mut state.random);
            let left_out = hash(trace_id[0], trace_id[1]) > control.threshold;
            return (trace_id, left_out as u8);
        }
    }
    let skip = state.ahead.skip;
    if skip == 0 {
        state.ahead.epoch = 0;
        return (state.ahead.id, 0);
    }
    state.ahead.skip = skip - 1;
    if skip == 1 && state.ahead.id[0] | state.ahead.id[1] == 0 {
        state.ahead.epoch = 0;
    }
    ([0; 2], 1)
}

/// [`sampling::hash`], once in the object.
#[inline(never)]
fn hash(high: u64, low: u64) -> u64 {
    sampling::hash([high, low])
}

/// "No place in the frame table".
const NO_FRAME: usize = MAX_FRAMES;

/// Ends the frames that are certainly gone, seen from a function that begins at `cfa`. Answers
/// the place of the frame that encloses it, or [`NO_FRAME`] where there is none.
#[inline(never)]
fn settle(state: &mut ThreadState, cfa: u64, class: u64, now: u64) -> u64 {
    let view = View::take(state, class as u8, cfa, now);
    thread::start_walk(state);
    for _ in 0..MAX_FRAMES {
        let Some(index) = thread::step(state) else {
            break;
        };
        let frame = thread::frame(state, index);
        if frame.state != FRAME_OPEN {
            continue;
        }
        let replaced = frame.cfa == cfa && frame.tail_calls == 0;
        if view.end_if_gone(frame, replaced) {
            walk!(state, marked = 1);
            continue;
        }
        // Alive. On the same stack it is the caller; the youngest frame on another is the next
        // best: the one that a signal interrupted, or that switched to this stack. A fiber's
        // frames are nobody's callers but on that fiber, or in a handler that interrupted it.
        if frame.class == view.class
            && (view.class != StackClass::Other as u8 || frame.cfa - cfa < stack::NEAR * 2)
        {
            walk!(state, found = index as u32 + 1);
            break;
        }
        let suspended =
            frame.class == StackClass::Other as u8 && view.class != StackClass::Signal as u8;
        if !suspended && walk!(state, second) == 0 {
            walk!(state, second = index as u32 + 1);
        }
    }
    let (found, second) = (walk!(state, found), walk!(state, second));
    if walk!(state, marked) != 0 {
        thread::flush::<false>(state);
    }
    let caller = if found != 0 { found } else { second };
    if caller == 0 {
        NO_FRAME as u64
    } else {
        caller as u64 - 1
    }
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
    /// Takes the pending `longjmp` with it.
    #[inline(always)]
    fn take(state: &mut ThreadState, class: u8, cfa: u64, now: u64) -> Self {
        let view = Self {
            main_thread: state.main_thread != 0,
            class,
            cfa,
            now,
            jump_ns: state.jump_ns,
            jump_sp: state.jump_sp,
        };
        state.jump_ns = 0;
        view
    }

    /// Marks `frame` if it is gone. `replaced`: another frame has its place.
    #[inline(always)]
    fn end_if_gone(&self, frame: &mut Frame, replaced: bool) -> bool {
        if self.jump_ns != 0 && frame.cfa > self.jump_sp && (frame.cfa < self.cfa || replaced) {
            thread::mark(frame, End::LongJump, self.jump_ns);
        } else if replaced || stack::is_dead(self.main_thread, frame, self.class, self.cfa) {
            if frame.class == StackClass::Other as u8 && self.class != frame.class {
                // A fiber, which may have gone on in another thread.
                frame.state = thread::left(frame, FRAME_LOST);
            } else {
                thread::mark(frame, End::Unwound, self.now);
            }
        } else {
            return false;
        }
        true
    }
}

/// A way out of a traced function: ends its frame.
#[uprobe]
pub fn span_exit(ctx: ProbeContext) -> u32 {
    // SAFETY: the context is the one the kernel passed.
    let cookie = ExitCookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    // SAFETY: the registers are the context itself.
    let (sp, bp, flags) = unsafe { ((*ctx.regs).rsp, (*ctx.regs).rbp, (*ctx.regs).eflags) };
    if let Some(condition) = cookie.condition
        && !condition_holds(condition, flags)
    {
        return 0;
    }
    let base = match cookie.base {
        CfaBase::Rsp => sp,
        CfaBase::Rbp => bp,
    };
    exit(
        cookie,
        base.wrapping_add(cookie.cfa_offset as i64 as u64),
        sp,
    );
    0
}

/// A return probe: the function has returned, the stack pointer is the frame address.
#[uretprobe]
pub fn span_return(ctx: RetProbeContext) -> u32 {
    // SAFETY: the context is the one the kernel passed.
    let cookie = ExitCookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    // SAFETY: the registers are the context itself.
    let sp = unsafe { (*ctx.regs).rsp };
    exit(cookie, sp, sp);
    0
}

#[inline(always)]
fn exit(cookie: ExitCookie, cfa: u64, sp: u64) {
    let (_, tid) = current_ids();
    let Some(state) = thread::find(tid) else {
        return;
    };
    if state.depth == 0 {
        return;
    }
    let now = now_ns();
    // In the usual case the youngest frame ends, and no other with it.
    let index = state.depth as usize - 1;
    let usual = {
        let top = thread::frame(state, index);
        top.cfa == cfa && top.record.probe == cookie.probe
    };
    if usual && state.jump_ns == 0 {
        let alone = index == 0 || {
            let below = thread::frame(state, index - 1);
            below.state == FRAME_OPEN && below.cfa != cfa
        };
        if alone {
            let top = thread::frame(state, index);
            thread::mark(top, End::Returned, now);
            top.state = FRAME_FREE;
            if top.unsampled == 0 {
                thread::account_memory(&mut top.record, memory_now());
                emit::send(&top.record);
            }
            state.depth = index as u32;
            return;
        }
    }
    let class = stack::classify(state, sp);
    exit_slow(state, cookie.probe as u64 | (class as u64) << 32, cfa, now);
}

/// The ending frame is not the youngest: frames above it are gone, on another stack, or were never
/// seen; or frames below it end with it.
#[inline(never)]
fn exit_slow(state: &mut ThreadState, what: u64, cfa: u64, now: u64) -> u32 {
    let probe = what as u32;
    let view = View::take(state, (what >> 32) as u8, cfa, now);
    thread::start_walk(state);
    for _ in 0..MAX_FRAMES {
        let Some(index) = thread::step(state) else {
            break;
        };
        let returned = walk!(state, found) != 0;
        let frame = thread::frame(state, index);
        if frame.state != FRAME_OPEN {
            continue;
        }
        // What may end by a jump to another probed function has ended with that: also where the other
        // one's beginning did not count, because its probe is new.
        if frame.cfa == cfa && (frame.record.probe == probe || frame.tail_calls != 0) {
            thread::mark(frame, End::Returned, now);
            walk!(state, found = 1);
            walk!(state, marked = 1);
        } else if returned {
            if frame.class == view.class {
                break;
            }
        } else if view.end_if_gone(frame, false) {
            walk!(state, marked = 1);
        } else if frame.class == view.class
            && view.class != StackClass::Other as u8
            && frame.cfa > cfa
        {
            break;
        }
    }
    if walk!(state, marked) != 0 {
        thread::flush::<false>(state);
    }
    0
}
