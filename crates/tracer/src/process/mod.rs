//! The process that is watched, and the files that are mapped into it.
//!
//! Everything is reached through `/proc/PID`, so a process in a container is found by its pid here,
//! and its files are the ones that it mapped: `map_files` leads to the very file, even if it has
//! been deleted or replaced since.

mod census;
mod face;
mod facts;
mod identity;
mod layout;
mod mapped;
mod module;
mod moving;
mod namespace;

use std::{fs, io, os::fd::OwnedFd, path::Path};

use procfs::{
    ProcError,
    process::{Process as ProcProcess, Stat},
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use teracron_common::config::FileId;

use image::foreign::Root;
use model::{
    error::{Context as _, Error, Result},
    text,
};

pub use census::{Family, descendants, maps_any, runs_file};
pub use face::{face, is_living_thread, living_thread};
pub use facts::still_allows_returns;
pub use identity::identity;
pub use layout::{Layout, Layouts};
pub use module::{Module, Range, loadable, too_many_files, trust_root_of};
pub use moving::{moves_text, text_was_moved};
pub use namespace::of as mount_namespace;

/// `PF_KTHREAD` of include/linux/sched.h.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// A running process.
#[derive(Debug)]
pub struct Process {
    /// Process id, as seen from here.
    pub pid: u32,
    /// Clock ticks from boot to its start: tells it from a later process with the same id.
    pub start_time: u64,
    /// Its name, at most 15 bytes, escaped.
    pub comm: String,
}

impl Process {
    /// Finds a process.
    ///
    /// # Errors
    /// Where there is none, or one that has no user code.
    pub fn find(pid: u32) -> Result<Self> {
        let raw = i32::try_from(pid)
            .ok()
            .filter(|pid| *pid > 0)
            .ok_or_else(|| Error::Usage(format!("{pid} is not a process id")))?;
        let gone = || Error::NotFound(format!("no process has the id {pid}"));
        let process = ProcProcess::new(raw).map_err(|_| gone())?;
        let stat = process.stat().map_err(|_| gone())?;
        if let Ok(status) = process.status()
            && status.tgid != raw
        {
            return Err(Error::NotFound(format!(
                "{pid} is a thread of process {}: use --pid {}",
                status.tgid, status.tgid
            )));
        }
        let comm = text::escape(&stat.comm, 32);
        if is_dead(pid, &stat) {
            return Err(Error::NotFound(format!(
                "process {pid} ({comm}) has ended already; its parent has not yet noticed (zombie)"
            )));
        }
        if stat.flags & KERNEL_THREAD != 0 {
            return Err(Error::NotFound(format!(
                "process {pid} ({comm}) is a kernel thread: it has no functions that can be probed"
            )));
        }
        Ok(Self {
            pid,
            start_time: stat.starttime,
            comm,
        })
    }

    /// Whether it is still the same process, and alive.
    pub fn is_alive(&self) -> bool {
        ProcProcess::new(self.pid as i32)
            .and_then(|process| process.stat())
            .is_ok_and(|stat| stat.starttime == self.start_time && !is_dead(self.pid, &stat))
    }

    /// The files that are mapped executable, the main program first.
    ///
    /// # Errors
    /// [`Error::Missing`] where a privilege is missing; otherwise that it has ended.
    pub fn modules(&self) -> Result<Vec<Module>> {
        let what = || format!("process {} ({})", self.pid, self.comm);
        match module::of_process(self.pid) {
            Err(ProcError::PermissionDenied(_)) => Err(Error::Missing(format!(
                "what {} has mapped may not be read: CAP_SYS_PTRACE is missing here (use sudo; in a container or unit, add it)",
                what()
            ))),
            Ok((modules, true)) if modules.is_empty() => Err(Error::Missing(format!(
                "the files that {} has mapped may not be opened: CAP_SYS_PTRACE, or for a program in another mount namespace \
                 CAP_CHECKPOINT_RESTORE, is missing here (`teracron-agent doctor` lists all)",
                what()
            ))),
            read => read
                .map(|(modules, _)| modules)
                .not_found(|| format!("cannot read what {} has mapped", what())),
        }
    }

    /// Whether it runs under a seccomp filter.
    pub fn has_seccomp_filter(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/status", face(self.pid))).is_ok_and(|status| {
            status
                .lines()
                .find_map(|line| line.strip_prefix("Seccomp:"))
                .is_some_and(|mode| mode.trim() != "0")
        })
    }

    /// A descriptor that becomes readable when the process ends.
    pub fn pidfd(&self) -> io::Result<OwnedFd> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(pidfd_open(pid, PidfdFlags::empty())?)
    }
}

/// The root folder of a process.
///
/// # Errors
/// Where the process has ended or is not ours to look at.
pub(crate) fn root_of(pid: u32) -> io::Result<Root> {
    Root::at(Path::new(&format!("/proc/{}/root", face(pid))))
}

/// A zombie, or dead, and not in its main thread alone.
fn is_dead(pid: u32, stat: &Stat) -> bool {
    matches!(stat.state, 'Z' | 'X' | 'x') && living_thread(pid).is_none()
}

/// The name of a process, escaped; empty once it has ended.
pub fn comm_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .map(|comm| text::escape(comm.trim_end_matches('\n'), 32))
        .unwrap_or_default()
}

/// Ids of all processes.
pub fn all_pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The executable of a process, as the kernel side compares it.
pub fn executable_id(pid: u32) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = fs::metadata(format!("/proc/{}/exe", face(pid))).ok()?;
    Some(FileId::from_stat(metadata.dev(), metadata.ino()))
}
