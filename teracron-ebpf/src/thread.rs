//! The frame table of a thread: finding it, opening a frame, ending frames.
//!
//! Frames end in two steps, so that the verifier sees two short walks instead of one long one: a
//! scan marks what has ended ([`mark`]), then [`flush`] sends what is marked and gives the places
//! back.

use core::{
    arch::asm,
    ptr::{read_volatile, write_volatile},
};

use teracron_common::{
    Counter, End, Frame, MAX_FRAMES, SpanRecord, ThreadState, Walk,
    record::UNKNOWN_DELTA,
    thread::{FRAME_ENDED, FRAME_FREE, FRAME_LOST, FRAME_OPEN},
};

use crate::{
    capture, emit,
    kernel::{END, NEXT, Turn, count, memory_now, random_seed, repeat},
    maps::{EMPTY_THREAD, TARGETS, THREADS},
};

/// Reads or writes one word of the walk's state.
macro_rules! walk {
    ($state:expr, $field:ident) => {
        // SAFETY: a place in the map value; volatile, see `Walk`.
        unsafe { core::ptr::read_volatile(&raw const (*$state).walk.$field) }
    };
    ($state:expr, $field:ident = $value:expr) => {
        // SAFETY: a place in the map value; volatile, see `Walk`.
        unsafe { core::ptr::write_volatile(&raw mut (*$state).walk.$field, $value) }
    };
}
pub(crate) use walk;

/// The frame table of a thread or goroutine, where it has one.
#[inline(always)]
pub fn find(key: u64) -> Option<&'static mut ThreadState> {
    let state = THREADS.get_ptr_mut(key)?;
    // SAFETY: a map value; only its owner's programs write it: a thread's, which never nest, or those
    // of a goroutine, which runs on one thread at a time.
    Some(unsafe { &mut *state })
}

/// Why a thread has no frame table.
pub enum NoTable {
    /// Its process is not traced.
    NotTraced,
    /// There are too many threads.
    Full,
}

/// Makes a frame table for a thread or goroutine of a traced process.
#[inline(always)]
pub fn create(tgid: u32, key: u64) -> Result<&'static mut ThreadState, NoTable> {
    if TARGETS.get_ptr(tgid).is_none() {
        return Err(NoTable::NotTraced);
    }
    let empty = EMPTY_THREAD.get_ptr(0).ok_or(NoTable::Full)?;
    // SAFETY: a map value of zeros that nothing writes.
    THREADS
        .insert(key, unsafe { &*empty }, 0)
        .map_err(|_| NoTable::Full)?;
    let state = find(key).ok_or(NoTable::Full)?;
    state.tgid = tgid;
    state.key = key;
    state.random = random_seed();
    Ok(state)
}

/// The frame in place `index` (modulo the table's size).
#[inline(always)]
pub fn frame(state: &mut ThreadState, index: usize) -> &mut Frame {
    let mut bounded = index & (MAX_FRAMES - 1);
    // Behind this the compiler can neither drop the mask nor derive the frame's address from
    // another iteration's, which the verifier could not follow.
    // SAFETY: a move to itself.
    unsafe { asm!("{0} = {0}", inout(reg) bounded) };
    let bounded = bounded & (MAX_FRAMES - 1);
    // SAFETY: below MAX_FRAMES by the mask; a plain index would leave a panic in the code.
    unsafe { state.frames.get_unchecked_mut(bounded) }
}

/// What becomes of a frame that is left: `state`, or nothing where sampling leaves its trace out.
/// Without a branch, which would double the verifier's work in every turn of a loop.
#[inline(always)]
pub fn left(frame: &Frame, state: u8) -> u8 {
    const { assert!(FRAME_FREE == 0) };
    state & frame.unsampled.wrapping_sub(1)
}

/// Marks a frame as ended.
#[inline(always)]
pub fn mark(frame: &mut Frame, end: End, at_ns: u64) {
    mark_as(frame, end as u8, at_ns);
}

/// The same, by the number of an [`End`].
#[inline(always)]
pub fn mark_as(frame: &mut Frame, end: u8, at_ns: u64) {
    frame.state = left(frame, FRAME_ENDED);
    frame.record.end = end;
    frame.record.end_ns = at_ns;
}

/// Marks a frame as ended, nobody can tell how.
#[inline(always)]
pub fn lose(frame: &mut Frame) {
    frame.state = left(frame, FRAME_LOST);
}

/// Turns what a record says of the memory at the span's beginning into what it did.
#[inline(always)]
pub fn account_memory(record: &mut SpanRecord, now: [u32; 2]) {
    let [pages, faults] = now;
    // All ones where both are known, without a branch: see `left`.
    let (before, after) = (record.rss_pages as u64, pages as u64);
    let mut known = (before | before.wrapping_neg()) & (after | after.wrapping_neg());
    known = (known as i64 >> 63) as u64;
    // SAFETY: a move to itself, which keeps the compiler from making it a branch again.
    unsafe { asm!("{0} = {0}", inout(reg) known) };
    let known = known as u32;
    let delta = pages.wrapping_sub(record.rss_pages);
    record.rss_delta = (delta & known | UNKNOWN_DELTA as u32 & !known) as i32;
    record.rss_pages = pages;
    record.page_faults = faults.wrapping_sub(record.page_faults);
}

