//! Executable memory of a process that is in no file, or in one that can change: nobody knows what code is there, or
//! will be.

use std::collections::HashSet;

use procfs::process::{MMPermissions, MMapPath, MemoryMap, MemoryMaps, Process as ProcProcess};

use super::{Module, Process, face};

/// Kinds of memory that look like files and are none.
const NO_FILES: [&str; 4] = ["/memfd:", "/dev/zero", "/SYSV", "/dev/shm/"];

/// Executable memory.
pub(super) struct Mapped {
    maps: MemoryMaps,
    pid: u32,
}

impl Mapped {
    /// What a process has mapped.
    ///
    /// # Errors
    /// Where that can't be read: the reason, for people.
    pub(super) fn of(process: &Process) -> Result<Self, String> {
        Self::of_pid(process.pid)
    }

    fn of_pid(pid: u32) -> Result<Self, String> {
        ProcProcess::new(face(pid) as i32)
            .and_then(|found| found.maps())
            .map(|maps| Self { maps, pid })
            .map_err(|error| format!("what process {pid} has mapped can't be read ({error})"))
    }

    fn executable(&self) -> impl Iterator<Item = &MemoryMap> {
        self.maps
            .iter()
            .filter(|map| map.perms.contains(MMPermissions::EXECUTE))
    }

    /// Whether each file that is mapped executable is among these.
    pub(super) fn are_all_in(&self, modules: &[Module]) -> bool {
        let known: HashSet<u64> = modules.iter().map(|module| module.key.ino).collect();
        self.executable()
            .all(|map| !matches!(map.pathname, MMapPath::Path(_)) || known.contains(&map.inode))
    }

    /// What of it is in no file that stays as it is: a sentence.
    pub(super) fn generated(&self) -> Option<String> {
        let pid = self.pid;
        let written: HashSet<((i32, i32), u64)> = self
            .maps
            .iter()
            .filter(|map| {
                map.perms
                    .contains(MMPermissions::WRITE | MMPermissions::SHARED)
                    && map.inode != 0
            })
            .map(|map| (map.dev, map.inode))
            .collect();
        self.executable().find_map(|map| match &map.pathname {
            MMapPath::Path(path) => {
                let path = path.to_string_lossy();
                let is_written = map.perms.contains(MMPermissions::WRITE)
                    || written.contains(&(map.dev, map.inode));
                (is_written || NO_FILES.iter().any(|kind| path.starts_with(kind))).then(|| {
                    format!(
                        "process {pid} generates code while it runs, in a mapping that it can write"
                    )
                })
            }
            MMapPath::Vdso | MMapPath::Vvar | MMapPath::Vsyscall => None,
            // The kernel's own, for probes.
            MMapPath::Other(name) if name == "uprobes" || name == "uprobes-trampoline" => None,
            _ => Some(format!("process {pid} generates code while it runs")),
        })
    }
}
