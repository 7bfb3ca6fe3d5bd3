//! A memory limit for a child, and the most that it used.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::shell::Result;

/// A memory cgroup, removed at the end. Either version of cgroups.
pub(super) struct Cgroup {
    folder: PathBuf,
    peak: &'static str,
}

impl Cgroup {
    /// With a limit in bytes.
    pub(super) fn limited(name: &str, bytes: u64) -> Result<Self> {
        let name = format!("{name}-{}", std::process::id());
        let first = Path::new("/sys/fs/cgroup/memory");
        let (folder, limit, peak) = if first.is_dir() {
            (
                first.join(name),
                "memory.limit_in_bytes",
                "memory.max_usage_in_bytes",
            )
        } else {
            let root = Path::new("/sys/fs/cgroup");
            let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
            (root.join(name), "memory.max", "memory.peak")
        };
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let cgroup = Self { folder, peak };
        let file = cgroup.folder.join(limit);
        fs::write(&file, bytes.to_string())
            .map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(cgroup)
    }

    /// The file that a process writes 0 to in order to join.
    pub(super) fn procs(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// The most that was used at a time, in bytes.
    pub(super) fn peak(&self) -> Result<u64> {
        let file = self.folder.join(self.peak);
        fs::read_to_string(&file)
            .map_err(|error| format!("{}: {error}", file.display()))?
            .trim()
            .parse()
            .map_err(|_| format!("{} holds no number", file.display()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}