/// The table that is walked over, as a turn gets it.
pub type Table = *mut *mut ThreadState;

/// Walks over the frames, from the youngest down, until a turn ends it. `walk` is what the turns find in the table: there
/// and not in registers, see [`Walk`].
#[inline(always)]
pub fn each_frame(state: &mut ThreadState, walk: Walk, turn: Turn<*mut ThreadState>) {
    // One by one: as a whole it would first be put together on the stack, of which there are 512 bytes for all calls.
    let depth = state.depth;
    walk!(state, cursor = depth);
    walk!(state, found = walk.found);
    walk!(state, second = walk.second);
    walk!(state, marked = walk.marked);
    walk!(state, cfa = walk.cfa);
    walk!(state, low = walk.low);
    walk!(state, now = walk.now);
    walk!(state, what = walk.what);
    walk!(state, jump_ns = walk.jump_ns);
    let mut table = &raw mut *state;
    repeat(MAX_FRAMES as u32, turn, &raw mut table);
}

/// The table that a turn got, and the place that comes next; `None` where there is none.
#[inline(always)]
pub fn step<'a>(table: Table) -> Option<(&'a mut ThreadState, usize)> {
    // SAFETY: a map value that only its owner's programs write, see `find`; `each_frame` lends it to its turns.
    let state = unsafe { &mut **table };
    let cursor = walk!(state, cursor);
    if cursor == 0 {
        return None;
    }
    walk!(state, cursor = cursor - 1);
    Some((state, (cursor - 1) as usize))
}

/// Sends the spans of all marked frames, the innermost first, and gives their places back.
///
/// `TEXT`: frames that an exception left carry its type and text.
#[inline(always)]
pub fn flush<const TEXT: bool>(state: &mut ThreadState) {
    let now = memory_now();
    // SAFETY: a place in the map value; volatile, see `Walk`.
    unsafe { write_volatile(&raw mut state.memory, now) };
    each_frame(state, Walk::PLAIN, flush_one::<TEXT>);
    state.depth = walk!(state, found);
    state.holes = walk!(state, second);
}

/// Closes holes where there are many. Places that were found before are others then.
#[inline(always)]
pub fn tidy(state: &mut ThreadState) {
    if state.holes >= MANY_HOLES {
        close_holes(state);
    }
}

/// Free places below open ones that are let be.
const MANY_HOLES: u32 = 8;

/// Moves open frames down into free places: calls of fibers and greenlets don't end in the order in which they
/// began.
#[inline(never)]
fn close_holes(state: &mut ThreadState) -> u32 {
    let walk = Walk {
        what: state.depth as u64,
        ..Walk::PLAIN
    };
    each_frame(state, walk, close_one);
    state.depth = walk!(state, found);
    state.holes = 0;
    0
}

/// The walk comes from above, this goes upwards.
#[inline(never)]
extern "C" fn close_one(_: u64, table: Table) -> u64 {
    let Some((state, index)) = step(table) else {
        return END;
    };
    let from = (walk!(state, what) as usize).wrapping_sub(index + 1);
    let to = walk!(state, found);
    let key = state.key;
    let source = frame(state, from);
    if source.state != FRAME_OPEN {
        return NEXT;
    }
    if to as usize != from {
        let source = &raw mut *source;
        let target = &raw mut *frame(state, to as usize);
        // SAFETY: two places of one table, both kept within it by `frame`. Not by way of the stack, see `each_frame`.
        unsafe {
            core::ptr::copy_nonoverlapping(source, target, 1);
            (*source).state = FRAME_FREE;
        }
        capture::move_kept(key, from, to as usize);
    }
    walk!(state, found = to + 1);
    NEXT
}

/// Makes room in a full table; whether there is any, the depth says.
#[inline(never)]
pub fn make_room(state: &mut ThreadState) -> u32 {
    if state.holes != 0 {
        close_holes(state);
    }
    0
}

#[inline(never)]
extern "C" fn flush_one<const TEXT: bool>(_: u64, table: Table) -> u64 {
    let Some((state, index)) = step(table) else {
        return END;
    };
    // SAFETY: as above.
    let now = unsafe { read_volatile(&raw const state.memory) };
    let key = state.key;
    let frame = frame(state, index);
    let mark = frame.state;
    if mark == FRAME_OPEN {
        if walk!(state, found) == 0 {
            walk!(state, found = index as u32 + 1);
        }
        return NEXT;
    }
    frame.state = FRAME_FREE;
    if mark == FRAME_ENDED {
        account_memory(&mut frame.record, now);
        // What returned did not fail, and what a rule failed has its own text.
        let has_text =
            TEXT && frame.record.end != End::Returned as u8 && frame.record.end != End::Rule as u8;
        let sent = has_text && emit::send_with_text(&frame.record, key);
        if !sent {
            emit::send(&frame.record);
        }
    } else if mark == FRAME_LOST {
        count(Counter::LostEnds);
    }
    if walk!(state, found) != 0 {
        let holes = walk!(state, second);
        walk!(state, second = holes + 1);
    }
    NEXT
}
