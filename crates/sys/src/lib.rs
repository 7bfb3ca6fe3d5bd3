//! Calls to the system that no library wraps.
//!
//! **Invariant**: this is the only crate of user space with `unsafe` code; each has its reason beside it, and what a
//! caller could do wrong is not in the faces.

pub mod bpf;
pub mod capabilities;
mod child;
mod memory;
#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
mod static_names;
#[cfg(feature = "wait")]
mod wait;
pub mod walls;

pub use child::dies_with_us;
pub use memory::give_back;
#[cfg(feature = "wait")]
pub use wait::readable;

/// Has a static build look names up by what is built in alone, and does nothing in any other. To be called before the
/// first look-up.
pub fn use_built_in_names() {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    static_names::use_only_what_is_built_in();
}

/// Ends the process at once: nothing is run that waits for this end, nothing that is buffered is written.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: no preconditions.
    unsafe { libc::_exit(code) }
}
