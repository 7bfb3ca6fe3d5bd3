//! The frame table of a thread: finding it, opening a frame, ending frames.
//!
//! Frames end in two steps, so that the verifier sees two short loops instead of one long one: a
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
    emit,
    kernel::{count, memory_now, random_seed},
    maps::{EMPTY_THREAD, TARGETS, THREADS},
};

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
    frame.state = left(frame, FRAME_ENDED);
    frame.record.end = end as u8;
    frame.record.end_ns = at_ns;
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

/// Starts a walk over the frames, from the youngest down.
#[inline(always)]
pub fn start_walk(state: &mut ThreadState) {
    let depth = state.depth;
    let walk = Walk {
        cursor: depth,
        found: 0,
        second: 0,
        marked: 0,
    };
    // SAFETY: a place in the map value; volatile, see `Walk`.
    unsafe { write_volatile(&raw mut state.walk, walk) };
}

/// The next place of the walk.
#[inline(always)]
pub fn step(state: &mut ThreadState) -> Option<usize> {
    // SAFETY: a place in the map value; volatile, see `Walk`.
    unsafe {
        let cursor = read_volatile(&raw const state.walk.cursor);
        if cursor == 0 {
            return None;
        }
        write_volatile(&raw mut state.walk.cursor, cursor - 1);
        Some((cursor - 1) as usize)
    }
}

/// Reads one word of the walk's state.
macro_rules! walk {
    ($state:expr, $field:ident) => {
        // SAFETY: a place in the map value; volatile, see `Walk`.
        unsafe { core::ptr::read_volatile(&raw const $state.walk.$field) }
    };
    ($state:expr, $field:ident = $value:expr) => {
        // SAFETY: a place in the map value; volatile, see `Walk`.
        unsafe { core::ptr::write_volatile(&raw mut $state.walk.$field, $value) }
    };
}
pub(crate) use walk;

/// Sends the spans of all marked frames, the innermost first, and gives their places back.
///
/// `TEXT`: frames that an exception left carry its type and text.
#[inline(always)]
pub fn flush<const TEXT: bool>(state: &mut ThreadState) {
    start_walk(state);
    let key = state.key;
    let now = memory_now();
    // SAFETY: a place in the map value; volatile, see `Walk`.
    unsafe { write_volatile(&raw mut state.memory, now) };
    for _ in 0..MAX_FRAMES {
        let Some(index) = step(state) else {
            break;
        };
        // SAFETY: as above.
        let now = unsafe { read_volatile(&raw const state.memory) };
        let frame = frame(state, index);
        let mark = frame.state;
        if mark == FRAME_OPEN {
            if walk!(state, found) == 0 {
                walk!(state, found = index as u32 + 1);
            }
            continue;
        }
        frame.state = FRAME_FREE;
        if mark == FRAME_ENDED {
            account_memory(&mut frame.record, now);
            // What returned did not fail, and what a rule failed has its own text.
            let has_text = TEXT
                && frame.record.end != End::Returned as u8
                && frame.record.end != End::Rule as u8;
            let sent = has_text && emit::send_with_text(&frame.record, key);
            if !sent {
                emit::send(&frame.record);
            }
        } else if mark == FRAME_LOST {
            count(Counter::LostEnds);
        }
    }
    state.depth = walk!(state, found);
}
