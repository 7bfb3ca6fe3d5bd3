//! Processes, as `/proc` tells of them, and signals to them.

use std::fs;

/// A line of `/proc/ID/status`; `None` where there is no such process or thread any more.
pub fn status_of(id: u32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// Sends a signal to a process that is there.
pub fn kill(pid: u32, signal: i32) {
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::kill(pid as i32, signal) }, 0);
}
