//! What the kernel says of breakpoints that it could not take out.

use std::{fs, process::Command};

use crate::shell::{Result, output};

/// The kernel's log from a moment on.
pub(super) struct KernelLog {
    /// Seconds since the boot.
    from: f64,
}

impl KernelLog {
    /// From now on.
    pub(super) fn from_now() -> Result<Self> {
        let text = fs::read_to_string("/proc/uptime").map_err(|error| error.to_string())?;
        let from = text.split(' ').next().and_then(|text| text.parse().ok());
        let from = from.ok_or("/proc/uptime has no number")?;
        Ok(Self { from })
    }

    /// How many breakpoints of the agent's the kernel keeps in its books, until the next boot.
    pub(super) fn leaked(&self) -> Result<usize> {
        Ok(leaked(&output(&mut Command::new("dmesg"))?, self.from))
    }
}

fn leaked(log: &str, from: f64) -> usize {
    log.lines()
        .filter(|line| line.contains("teracron") && line.contains("leaking uprobe"))
        .filter_map(|line| {
            line.strip_prefix('[')?
                .split(']')
                .next()?
                .trim()
                .parse()
                .ok()
        })
        .filter(|at: &f64| *at >= from)
        .count()
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_the_agents_lines_since_then_count() {
        let log = "\
[    1.000000] uprobe: teracron-detach:7 failed to unregister, leaking uprobe
[26361.839623] uprobe: teracron-detach:20677 failed to unregister, leaking uprobe
[26361.839700] uprobe: bpftrace:20678 failed to unregister, leaking uprobe
[26362.000000] leaves[23495]: segfault at 8
";
        assert_eq!(super::leaked(log, 26_000.5), 1);
    }
}
