//! Captures: one interpreter for the plans that user space puts into the map `PLANS`.
//!
//! The machine's state lies in a map value and not in registers: the verifier follows registers, and
//! would otherwise check every step of the longest plan in every state that the one before can leave.

use core::{
    arch::asm,
    ptr::{read_volatile, write_volatile},
};

use aya_ebpf::{
    bindings::pt_regs,
    helpers::generated::{bpf_probe_read_user, bpf_probe_read_user_str, bpf_ringbuf_output},
};
use teracron_common::{
    CaptureRecord, CaptureState, Counter, MAX_FRAMES, Plan, PlanId, RecordKind,
    plan::{
        Code, Compare, ItemHead, ItemKind, MAX_STEPS, MAX_TEXT, PLACE_CFA, PLACE_FS, PLACE_KEPT,
        PLACES, ROOM, Step,
    },
};

use crate::{
    arch,
    emit::{self, wake_flags},
    go,
    kernel::{END, NEXT, config, count, current_task, kernel_at, repeat, user_at},
    layout,
    maps::{CAPTURES, EMPTY_CAPTURE, PLANS},
};

/// The plan that a site's cookie names.
#[inline(always)]
pub fn plan(plan: PlanId) -> Option<&'static Plan> {
    // SAFETY: a map value; user space writes it before the site is attached, and never again.
    PLANS.get_ptr(plan).map(|plan| unsafe { &*plan })
}

/// The thread's machine; made at its first capture.
#[inline(always)]
fn machine(tid: u32) -> Option<&'static mut CaptureState> {
    let key = tid as u64;
    if let Some(state) = CAPTURES.get_ptr_mut(key) {
        // SAFETY: a map value that only this thread's programs write, and they never nest.
        return Some(unsafe { &mut *state });
    }
    let empty = EMPTY_CAPTURE.get_ptr(0)?;
    // SAFETY: a map value of zeros that nothing writes.
    CAPTURES.insert(key, unsafe { &*empty }, 0).ok()?;
    // SAFETY: as above.
    CAPTURES
        .get_ptr_mut(key)
        .map(|state| unsafe { &mut *state })
}

/// Keeps a value for the exit of the call whose frame is in this place: see [`PLACE_KEPT`].
#[inline(always)]
pub fn keep(tid: u32, frame: usize, value: u64) {
    let Some(state) = machine(tid) else {
        count(Counter::LostCaptures);
        return;
    };
    let frame = bounded(frame as u64, MAX_FRAMES as u64 - 1) as usize;
    // SAFETY: below MAX_FRAMES by the mask.
    unsafe { *state.kept.get_unchecked_mut(frame) = value };
}

/// A call's frame has moved to another place.
#[inline(always)]
pub fn move_kept(key: u64, from: usize, to: usize) {
    if let Some(state) = CAPTURES.get_ptr_mut(key) {
        // SAFETY: a map value that only this thread's programs write, and they never nest.
        let state = unsafe { &mut *state };
        let from = bounded(from as u64, MAX_FRAMES as u64 - 1) as usize;
        let to = bounded(to as u64, MAX_FRAMES as u64 - 1) as usize;
        // SAFETY: below MAX_FRAMES by the masks.
        unsafe { *state.kept.get_unchecked_mut(to) = *state.kept.get_unchecked(from) };
    }
}

/// Runs a plan and sends what it made, for the span `span_id`. Answers whether the call has failed by
/// the plan's rule.
#[inline(always)]
pub fn run(
    id: PlanId,
    plan: &'static Plan,
    regs: *const pt_regs,
    cfa: u64,
    tid: u32,
    frame: usize,
    span_id: [u64; 2],
) -> bool {
    let Some(state) = machine(tid) else {
        count(Counter::LostCaptures);
        return false;
    };
    // SAFETY: the registers are the context itself.
    unsafe { arch::save(regs, &mut state.places) };
    state.places[PLACE_CFA as usize] = cfa;
    state.places[PLACE_FS as usize] = kernel_at(current_task(), config!(task_fsbase)).unwrap_or(0);
    let frame = bounded(frame as u64, MAX_FRAMES as u64 - 1) as usize;
    // SAFETY: below MAX_FRAMES by the mask.
    state.places[PLACE_KEPT as usize] = unsafe { *state.kept.get_unchecked(frame) };
    state.step = 0;
    state.used = 0;
    state.failed = 0;
    state.missing = 0;
    interpret(state, plan);
    // SAFETY: as above; volatile, because `interpret` wrote it.
    unsafe {
        let kept = read_volatile(&raw const state.places[PLACE_KEPT as usize]);
        *state
            .kept
            .get_unchecked_mut(bounded(frame as u64, MAX_FRAMES as u64 - 1) as usize) = kept;
    }
    // SAFETY: places in the map value; volatile, because `interpret` wrote them.
    let (used, failed, missing) = unsafe {
        (
            read_volatile(&raw const state.used),
            read_volatile(&raw const state.failed),
            read_volatile(&raw const state.missing),
        )
    };
    if missing != 0 {
        count(Counter::LostCaptures);
    }
    if used != 0 || failed != 0 {
        state.record = CaptureRecord {
            kind: RecordKind::Capture as u32,
            plan: id,
            span_id,
            len: used,
            reserved: 0,
        };
        send(state, used as u64);
    }
    failed != 0
}

