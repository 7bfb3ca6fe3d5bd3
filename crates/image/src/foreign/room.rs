//! How much memory there is for what is read.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
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

/// Of the group that we are in and those above it.
fn control_group() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let of = |version: &Version, path: &str| {
        let top = Path::new(version.top);
        let folder = top.join(path.trim_start_matches('/'));
        let groups = folder.ancestors().take_while(|it| it.starts_with(top));
        groups.filter_map(|group| version.left(group)).min()
    };
    groups
        .lines()
        .filter_map(|line| {
            if let Some(path) = line.strip_prefix("0::") {
                return of(&SECOND, path);
            }
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let is_memory = controllers.split(',').any(|name| name == "memory");
            is_memory.then(|| of(&FIRST, path)).flatten()
        })
        .min()
}

/// How a version of control groups calls things (Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst).
struct Version {
    top: &'static str,
    most: &'static str,
    used: &'static str,
    /// Of `memory.stat`: page cache, which counts as used, though the kernel would give it up.
    cached: [&'static str; 2],
}

const FIRST: Version = Version {
    top: "/sys/fs/cgroup/memory",
    most: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    cached: ["total_inactive_file ", "total_active_file "],
};

const SECOND: Version = Version {
    top: "/sys/fs/cgroup",
    most: "memory.max",
    used: "memory.current",
    cached: ["inactive_file ", "active_file "],
};

impl Version {
    /// What a group may still take; `None` where it has no limit.
    fn left(&self, group: &Path) -> Option<u64> {
        let number = |name: &str| -> Option<u64> {
            let text = fs::read_to_string(group.join(name)).ok()?;
            text.trim().parse().ok()
        };
        let (most, used) = (number(self.most)?, number(self.used)?);
        let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let cached = self
            .cached
            .iter()
            .filter_map(|name| stat.lines().find_map(|line| line.strip_prefix(name)))
            .filter_map(|value| value.parse::<u64>().ok())
            .fold(0, u64::saturating_add);
        Some(most.saturating_sub(used.saturating_sub(cached)))
    }
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

    #[test]
    fn of_both_versions_of_groups() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(SECOND.left(folder.path()), None);
        write("memory.max", "max\n");
        write("memory.current", "70\n");
        assert_eq!(SECOND.left(folder.path()), None);
        write("memory.max", "100\n");
        write(
            "memory.stat",
            "inactive_file 5\nactive_file 15\ntotal_inactive_file 30\n",
        );
        assert_eq!(SECOND.left(folder.path()), Some(50));
        write("memory.limit_in_bytes", "1000\n");
        write("memory.usage_in_bytes", "2000\n");
        assert_eq!(FIRST.left(folder.path()), Some(0));
    }
}
