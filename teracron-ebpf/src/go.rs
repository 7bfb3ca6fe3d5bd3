//! Go: frames belong to a goroutine, wherever it runs and wherever its stack lies. A frame's address is
//! its distance from the end of the stack, which stays when the runtime copies the stack elsewhere.
//!
//! `r14` holds the running goroutine's `g` in every Go function (ABIInternal, Go 1.17 and newer).
//! Layouts: `runtime.g`, `runtime._panic` and `runtime._type` of Go 1.17 to 1.27.

use aya_ebpf::{
    EbpfContext as _, helpers::generated::bpf_get_attach_cookie, macros::uprobe,
    programs::ProbeContext,
};
use teracron_common::{
    CfaBase, Counter, End, EnterCookie, ExitCookie, RecoverCookie, StackClass, ThreadState, Walk,
    thread::{FRAME_OPEN, GOROUTINE_BASE, MAX_PANICS, goroutine_key},
};

use crate::{
    arch, capture,
    kernel::{END, NEXT, count, count_many, current_ids, now_ns, user_at},
    layout,
    maps::GO_TEXTS,
    span, spawn,
    thread::{self, NoTable, walk},
    unwind,
};

/// [`SpanRecord::detail`](teracron_common::SpanRecord::detail): what ended the frame was Go's runtime.
const GOROUTINE: u8 = teracron_common::record::DETAIL_GOROUTINE;
/// `g.stack.hi`.
const STACK_HIGH: u64 = 8;
/// `g._panic`.
const PANIC: u64 = 32;
/// `_panic.link`, before Go 1.22.
const LINK: u64 = 24;
/// `_type.Kind_`.
const KIND: u64 = 23;
/// The bits of it that tell the kind, and the kind of strings.
const KIND_MASK: u8 = 31;
const KIND_STRING: u8 = 24;

/// A distance from the end of the goroutine's stack as a frame address.
#[inline(always)]
fn position(g: u64, address: u64) -> Option<u64> {
    let high: u64 = user_at(g + STACK_HIGH)?;
    Some(GOROUTINE_BASE.wrapping_sub(high.wrapping_sub(address)))
}

/// Where the text of an error of a type lies in its value.
#[inline(always)]
pub fn text_offset(type_address: u64) -> Option<u64> {
    // SAFETY: a map value; user space only adds entries.
    GO_TEXTS
        .get_ptr(layout::placed(type_address))
        .map(|offset| unsafe { *offset })
}

