//! Processes, as `/proc` tells of them, and signals to them.

use std::{fs, process::Command};

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

/// Says that a test runs in a process of its own.
const ALONE: &str = "TERACRON_TEST_ALONE";

/// Runs a test again in a process of its own, where this is not one; then it is done. What holds links to the kernel
/// wants that: programs that other tests start have copies of them for a moment, and let go of them too late.
pub fn done_alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return false;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "--nocapture", test])
        .env(ALONE, "");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    true
}
