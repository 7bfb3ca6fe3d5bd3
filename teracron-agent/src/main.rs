//! The `teracron-agent` program; everything is in the library.

#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
mod static_names;

use std::{alloc::System, process::ExitCode};

use zeroizing_alloc::ZeroAlloc;

/// What is freed is wiped: copies of captured values, messages and keys that libraries make on the way
/// do not outlive their use.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    static_names::use_only_what_is_built_in();
    teracron_agent::cli::main()
}
