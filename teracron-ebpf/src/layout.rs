//! What is known of the running process by address: see `teracron_common::layout`.

use teracron_common::{
    Layout, Placed,
    layout::{NO_ERRNO, layout_of},
};

use crate::{
    kernel::current_ids,
    maps::{LAYOUTS, TARGETS},
};

/// The number of the running process's layout; 0 where nobody has looked at it.
#[inline(always)]
pub fn number() -> u32 {
    let (tgid, _) = current_ids();
    // SAFETY: a map value; user space writes whole words.
    TARGETS
        .get_ptr(tgid)
        .map_or(0, |value| layout_of(unsafe { *value }))
}

/// The layout of this number.
#[inline(always)]
pub fn find(number: u32) -> Option<&'static Layout> {
    // SAFETY: a map value; user space writes it before a process names it, and never again.
    LAYOUTS.get_ptr(number).map(|layout| unsafe { &*layout })
}

/// An address of the running process, as maps know it.
#[inline(always)]
pub fn placed(address: u64) -> Placed {
    Placed {
        address,
        layout: number() as u64,
    }
}

/// Distance of `errno` from the control block of the running process's threads.
#[inline(always)]
pub fn errno() -> Option<i64> {
    let errno = find(number())?.errno;
    if errno == NO_ERRNO { None } else { Some(errno) }
}
