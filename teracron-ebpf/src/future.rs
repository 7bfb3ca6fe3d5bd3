//! Rust's async functions: a call is one span, from its first poll to the one that is ready, whatever
//! threads poll it. While a poll runs the span is a frame of its thread, so what is called there finds its
//! parent; between polls it waits in [`FUTURES`].

use core::{
    ffi::c_void,
    ptr::{read_volatile, write_volatile},
};

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_get_attach_cookie, bpf_ringbuf_output},
    macros::uprobe,
    programs::ProbeContext,
};
use teracron_common::{
    CfaBase, Counter, End, EnterCookie, ExitCookie, FutureId, FutureKey, FutureRecord, FutureSite,
    FutureState, PlanId, RecordKind, ThreadState, Walk,
    future::{STATE_BEGINS, STATE_RETURNED},
    thread::FRAME_OPEN,
};

use crate::{
    arch, capture, copied, emit,
    kernel::{END, NEXT, count, current_ids, memory_now, now_ns, user_at},
    maps::{FUTURE_SITES, FUTURES},
    settle::{NO_FRAME, find_frame},
    span,
    thread::{self, walk},
};

#[inline(always)]
fn site(id: FutureId) -> Option<FutureSite> {
    // SAFETY: a map value; user space writes it before the site is attached, and never again.
    FUTURE_SITES.get_ptr(id).map(|site| unsafe { *site })
}

/// What is remembered of a future.
#[inline(always)]
pub fn find(key: &FutureKey) -> Option<&'static mut FutureState> {
    // SAFETY: a map value; a future is polled or dropped by one thread at a time.
    FUTURES.get_ptr_mut(key).map(|state| unsafe { &mut *state })
}

/// A poll begins.
#[uprobe]
pub fn future_enter(ctx: ProbeContext) -> u32 {
    // SAFETY: the context is the one the kernel passed.
    let mut cookie = EnterCookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    let Some(site) = site(cookie.id.future()) else {
        return 0;
    };
    cookie.id = site.probe.at_site();
    let Some((control, age)) = span::age_of(cookie) else {
        return 0;
    };
    // SAFETY: the registers are the context itself.
    let [sp, bp] = unsafe { arch::stack_and_frame(ctx.regs) };
    // SAFETY: the registers are the context itself.
    let [first, second] = unsafe { arch::two_arguments(ctx.regs) };
    let address = if site.is_second != 0 { second } else { first };
    let (tgid, tid) = current_ids();
    let Some(state) = span::table_of(tgid, tid) else {
        return 0;
    };
    let key = FutureKey {
        address,
        tgid,
        probe: site.probe,
    };
    let Some(step) = user_at::<u8>(address.wrapping_add(site.state_offset as u64)) else {
        count(Counter::Unreadable);
        return 0;
    };
    let mut goes_on = 0;
    match find(&key) {
        // One that has begun before its probe was there is no span, like a call.
        None if step != STATE_BEGINS => return 0,
        None => {}
        Some(_) if step != STATE_BEGINS => goes_on = 1,
        Some(before) => {
            // It was dropped where no site saw it. Another set of probes may just have begun the new one.
            if before.unsampled == 0 && before.polling == 0 {
                count(Counter::LostEnds);
            }
        }
    }
    let place_of_it = &raw mut state.goes_on;
    // SAFETY: a place in the map value; volatile, so that the verifier sees what follows in one state.
    unsafe { write_volatile(place_of_it, goes_on) };
    let cfa = frame_address(cookie, sp, bp);
    copied::begins(state, control, ctx.regs, cfa);
    let Some((place, frame)) = span::begin(state, control, age, cookie, [sp, cfa], tid, Some(&key))
    else {
        return 0;
    };
    let (now, unsampled) = (now_ns(), frame.unsampled);
    // SAFETY: as above.
    if unsafe { read_volatile(place_of_it) } == 0 {
        let future = FutureState {
            record: frame.record,
            polled_ns: now,
            busy_ns: 0,
            polls: 1,
            polling: 1,
            unsampled: frame.unsampled,
            reserved: [0; 2],
        };
        if FUTURES.insert(key, &future, 0).is_err() {
            // Too many: what is called from here has no parent then.
            if frame.unsampled == 0 {
                count(Counter::LostFrames);
            }
            frame.unsampled = 1;
            return 0;
        }
        frame.record.future = 1;
        frame.record.end_ns = address;
    } else if let Some(future) = find(&key) {
        future.polled_ns = now;
        future.polls += 1;
        future.polling = 1;
        frame.record.future = 1;
        frame.record.end_ns = address;
        if frame.unsampled == 0 {
            // Faults are counted by thread: what this one had before is not the future's.
            let [_, faults] = memory_now();
            frame.record.page_faults = faults.wrapping_sub(future.record.page_faults);
        }
    }
    if site.is_second != 0 && site.exit_plan != PlanId::NONE && unsampled == 0 {
        // Each poll's caller has made room for what it returns.
        capture::keep(tid, place, first);
    }
    0
}

