//! Whether process ids here are the kernel's own.
//!
//! The kernel side knows processes by their ids in the first pid namespace. In a namespace of its own (a container
//! without the host's) the agent would ask for others, and trace nothing without a word.

use std::fs;

use super::{Check, Verdict};
use model::error::{Error, Result};

/// PROC_PID_INIT_INO (include/linux/proc_ns.h): what the first pid namespace is called.
const FIRST: &str = "pid:[4026531836]";
const REMEDY: &str =
    "share the host's process ids with the container (hostPID: true, --pid=host, pid: host)";

/// `false` only where it is known: procfs may hide it.
fn is_first() -> bool {
    fs::read_link("/proc/self/ns/pid").map_or(true, |name| name.as_os_str() == FIRST)
}

/// For a run that has probes.
///
/// # Errors
/// [`Error::Missing`] in a pid namespace of its own.
pub fn demand() -> Result<()> {
    if is_first() {
        Ok(())
    } else {
        Err(Error::Missing(format!(
            "this container has process ids of its own, by which the kernel knows nobody: {REMEDY}"
        )))
    }
}

pub(super) fn check() -> Check {
    if is_first() {
        Check::ok("process ids", "the kernel's own")
    } else {
        Check::bad(
            "process ids",
            Verdict::Failed,
            "this container has its own, by which the kernel knows nobody",
            REMEDY,
        )
    }
}
