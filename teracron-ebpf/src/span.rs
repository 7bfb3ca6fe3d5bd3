//! A traced function begins and ends.

use core::ptr::read_volatile;

use aya_ebpf::{
    EbpfContext as _,
    bindings::pt_regs,
    helpers::generated::bpf_get_attach_cookie,
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use teracron_common::{
    Age, CfaBase, Control, Counter, End, EnterCookie, ExitCookie, Frame, FutureKey, MAX_FRAMES,
    Plan, PlanId, ProbeId, RecordKind, SpanRecord, StackClass, ThreadState,
    record::UNKNOWN_DELTA,
    sampling,
    thread::{FRAME_FREE, FRAME_OPEN},
};

use crate::{
    arch, capture, copied, emit, future,
    kernel::{count, current_ids, memory_now, now_ns, random_id, user_at},
    maps::{AHEAD, CONTROL},
    settle::{GONE_ON, NO_FRAME, exit_slow, find_frame, settle},
    stack,
    thread::{self, NoTable},
};

/// Entry of a traced function: opens a frame.
#[uprobe]
pub fn span_enter(ctx: ProbeContext) -> u32 {
    // SAFETY: the context is the one the kernel passed.
    let cookie = EnterCookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    begin_in_thread(cookie, ctx.regs);
    0
}

/// The same where arguments are asked for: its cookie names a plan.
#[uprobe]
pub fn capture_enter(ctx: ProbeContext) -> u32 {
    // SAFETY: the context is the one the kernel passed.
    let mut cookie = EnterCookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    let id = cookie.id.plan();
    let Some(plan) = capture::plan(id) else {
        return 0;
    };
    cookie.id = plan.probe.at_site();
    let Some((at, frame)) = begin_in_thread(cookie, ctx.regs) else {
        return 0;
    };
    // SAFETY: the registers are the context itself.
    let sp = unsafe { arch::stack_pointer(ctx.regs) };
    let cfa = sp.wrapping_add(cookie.cfa_offset as i64 as u64);
    let tid = frame.record.tid;
    if frame.unsampled == 0 {
        capture::run(id, plan, ctx.regs, cfa, tid, at, frame.record.span_id);
    }
    0
}

/// The entry of a thread's function; answers the frame and its place.
#[inline(always)]
fn begin_in_thread(
    cookie: EnterCookie,
    regs: *const pt_regs,
) -> Option<(usize, &'static mut Frame)> {
    // SAFETY: the registers are the context itself.
    let (sp, bp) = unsafe { (arch::stack_pointer(regs), arch::frame_pointer(regs)) };
    let (control, age) = age_of(cookie)?;
    let (tgid, tid) = current_ids();
    let state = table_of(tgid, tid)?;
    let base = match cookie.base {
        CfaBase::StackPointer => sp,
        CfaBase::FramePointer => bp,
    };
    let cfa = base.wrapping_add(cookie.cfa_offset as i64 as u64);
    copied::begins(state, control, regs, cfa);
    begin(state, control, age, cookie, [sp, cfa], tid, None)
}

/// The running thread's frame table, made where there is none; `None` where it is not traced.
#[inline(always)]
pub fn table_of(tgid: u32, tid: u32) -> Option<&'static mut ThreadState> {
    if let Some(state) = thread::find(tid as u64) {
        return Some(state);
    }
    match thread::create(tgid, tid as u64) {
        Ok(state) => {
            stack::learn_bounds(state, tid);
            Some(state)
        }
        Err(NoTable::NotTraced) => None,
        Err(NoTable::Full) => {
            count(Counter::Entered);
            count(Counter::LostThreads);
            None
        }
    }
}

/// What counts now, and how the site's set of probes stands to it; `None` where it does not count yet, or no more.
#[inline(always)]
pub fn age_of(cookie: EnterCookie) -> Option<(&'static Control, Age)> {
    let control = CONTROL.get_ptr(0)?;
    // SAFETY: a map value, which lives as long as the program. User space may be writing it.
    let control = unsafe { &*control };
    match Age::of(cookie.generation, control.generation) {
        Age::Coming | Age::Over => None,
        age => Some((control, age)),
    }
}