/// A poll has begun, by a program that has run before this one (the kernel puts new consumers of a uprobe at
/// the head of its list, and this one is attached first): the arguments, where it is the first. Apart,
/// because the verifier would look at the interpreter once for each way through [`future_enter`].
#[uprobe]
pub fn future_capture(ctx: ProbeContext) -> u32 {
    // SAFETY: the context is the one the kernel passed.
    let cookie = EnterCookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    let Some(site) = site(cookie.id.future()) else {
        return 0;
    };
    let Some(plan) = capture::plan(site.entry_plan) else {
        return 0;
    };
    // SAFETY: the registers are the context itself.
    let [sp, bp] = unsafe { arch::stack_and_frame(ctx.regs) };
    let cfa = frame_address(cookie, sp, bp);
    let (_, tid) = current_ids();
    let Some(state) = thread::find(tid as u64) else {
        return 0;
    };
    let place = find_frame(state, cfa, site.probe.0 as u64) as usize;
    if place == NO_FRAME {
        return 0;
    }
    let frame = thread::frame(state, place);
    if frame.record.future == 0 || frame.unsampled != 0 || frame.generation != cookie.generation {
        return 0;
    }
    let state_byte = frame.record.end_ns.wrapping_add(site.state_offset as u64);
    if user_at::<u8>(state_byte) == Some(STATE_BEGINS) {
        let span_id = frame.record.span_id;
        capture::run(site.entry_plan, plan, ctx.regs, cfa, tid, place, span_id);
    }
    0
}

/// Where a poll's frame lies, seen from its entry site.
#[inline(always)]
fn frame_address(cookie: EnterCookie, sp: u64, bp: u64) -> u64 {
    let base = match cookie.base {
        CfaBase::StackPointer => sp,
        CfaBase::FramePointer => bp,
    };
    base.wrapping_add(cookie.cfa_offset as i64 as u64)
}

