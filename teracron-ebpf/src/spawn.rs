//! Goroutines that are started inside spans whose probes want them to belong there (`go_spawn = "child"`).
//!
//! `runtime.newproc1(fn, callergp, …)` makes a goroutine for `callergp` and answers its `g`. It runs on the
//! thread's system stack, so that it neither moves to another thread nor is interrupted by another `go`.

use aya_ebpf::{
    EbpfContext as _, helpers::generated::bpf_get_attach_cookie, macros::uprobe,
    programs::ProbeContext,
};
use teracron_common::{
    Counter, Origin, Spawned, ThreadState, Walk,
    thread::{FRAME_OPEN, goroutine_key},
};

use crate::{
    arch,
    kernel::{END, NEXT, count, current_ids, user_at},
    maps::{SPAWNED, SPAWNING, SPAWNING_PROBES},
    thread::{self, walk},
};

/// A goroutine is about to be made; the cookie says where `g.goid` lies.
#[uprobe]
pub fn go_starting(ctx: ProbeContext) -> u32 {
    // SAFETY: the registers are the context itself.
    let caller = unsafe { arch::go_second(ctx.regs) };
    // SAFETY: the context is the one the kernel passed.
    let offset = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    let (tgid, tid) = current_ids();
    let mut origin = Origin::default();
    let key = goroutine_key(tgid, caller);
    match thread::find(key) {
        Some(state) if state.depth != 0 => origin = innermost(state),
        // None of its functions is traced, but it may belong to a span itself.
        _ => {
            if let Some(goid) = user_at::<u64>(caller + offset) {
                origin = of_goroutine(key, goid);
            }
        }
    }
    if origin.known == 0 {
        // What a start left whose end was not seen is not this one's.
        let _ = SPAWNING.remove(tid as u64);
    } else if SPAWNING.insert(tid as u64, origin, 0).is_err() {
        count(Counter::LostOrigins);
    }
    0
}

/// A goroutine was made: its `g` is the result.
#[uprobe]
pub fn go_started(ctx: ProbeContext) -> u32 {
    // SAFETY: the registers are the context itself.
    let made = unsafe { arch::go_first(ctx.regs) };
    // SAFETY: the context is the one the kernel passed.
    let offset = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    let (tgid, tid) = current_ids();
    let Some(origin) = SPAWNING.get_ptr(tid as u64) else {
        return 0;
    };
    // SAFETY: a map value that only this thread's programs write.
    let origin = unsafe { *origin };
    let _ = SPAWNING.remove(tid as u64);
    let Some(goid) = user_at::<u64>(made + offset) else {
        count(Counter::LostOrigins);
        return 0;
    };
    let spawned = Spawned { goid, origin };
    if SPAWNED
        .insert(goroutine_key(tgid, made), spawned, 0)
        .is_err()
    {
        count(Counter::LostOrigins);
    }
    0
}

/// Where the spans of a goroutine belong that was started by another.
#[inline(always)]
pub fn of_goroutine(key: u64, goid: u64) -> Origin {
    let Some(spawned) = SPAWNED.get_ptr(key) else {
        return Origin::default();
    };
    // SAFETY: a map value; who writes it has made the goroutine that reads it.
    let spawned = unsafe { *spawned };
    if spawned.goid == goid {
        spawned.origin
    } else {
        Origin::default()
    }
}

/// The innermost open call of a goroutine, where one of those around it wants goroutines, or where the
/// goroutine itself belongs to a span.
#[inline(always)]
fn innermost(state: &mut ThreadState) -> Origin {
    thread::each_frame(state, Walk::PLAIN, look_at_one);
    let wanted = walk!(state, marked) | state.origin.known;
    let found = walk!(state, found);
    if wanted == 0 || found == 0 {
        return Origin::default();
    }
    let frame = thread::frame(state, found as usize - 1);
    Origin {
        trace_id: frame.record.trace_id,
        parent_id: frame.record.span_id,
        known: 1,
        unsampled: frame.unsampled as u32,
    }
}

#[inline(never)]
extern "C" fn look_at_one(_: u64, table: thread::Table) -> u64 {
    let Some((state, index)) = thread::step(table) else {
        return END;
    };
    let frame = thread::frame(state, index);
    if frame.state != FRAME_OPEN {
        return NEXT;
    }
    let probe = frame.record.probe;
    if walk!(state, found) == 0 {
        walk!(state, found = index as u32 + 1);
    }
    if SPAWNING_PROBES.get_ptr(probe).is_some() {
        walk!(state, marked = 1);
        return END;
    }
    NEXT
}