/// Opens a frame; answers it and its place. `future`: it is that of a poll, of a future
/// that has begun before where [`ThreadState::goes_on`] says so.
#[inline(always)]
pub fn begin(
    state: &'static mut ThreadState,
    control: &Control,
    age: Age,
    cookie: EnterCookie,
    [sp, cfa]: [u64; 2],
    tid: u32,
    future: Option<&FutureKey>,
) -> Option<(usize, &'static mut Frame)> {
    if let Age::Going = age
        && was_opened(state, cookie, cfa)
    {
        return None;
    }
    enter(state, control, cookie, [sp, cfa], tid, future)
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
    state: &'static mut ThreadState,
    control: &Control,
    cookie: EnterCookie,
    [sp, cfa]: [u64; 2],
    tid: u32,
    future: Option<&FutureKey>,
) -> Option<(usize, &'static mut Frame)> {
    if cookie.block && state.depth != 0 {
        let top = thread::frame(state, state.depth as usize - 1);
        if top.cfa == cfa && top.record.probe == cookie.id.probe() {
            // A loop in the block has come back to its first statement.
            return None;
        }
    }
    let class = stack::classify(state, sp);
    let now = now_ns();
    let copied = state.copies != 0 && class as u8 == StackClass::Native as u8;

    // In the usual case the youngest frame is the caller, or there is none.
    let mut caller = NO_FRAME;
    let mut settled = state.depth == 0;
    if copied {
        settled = true;
        if cookie.part && copied::has_begun(state, cfa, cookie.id.probe().0 as u64) != 0 {
            return None;
        }
    } else if state.jump_ns == 0 && state.depth != 0 && class as u8 == StackClass::Native as u8 {
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

    if let Some(key) = future
        // SAFETY: a place in the map value; volatile, see there.
        && unsafe { read_volatile(&raw const state.goes_on) } != 0
    {
        let future = future::find(key)?;
        let place = push(
            state,
            cookie,
            class as u8,
            [cfa, if copied { state.around } else { 0 }],
            future.unsampled,
        )?;
        let frame = thread::frame(state, place);
        frame.record = future.record;
        return Some((place, frame));
    }
    let (trace_id, parent_id, unsampled) = if caller != NO_FRAME {
        let parent = thread::frame(state, caller);
        if cookie.part && parent.record.probe == cookie.id.probe() && parent.part == 0 {
            // The function calls the part that the compiler split off it: the same call.
            return None;
        }
        (
            parent.record.trace_id,
            parent.record.span_id,
            parent.unsampled,
        )
    } else if state.origin.known != 0 {
        let origin = state.origin;
        (origin.trace_id, origin.parent_id, origin.unsampled as u8)
    } else {
        let (trace_id, unsampled) = new_trace(state, control);
        (trace_id, [0; 2], unsampled)
    };

    count(Counter::Entered);
    if unsampled != 0 {
        count(Counter::Unsampled);
    }
    let return_address = if copied {
        state.around
    } else if class as u8 == StackClass::Native as u8 && state.main_thread != 0 {
        0
    } else {
        user_at(cfa.wrapping_sub(8)).unwrap_or(0)
    };
    let place = push(state, cookie, class as u8, [cfa, return_address], unsampled)?;
    if class as u8 == StackClass::Other as u8 {
        stack::begins_in(state, cfa);
    }
    let tgid = state.tgid;
    let (span_id, [rss_pages, page_faults]) = if unsampled == 0 {
        (random_id(&mut state.random), memory_now())
    } else {
        ([0; 2], [0; 2])
    };
    let frame = thread::frame(state, place);
    frame.record = SpanRecord {
        kind: RecordKind::Span as u8,
        end: End::Open as u8,
        detail: 0,
        future: 0,
        probe: cookie.id.probe(),
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
    Some((place, frame))
}

/// Takes the next place of the table for a frame, whose record is still to be written.
#[inline(always)]
fn push(
    state: &mut ThreadState,
    cookie: EnterCookie,
    class: u8,
    [cfa, return_address]: [u64; 2],
    unsampled: u8,
) -> Option<usize> {
    if state.depth as usize >= MAX_FRAMES {
        thread::make_room(state);
    }
    let place = state.depth as usize;
    if place >= MAX_FRAMES {
        let around = state.around;
        copied::poison(state, around);
        if unsampled == 0 {
            count(Counter::LostFrames);
        }
        return None;
    }
    state.depth = place as u32 + 1;
    let frame = thread::frame(state, place);
    frame.cfa = cfa;
    frame.return_address = return_address;
    frame.state = FRAME_OPEN;
    frame.class = class;
    frame.tail_calls = cookie.tail_calls as u8;
    frame.part = cookie.part as u8;
    frame.unsampled = unsampled;
    frame.generation = cookie.generation;
    frame.doubt = 0;
    Some(place)
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

/// A way out of a traced function: ends its frame.
#[uprobe]
pub fn span_exit(ctx: ProbeContext) -> u32 {
    // SAFETY: the context is the one the kernel passed.
    let cookie = ExitCookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    if let Some([cfa, sp]) = leaves(cookie, ctx.regs) {
        exit_in_thread(cookie, ctx.regs, cfa, sp);
    }
    0
}

/// The same where results are asked for: its cookie names a plan.
#[uprobe]
pub fn capture_exit(ctx: ProbeContext) -> u32 {
    // SAFETY: the context is the one the kernel passed.
    let cookie = ExitCookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    if let Some([cfa, sp]) = leaves(cookie, ctx.regs) {
        capturing_exit(cookie, ctx.regs, cfa, sp);
    }
    0
}

/// A return probe: the function has returned, the stack pointer is the frame address.
#[uretprobe]
pub fn span_return(ctx: RetProbeContext) -> u32 {
    // SAFETY: the context is the one the kernel passed.
    let cookie = ExitCookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    // SAFETY: the registers are the context itself.
    let sp = unsafe { arch::stack_pointer(ctx.regs) };
    exit_in_thread(cookie, ctx.regs, sp, sp);
    0
}

/// The same where results are asked for.
#[uretprobe]
pub fn capture_return(ctx: RetProbeContext) -> u32 {
    // SAFETY: the context is the one the kernel passed.
    let cookie = ExitCookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    // SAFETY: the registers are the context itself.
    let sp = unsafe { arch::stack_pointer(ctx.regs) };
    capturing_exit(cookie, ctx.regs, sp, sp);
    0
}

/// Frame address and stack pointer at a way out; `None` where it is not taken this time.
#[inline(always)]
pub fn leaves(cookie: ExitCookie, regs: *const pt_regs) -> Option<[u64; 2]> {
    // SAFETY: the registers are the context itself.
    let (sp, bp, flags) = unsafe {
        (
            arch::stack_pointer(regs),
            arch::frame_pointer(regs),
            arch::flags(regs),
        )
    };
    if let Some(condition) = cookie.condition
        && !arch::condition_holds(condition, flags)
    {
        return None;
    }
    let base = match cookie.base {
        CfaBase::StackPointer => sp,
        CfaBase::FramePointer => bp,
    };
    Some([base.wrapping_add(cookie.cfa_offset as i64 as u64), sp])
}

#[inline(always)]
fn capturing_exit(mut cookie: ExitCookie, regs: *const pt_regs, cfa: u64, sp: u64) {
    let id = cookie.id.plan();
    let Some(plan) = capture::plan(id) else {
        return;
    };
    cookie.id = plan.probe.at_site();
    let (_, tid) = current_ids();
    let Some(state) = thread::find(tid as u64) else {
        return;
    };
    copied::ends(state, regs, cfa);
    let end = capture_result(state, id, plan, [cfa, cfa], regs, tid);
    exit(state, cookie.id.probe(), cfa, sp, end);
}

/// Runs an exit plan, and answers how the call ends by it. `at`: the frame's address in the table, and
/// in memory.
#[inline(always)]
pub fn capture_result(
    state: &mut ThreadState,
    id: PlanId,
    plan: &'static Plan,
    at: [u64; 2],
    regs: *const pt_regs,
    tid: u32,
) -> End {
    let [cfa, address] = at;
    // A call that was not seen to begin, or that sampling leaves out, is not looked at.
    let place = find_frame(state, cfa, plan.probe.0 as u64) as usize;
    if place != NO_FRAME {
        let frame = thread::frame(state, place);
        if frame.unsampled == 0
            && capture::run(id, plan, regs, address, tid, place, frame.record.span_id)
        {
            return End::Rule;
        }
    }
    End::Returned
}

#[inline(always)]
fn exit_in_thread(cookie: ExitCookie, regs: *const pt_regs, cfa: u64, sp: u64) {
    let (_, tid) = current_ids();
    if let Some(state) = thread::find(tid as u64) {
        copied::ends(state, regs, cfa);
        exit(state, cookie.id.probe(), cfa, sp, End::Returned);
    }
}

/// Ends the frame at `cfa`.
#[inline(always)]
pub fn exit(state: &mut ThreadState, probe: ProbeId, cfa: u64, sp: u64, end: End) {
    if state.depth == 0 {
        return;
    }
    let now = now_ns();
    // In the usual case the youngest frame ends, and no other with it.
    let index = state.depth as usize - 1;
    let (usual, in_fiber) = {
        let top = thread::frame(state, index);
        let usual = top.cfa == cfa && top.record.probe == probe;
        (usual, top.class == StackClass::Other as u8)
    };
    let elsewhere = in_fiber && stack::began_elsewhere(state, cfa) != 0;
    if usual && !elsewhere && state.jump_ns == 0 && state.copies == 0 {
        let alone = index == 0 || {
            let below = thread::frame(state, index - 1);
            below.state == FRAME_OPEN && below.cfa != cfa
        };
        if alone {
            let top = thread::frame(state, index);
            thread::mark(top, end, now);
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
    let mut end = end as u8;
    if class as u8 == StackClass::Other as u8 && stack::began_elsewhere(state, cfa) != 0 {
        end = GONE_ON;
    }
    let what = class as u64 | (end as u64) << 8 | (probe.0 as u64) << 32;
    if state.copies != 0 && class as u8 == StackClass::Native as u8 {
        copied::exit(state, what, cfa, now);
    } else {
        exit_slow(state, what, cfa, now);
    }
}