/// A poll ends: the call is over, or waits.
#[uprobe]
pub fn future_exit(ctx: ProbeContext) -> u32 {
    // SAFETY: the context is the one the kernel passed.
    let cookie = ExitCookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    let Some(site) = site(cookie.id.future()) else {
        return 0;
    };
    let Some([cfa, sp]) = span::leaves(cookie, ctx.regs) else {
        return 0;
    };
    let (tgid, tid) = current_ids();
    let Some(state) = thread::find(tid as u64) else {
        return 0;
    };
    copied::ends(state, ctx.regs, cfa);
    let place = find_frame(state, cfa, site.probe.0 as u64) as usize;
    if place == NO_FRAME {
        return 0;
    }
    let frame = thread::frame(state, place);
    let address = frame.record.end_ns;
    let key = FutureKey {
        address,
        tgid,
        probe: site.probe,
    };
    let mut end = End::Returned;
    if frame.record.future != 0
        && let Some(future) = find(&key)
    {
        let now = now_ns();
        future.busy_ns += now.wrapping_sub(future.polled_ns);
        let step = user_at::<u8>(address.wrapping_add(site.state_offset as u64));
        if step == Some(STATE_RETURNED) {
            if frame.unsampled == 0 {
                let span_id = frame.record.span_id;
                if site.exit_plan != PlanId::NONE
                    && let Some(plan) = capture::plan(site.exit_plan)
                    && capture::run(site.exit_plan, plan, ctx.regs, cfa, tid, place, span_id)
                {
                    end = End::Rule;
                }
                send(future);
            }
            let _ = FUTURES.remove(key);
            frame.record.future = 0;
        } else {
            future.polling = 0;
            if frame.unsampled == 0 {
                let [_, faults] = memory_now();
                future.record.page_faults = faults.wrapping_sub(frame.record.page_faults);
            }
            // The frame goes, its span does not: nothing is sent of what is marked so.
            frame.unsampled = 1;
        }
    }
    span::exit(state, site.probe, cfa, sp, end);
    0
}

/// A future is dropped: if it waited, its call was cancelled.
#[uprobe]
pub fn future_drop(ctx: ProbeContext) -> u32 {
    // SAFETY: the context is the one the kernel passed.
    let cookie = EnterCookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    let (tgid, _) = current_ids();
    let key = FutureKey {
        // SAFETY: the registers are the context itself.
        address: unsafe { arch::argument(ctx.regs) },
        tgid,
        probe: cookie.id.probe(),
    };
    let Some(future) = find(&key) else {
        return 0;
    };
    if future.unsampled == 0 && future.polling == 0 {
        let now = memory_now();
        let faults = future.record.page_faults;
        future.record.page_faults = now[1].wrapping_sub(faults);
        thread::account_memory(&mut future.record, now);
        future.record.end = End::Cancelled as u8;
        future.record.end_ns = now_ns();
        send(future);
        emit::send(&future.record);
    }
    let _ = FUTURES.remove(key);
    0
}

/// Says how often a future was polled: before the record of its span.
#[inline(always)]
fn send(future: &FutureState) {
    let record = FutureRecord {
        kind: RecordKind::Future as u32,
        polls: future.polls,
        span_id: future.record.span_id,
        busy_ns: future.busy_ns,
    };
    // SAFETY: a map of the right kind, and a record on the stack.
    let result = unsafe {
        bpf_ringbuf_output(
            emit::spans(),
            (&raw const record).cast_mut().cast::<c_void>(),
            FutureRecord::SIZE as u64,
            emit::wake_flags(),
        )
    };
    if result != 0 {
        count(Counter::LostCaptures);
    }
}

/// Forgets the futures whose polls end in another way than by returning, at frame addresses in
/// `sp < cfa <= landing`, and says how they were polled: before their frames end.
#[inline(never)]
pub fn leave(state: &mut ThreadState, sp: u64, landing: u64) -> u32 {
    let walk = Walk {
        low: sp,
        cfa: landing,
        now: now_ns(),
        ..Walk::PLAIN
    };
    thread::each_frame(state, walk, leave_one);
    0
}

#[inline(never)]
extern "C" fn leave_one(_: u64, table: thread::Table) -> u64 {
    let Some((state, index)) = thread::step(table) else {
        return END;
    };
    let tgid = state.tgid;
    let (low, high, now) = (walk!(state, low), walk!(state, cfa), walk!(state, now));
    let frame = thread::frame(state, index);
    if frame.record.future == 0 || frame.state != FRAME_OPEN || frame.cfa <= low || frame.cfa > high
    {
        return NEXT;
    }
    let key = FutureKey {
        address: frame.record.end_ns,
        tgid,
        probe: frame.record.probe,
    };
    if let Some(future) = find(&key) {
        future.busy_ns += now.wrapping_sub(future.polled_ns);
        if future.unsampled == 0 {
            send(future);
        }
        let _ = FUTURES.remove(key);
    }
    NEXT
}
