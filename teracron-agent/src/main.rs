//! The `teracron-agent` program; everything is in the library.

#![forbid(unsafe_code)]

use std::{alloc::System, process::ExitCode};

use zeroizing_alloc::ZeroAlloc;

/// What is freed is wiped: copies of captured values, messages and keys that libraries make on the way
/// do not outlive their use.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    sys::use_built_in_names();
    teracron_agent::cli::main()
}