/// Sends the record with `used` bytes of items.
#[inline(always)]
fn send(state: &CaptureState, used: u64) {
    const ALL: u64 = (ROOM + MAX_TEXT + 16) as u64;
    let used = bounded(used, ALL.next_power_of_two() - 1);
    if used > ALL {
        return;
    }
    // SAFETY: a map of the right kind; record and items are one piece of memory.
    let result = unsafe {
        bpf_ringbuf_output(
            emit::spans(),
            (&raw const state.record).cast_mut().cast(),
            CaptureRecord::SIZE as u64 + used,
            wake_flags(),
        )
    };
    if result != 0 {
        count(Counter::LostCaptures);
    }
}

/// `value & mask` in a form that the compiler can't drop and the verifier sees.
#[inline(always)]
pub fn bounded(mut value: u64, mask: u64) -> u64 {
    // SAFETY: a move to itself.
    unsafe { asm!("{0} = {0}", inout(reg) value) };
    value & mask
}

/// What the interpreter runs on.
#[repr(C)]
struct Job {
    state: *mut CaptureState,
    plan: *const Plan,
}

#[inline(always)]
fn interpret(state: &mut CaptureState, plan: &Plan) {
    let mut job = Job {
        state: &raw mut *state,
        plan: &raw const *plan,
    };
    repeat(MAX_STEPS as u32, take_step, &raw mut job);
}

/// One turn; the last one is that of the last step.
#[inline(never)]
extern "C" fn take_step(_: u64, job: *mut Job) -> u64 {
    // SAFETY: see `interpret`; the machine is the running thread's alone, plans never change.
    let (state, plan) = unsafe { (&mut *(*job).state, &*(*job).plan) };
    // SAFETY: a place in the map value; volatile, see the module.
    let at = unsafe { read_volatile(&raw const state.step) } as usize;
    if at >= MAX_STEPS {
        return END;
    }
    let at = bounded(at as u64, 255) as usize;
    if at >= MAX_STEPS {
        return END;
    }
    // SAFETY: below the number of steps.
    let step = unsafe { plan.steps.get_unchecked(at) };
    if step.code == Code::End as u8 {
        return END;
    }
    let next = perform(state, step, at as u32 + 1);
    // SAFETY: as above.
    unsafe { write_volatile(&raw mut state.step, next) };
    NEXT
}

/// Performs a step; answers the next one.
#[inline(always)]
fn perform(state: &mut CaptureState, step: &Step, next: u32) -> u32 {
    let place = bounded(step.a as u64, PLACES as u64 - 1) as usize;
    // SAFETY: a place in the map value; volatile, see the module.
    let value = unsafe { read_volatile(&raw const state.value) };
    let code = step.code;
    if code >= Code::Item as u8 {
        return report(state, step, place, value, next);
    }
    let result = if code == Code::Place as u8 {
        // SAFETY: below PLACES by the mask.
        unsafe { *state.places.get_unchecked(place) }
    } else if code == Code::Constant as u8 {
        step.operand
    } else if code == Code::Add as u8 {
        value.wrapping_add(step.operand)
    } else if code == Code::Load as u8 {
        match load(value, step.a) {
            Some(loaded) => loaded,
            None => {
                state.missing = 1;
                item(state, step.key, ItemKind::Unreadable, 0);
                return step.to;
            }
        }
    } else if code == Code::Keep as u8 {
        // SAFETY: below PLACES by the mask.
        unsafe { *state.places.get_unchecked_mut(place) = value };
        value
    } else if code == Code::Subtract as u8 {
        // SAFETY: as above.
        value.wrapping_sub(unsafe { *state.places.get_unchecked(place) })
    } else if code == Code::Divide as u8 {
        if step.operand == 0 {
            0
        } else {
            value / step.operand
        }
    } else if code == Code::Bits as u8 {
        (value >> (step.a & 63)) & step.operand
    } else if code == Code::Sign as u8 {
        let shift = 64u64.wrapping_sub(step.a as u64) & 63;
        ((value << shift) as i64 >> shift) as u64
    } else if code == Code::AddPlace as u8 {
        // SAFETY: as above.
        value.wrapping_add(unsafe { *state.places.get_unchecked(place) })
    } else if code == Code::GoText as u8 {
        match go::text_offset(value) {
            Some(offset) => offset,
            None => return step.to,
        }
    } else if code == Code::Errno as u8 {
        match layout::errno() {
            // SAFETY: as above.
            Some(distance) => unsafe { *state.places.get_unchecked(PLACE_FS as usize) }
                .wrapping_add(distance as u64),
            None => {
                state.missing = 1;
                item(state, step.key, ItemKind::Unreadable, 0);
                return step.to;
            }
        }
    } else {
        if compare(step.a, value, step.operand) {
            return step.to;
        }
        value
    };
    // SAFETY: as above.
    unsafe { write_volatile(&raw mut state.value, result) };
    next
}

