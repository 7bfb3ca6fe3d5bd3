//! The allocator of the C library.

/// Gives memory that is not in use back to the system: after the start, whose tables are large.
pub fn give_back() {
    // SAFETY: no pointers; it may fail without harm.
    unsafe { libc::malloc_trim(0) };
}