/// Entry of a traced Go function.
#[uprobe]
pub fn go_enter(ctx: ProbeContext) -> u32 {
    // SAFETY: the context is the one the kernel passed.
    let mut cookie = EnterCookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    // SAFETY: the registers are the context itself.
    let (sp, g) = unsafe { (arch::stack_pointer(ctx.regs), arch::goroutine(ctx.regs)) };
    let id = cookie.id.plan();
    let plan = if cookie.reads {
        let Some(plan) = capture::plan(id) else {
            return 0;
        };
        cookie.id = plan.probe.at_site();
        Some(plan)
    } else {
        None
    };
    let Some((control, age)) = span::age_of(cookie) else {
        return 0;
    };
    let (tgid, tid) = current_ids();
    let key = goroutine_key(tgid, g);
    let cfa = sp.wrapping_add(cookie.cfa_offset as i64 as u64);
    let (Some(at), Some(goid)) = (position(g, cfa), user_at::<u64>(g + cookie.goid as u64 * 8))
    else {
        return 0;
    };
    let state = match thread::find(key) {
        Some(state) => state,
        None => match thread::create(tgid, key) {
            Ok(state) => {
                state.stack_high = u64::MAX;
                state.main_thread = 1;
                state.goid = goid;
                state.origin = spawn::of_goroutine(key, goid);
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
    if state.goid != goid {
        // Another goroutine has got this `g`; how the frames of the one before ended was not seen.
        count_many(Counter::LostEnds, state.depth as u64);
        state.depth = 0;
        state.goid = goid;
        state.origin = spawn::of_goroutine(key, goid);
    }
    if let Some((place, frame)) = span::begin(state, control, age, cookie, [at, at], tid, None)
        && let Some(plan) = plan
        && frame.unsampled == 0
    {
        capture::run(id, plan, ctx.regs, cfa, tid, place, frame.record.span_id);
    }
    0
}

/// A way out of a traced Go function.
#[uprobe]
pub fn go_exit(ctx: ProbeContext) -> u32 {
    // SAFETY: the context is the one the kernel passed.
    let mut cookie = ExitCookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    // SAFETY: the registers are the context itself.
    let (sp, bp, g, flags) = unsafe {
        (
            arch::stack_pointer(ctx.regs),
            arch::frame_pointer(ctx.regs),
            arch::goroutine(ctx.regs),
            arch::flags(ctx.regs),
        )
    };
    if let Some(condition) = cookie.condition
        && !arch::condition_holds(condition, flags)
    {
        return 0;
    }
    let base = match cookie.base {
        CfaBase::StackPointer => sp,
        CfaBase::FramePointer => bp,
    };
    let cfa = base.wrapping_add(cookie.cfa_offset as i64 as u64);
    let (tgid, tid) = current_ids();
    let Some(state) = thread::find(goroutine_key(tgid, g)) else {
        return 0;
    };
    let Some(at) = position(g, cfa) else {
        return 0;
    };
    let mut end = End::Returned;
    if cookie.reads {
        let id = cookie.id.plan();
        let Some(plan) = capture::plan(id) else {
            return 0;
        };
        cookie.id = plan.probe.at_site();
        end = span::capture_result(state, id, plan, [at, cfa], ctx.regs, tid);
    }
    span::exit(state, cookie.id.probe(), at, at, end);
    0
}

/// A panic starts: what it is, for when it leaves frames.
#[uprobe]
pub fn go_panic(ctx: ProbeContext) -> u32 {
    // SAFETY: the registers are the context itself.
    let (g, kind, value) = unsafe {
        (
            arch::goroutine(ctx.regs),
            arch::go_first(ctx.regs),
            arch::go_second(ctx.regs),
        )
    };
    let (tgid, _) = current_ids();
    let key = goroutine_key(tgid, g);
    let Some(state) = thread::find(key) else {
        return 0;
    };
    if state.depth == 0 {
        return 0;
    }
    // SAFETY: the context is the one the kernel passed.
    if unsafe { bpf_get_attach_cookie(ctx.as_ptr()) } != 0 {
        let place = panics_of(g);
        state.panicking = place as u32 + 1;
        if place < MAX_PANICS as u64 {
            let place = capture::bounded(place, MAX_PANICS as u64 - 1) as usize;
            // SAFETY: below MAX_PANICS by the mask.
            unsafe { *state.panics.get_unchecked_mut(place) = [kind, value] };
        }
    }
    describe(key, kind, value);
    0
}

/// Panics of a goroutine that have not been recovered, before Go 1.22.
#[inline(always)]
fn panics_of(g: u64) -> u64 {
    let mut panic = user_at::<u64>(g + PANIC).unwrap_or(0);
    for count in 0..MAX_PANICS as u64 {
        if panic == 0 {
            return count;
        }
        panic = user_at(panic + LINK).unwrap_or(0);
    }
    MAX_PANICS as u64
}

/// A panic was recovered: the goroutine goes on in the frame whose stack pointer is known now, and what
/// lies below is gone.
#[uprobe]
pub fn go_recover(ctx: ProbeContext) -> u32 {
    // SAFETY: the context is the one the kernel passed.
    let cookie = RecoverCookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    // SAFETY: the registers are the context itself.
    let g = unsafe { arch::go_first(ctx.regs) };
    let (tgid, _) = current_ids();
    let key = goroutine_key(tgid, g);
    let Some(state) = thread::find(key) else {
        return 0;
    };
    if state.depth == 0 {
        return 0;
    }
    let mut holder = g;
    if cookie.in_panic {
        let Some(panic) = user_at::<u64>(g + PANIC) else {
            count(Counter::Unreadable);
            return 0;
        };
        holder = panic;
        // The value: type and data. Another panic may have started and been recovered since this one did.
        if let Some([kind, value]) = user_at::<[u64; 2]>(panic + cookie.value as u64) {
            describe(key, kind, value);
        }
    } else {
        // The one that started last is the one that can be recovered.
        let place = (state.panicking as u64).wrapping_sub(1);
        if place < MAX_PANICS as u64 {
            let place = capture::bounded(place, MAX_PANICS as u64 - 1) as usize;
            // SAFETY: below MAX_PANICS by the mask.
            let [kind, value] = unsafe { *state.panics.get_unchecked(place) };
            describe(key, kind, value);
        }
        state.panicking = panics_of(g) as u32;
    }
    let sp: Option<u64> = user_at(holder + cookie.offset as u64);
    let Some(at) = sp.and_then(|sp| position(g, sp)) else {
        count(Counter::Unreadable);
        return 0;
    };
    end_up_to(state, at, End::Unwound as u64);
    0
}

/// The goroutine ends by `runtime.Goexit`: its deferred functions run, its frames are left.
#[uprobe]
pub fn go_goexit(ctx: ProbeContext) -> u32 {
    // SAFETY: the registers are the context itself.
    let g = unsafe { arch::goroutine(ctx.regs) };
    let (tgid, _) = current_ids();
    if let Some(state) = thread::find(goroutine_key(tgid, g)) {
        unwind::forget(state.key);
        end_up_to(state, u64::MAX, End::ThreadExited as u64);
    }
    0
}

/// Ends all frames whose address is at most `at`.
#[inline(never)]
fn end_up_to(state: &mut ThreadState, at: u64, how: u64) -> u32 {
    let now = now_ns();
    let walk = Walk {
        cfa: at,
        now,
        what: how,
        ..Walk::PLAIN
    };
    thread::each_frame(state, walk, end_one);
    if walk!(state, marked) != 0 {
        thread::flush::<true>(state);
        unwind::forget(state.key);
    }
    0
}

#[inline(never)]
extern "C" fn end_one(_: u64, table: thread::Table) -> u64 {
    let Some((state, index)) = thread::step(table) else {
        return END;
    };
    let (high, end, now) = (walk!(state, cfa), walk!(state, what), walk!(state, now));
    let frame = thread::frame(state, index);
    if frame.state == FRAME_OPEN && frame.class == StackClass::Native as u8 {
        if frame.cfa > high {
            return END;
        }
        thread::mark_as(frame, end as u8, now);
        frame.record.detail = GOROUTINE;
        walk!(state, marked = 1);
    }
    NEXT
}

/// Notes what a panic's value is: the type's address, and the text where it has one.
#[inline(never)]
fn describe(key: u64, kind: u64, value: u64) -> u32 {
    let Some(failure) = unwind::failure_of(key) else {
        count(Counter::Unreadable);
        return 0;
    };
    failure.record.end = End::Exception as u8;
    // A NUL says that an address follows.
    failure.text[0] = 0;
    for (place, byte) in failure.text[1..9].iter_mut().zip(kind.to_le_bytes()) {
        *place = byte;
    }
    failure.record.type_len = 9;
    failure.record.message_len = 0;
    if kind == 0 {
        return 0;
    }
    let is_text = user_at::<u8>(kind + KIND).unwrap_or(0) & KIND_MASK == KIND_STRING;
    let at = if is_text {
        Some(value)
    } else {
        text_offset(kind).map(|offset| value.wrapping_add(offset))
    };
    if let Some(at) = at {
        match user_at::<[u64; 2]>(at) {
            Some([data, len]) => unwind::copy_text::<9>(failure, data, len),
            None => count(Counter::Unreadable),
        }
    }
    0
}
