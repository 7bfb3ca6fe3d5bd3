//! Starts a program as a container runtime would: with another root, and exactly some capabilities.

use std::{
    ffi::{CString, OsString},
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    path::PathBuf,
    process::Command,
};

use crate::shell::Result;

/// Numbers of include/uapi/linux/capability.h.
const NUMBERS: [(&str, libc::c_ulong); 10] = [
    ("CHOWN", 0),
    ("DAC_READ_SEARCH", 2),
    ("KILL", 5),
    ("SETGID", 6),
    ("SETUID", 7),
    ("SYS_PTRACE", 19),
    ("SYS_ADMIN", 21),
    ("PERFMON", 38),
    ("BPF", 39),
    ("CHECKPOINT_RESTORE", 40),
];

/// Options of `enter`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Becomes the root of the file system. We must be in a mount namespace of our own, and it a mount point.
    #[arg(long)]
    root: Option<PathBuf>,
    /// Capabilities that stay, without CAP_.
    #[arg(long, value_delimiter = ',')]
    capabilities: Vec<String>,
    /// What is started.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Does not return where it works.
pub(crate) fn enter(options: &Options) -> Result<()> {
    let failed = |what: &str| format!("{what}: {}", std::io::Error::last_os_error());
    if let Some(root) = &options.root {
        std::env::set_current_dir(root).map_err(|error| format!("{}: {error}", root.display()))?;
        let here = CString::new(".").map_err(|error| error.to_string())?;
        // The old root comes to lie on the new one (pivot_root(2), NOTES) and is then taken off.
        // SAFETY: strings with an end.
        if unsafe { libc::syscall(libc::SYS_pivot_root, here.as_ptr(), here.as_ptr()) } != 0 {
            return Err(failed("pivot_root"));
        }
        // SAFETY: a string with an end.
        if unsafe { libc::umount2(here.as_ptr(), libc::MNT_DETACH) } != 0 {
            return Err(failed("umount"));
        }
        std::env::set_current_dir("/").map_err(|error| format!("/: {error}"))?;
    }
    let kept = options
        .capabilities
        .iter()
        .map(|name| {
            NUMBERS
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, number)| *number)
                .ok_or_else(|| format!("no number of CAP_{name} is known"))
        })
        .collect::<Result<Vec<_>>>()?;
    for number in 0..64 {
        if kept.contains(&number) {
            continue;
        }
        // root gets what is in its bounding set when it executes a program (capabilities(7)).
        // SAFETY: no pointers.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
        // The kernel has no capability of that number.
        let unknown = std::io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL);
        if dropped != 0 && !unknown {
            return Err(failed("PR_CAPBSET_DROP"));
        }
    }
    // SAFETY: no pointers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(failed("PR_SET_NO_NEW_PRIVS"));
    }
    let (program, arguments) = options.command.split_first().ok_or("no command")?;
    let error = Command::new(program).args(arguments).exec();
    Err(format!(
        "{}: {error}",
        String::from_utf8_lossy(program.as_bytes())
    ))
}
