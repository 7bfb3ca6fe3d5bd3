//! How much memory there is for what is read.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    sync::OnceLock,
};

/// What a process that can open no file any more knows.
struct Kept {
    /// `/proc/self/statm`.
    own: Option<File>,
    /// What the control group and the machine had left.
    rest: Option<u64>,
}

static KEPT: OnceLock<Kept> = OnceLock::new();

/// Looks while files can still be opened, for later.
pub fn keep() {
    // It is read from a file the first time.
    rustix::param::page_size();
    KEPT.get_or_init(|| Kept {
        own: File::open("/proc/self/statm").ok(),
        rest: [control_group(), machine()].into_iter().flatten().min(),
    });
}

/// Bytes that may still be taken: of the address space where that is limited, of the control group's memory, of the
/// machine's. What can't be read limits nothing.
pub fn left() -> u64 {
    let rest = match KEPT.get() {
        Some(kept) => kept.rest,
        None => [control_group(), machine()].into_iter().flatten().min(),
    };
    [address_space(), rest]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(u64::MAX)
}

fn address_space() -> Option<u64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::As).current?;
    let statm = match KEPT.get() {
        Some(kept) => {
            let mut text = [0; 128];
            let read = kept.own.as_ref()?.read_at(&mut text, 0).ok()?;
            String::from_utf8_lossy(text.get(..read)?).into_owned()
        }
        None => fs::read_to_string("/proc/self/statm").ok()?,
    };
    let pages: u64 = statm.split(' ').next()?.parse().ok()?;
    Some(limit.saturating_sub(pages.saturating_mul(rustix::param::page_size() as u64)))
}

/// Of the group that the agent is in and those above it (version 2); page cache counts as used, though the kernel
/// would give it up, so it is added again.
fn control_group() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mut folder = std::path::Path::new("/sys/fs/cgroup").join(path);
    let mut least = None;
    while folder.starts_with("/sys/fs/cgroup") {
        let number = |name: &str| -> Option<u64> {
            fs::read_to_string(folder.join(name))
                .ok()?
                .trim()
                .parse()
                .ok()
        };
        if let (Some(most), Some(used)) = (number("memory.max"), number("memory.current")) {
            let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
            let cached: u64 = ["inactive_file ", "active_file "]
                .iter()
                .filter_map(|name| stat.lines().find_map(|line| line.strip_prefix(name)))
                .filter_map(|value| value.parse::<u64>().ok())
                .fold(0, u64::saturating_add);
            let left = most.saturating_sub(used.saturating_sub(cached));
            least = Some(least.map_or(left, |least: u64| least.min(left)));
        }
        folder.pop();
    }
    least
}

fn machine() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_some() {
        let machine = machine().unwrap();
        assert!(left() <= machine.saturating_add(1 << 30));
        assert!(left() > 0);
    }
}