#[inline(always)]
fn load(address: u64, size: u8) -> Option<u64> {
    match size {
        1 => user_at::<u8>(address).map(|value| value as u64),
        2 => user_at::<u16>(address).map(|value| value as u64),
        4 => user_at::<u32>(address).map(|value| value as u64),
        _ => user_at::<u64>(address),
    }
}

#[inline(always)]
fn compare(how: u8, value: u64, with: u64) -> bool {
    let (signed, signed_with) = (value as i64, with as i64);
    if how == Compare::Equal as u8 {
        value == with
    } else if how == Compare::NotEqual as u8 {
        value != with
    } else if how == Compare::Less as u8 {
        signed < signed_with
    } else if how == Compare::LessEqual as u8 {
        signed <= signed_with
    } else if how == Compare::Below as u8 {
        value < with
    } else if how == Compare::BelowEqual as u8 {
        value <= with
    } else if how == Compare::Greater as u8 {
        signed > signed_with
    } else if how == Compare::GreaterEqual as u8 {
        signed >= signed_with
    } else if how == Compare::Above as u8 {
        value > with
    } else {
        value >= with
    }
}

/// The steps that report something.
#[inline(always)]
fn report(state: &mut CaptureState, step: &Step, place: usize, value: u64, next: u32) -> u32 {
    let code = step.code;
    if code == Code::Fail as u8 {
        state.failed = 1;
    } else if code == Code::Null as u8 {
        item(state, step.key, ItemKind::Null, 0);
    } else if code == Code::Item as u8 {
        item(state, step.key, ItemKind::Value, value);
    } else {
        // SAFETY: below PLACES by the mask.
        let full = unsafe { *state.places.get_unchecked(place) };
        text(state, step, value, full);
    }
    next
}

/// Where the next item begins; `None` where there is no room for another.
#[inline(always)]
fn begin(state: &mut CaptureState) -> Option<usize> {
    // SAFETY: a place in the map value; volatile, see the module.
    let used = unsafe { read_volatile(&raw const state.used) } as u64;
    if used >= ROOM as u64 {
        return None;
    }
    Some(bounded(used, ROOM as u64 - 8) as usize)
}

/// Writes an item of at most eight bytes.
#[inline(always)]
fn item(state: &mut CaptureState, key: u8, kind: ItemKind, value: u64) {
    let Some(at) = begin(state) else {
        state.missing = 1;
        return;
    };
    let head = ItemHead {
        key,
        kind: kind as u8,
        len: 0,
        full: 0,
    };
    let with_value = kind as u8 == ItemKind::Value as u8;
    // SAFETY: `at` is a multiple of eight below ROOM, and behind ROOM there is space for an item.
    unsafe {
        let place = state.items.as_mut_ptr().add(at);
        place.cast::<ItemHead>().write(head);
        if with_value {
            place.add(8).cast::<u64>().write(value);
        }
        write_volatile(
            &raw mut state.used,
            at as u32 + if with_value { 16 } else { 8 },
        );
    }
}

/// Copies a string.
#[inline(always)]
fn text(state: &mut CaptureState, step: &Step, address: u64, len: u64) {
    let Some(at) = begin(state) else {
        state.missing = 1;
        return;
    };
    let limit = if step.operand < MAX_TEXT as u64 {
        step.operand
    } else {
        MAX_TEXT as u64
    };
    // SAFETY: as in `item`.
    let place = unsafe { state.items.as_mut_ptr().add(at) };
    // SAFETY: within the items, see `item`.
    let to = unsafe { place.add(8) };
    let (copied, full, failed);
    if step.code == Code::CString as u8 {
        let size = bounded(limit, 1023) + 1;
        if size > MAX_TEXT as u64 + 1 {
            return;
        }
        // SAFETY: `size` bytes fit behind the head of the last item that may begin.
        let got = unsafe { bpf_probe_read_user_str(to.cast(), size as u32, address as *const _) };
        failed = got < 1;
        copied = (got as u64).wrapping_sub(1);
        full = if copied >= limit {
            u32::MAX as u64
        } else {
            copied
        };
    } else {
        let size = bounded(if len < limit { len } else { limit }, 1023);
        if size > MAX_TEXT as u64 {
            return;
        }
        // SAFETY: as above.
        failed = unsafe { bpf_probe_read_user(to.cast(), size as u32, address as *const _) } != 0;
        copied = size;
        full = len;
    }
    let copied = if failed { 0 } else { bounded(copied, 1023) };
    let head = ItemHead {
        key: step.key,
        kind: if failed {
            ItemKind::Unreadable
        } else {
            ItemKind::Text
        } as u8,
        len: copied as u16,
        full: full as u32,
    };
    // SAFETY: as above.
    unsafe {
        place.cast::<ItemHead>().write(head);
        if failed {
            state.missing = 1;
        }
        write_volatile(
            &raw mut state.used,
            at as u32 + 8 + ((copied as u32 + 7) & !7),
        );
    }
}
