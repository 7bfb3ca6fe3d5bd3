//! Walls around a process that reads what others wrote: whatever becomes of it, it can do next to nothing.

use std::{collections::BTreeMap, io};

use crate::capabilities::{Sets, no_new_privileges, set_own};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// What a process is shut in with.
#[derive(Clone, Debug)]
pub struct Walls<'a> {
    /// The user that it becomes, where it is root.
    pub user: u32,
    /// The group; it has no others.
    pub group: u32,
    /// Bytes of address space that it may have, all in all.
    pub address_space: Option<u64>,
    /// Seconds of processor time, after which the kernel kills it.
    pub processor_seconds: Option<u64>,
    /// What it may still ask of the kernel; the rest is refused with `EPERM`.
    pub system_calls: SystemCalls<'a>,
}

/// System calls, by their numbers.
#[derive(Clone, Copy, Debug)]
pub enum SystemCalls<'a> {
    /// These alone.
    Only(&'a [i64]),
    /// All but these.
    AllBut(&'a [i64]),
}

/// Shuts this process in: another user, no capability and no way to get one, no core files, nobody else's eyes
/// (`/proc/PID` is root's), the limits, and the filter of system calls. It dies when the thread of `parent` ends that
/// started it. To be called before it has threads: some of it is each thread's own.
///
/// # Errors
/// Where the kernel refuses one of these: nothing foreign must be read then.
pub fn shut_in(walls: &Walls<'_>, parent: u32) -> io::Result<()> {
    limit(libc::RLIMIT_CORE, 0)?;
    if let Some(bytes) = walls.address_space {
        limit(libc::RLIMIT_AS, bytes)?;
    }
    if let Some(seconds) = walls.processor_seconds {
        limit(libc::RLIMIT_CPU, seconds)?;
    }
    // SAFETY: no preconditions.
    if unsafe { libc::geteuid() } == 0 {
        drop_bounding_set()?;
        become_user(walls.user, walls.group)?;
    }
    drop_capabilities()?;
    no_new_privileges()?;
    prctl(libc::PR_SET_DUMPABLE, 0)?;
    // A change of the user takes it back.
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)?;
    // SAFETY: no preconditions.
    if unsafe { libc::getppid() } != parent.cast_signed() {
        return Err(io::ErrorKind::NotConnected.into());
    }
    filter(walls.system_calls)
}

fn ask(answer: libc::c_int) -> io::Result<()> {
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn prctl(what: libc::c_int, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: only options whose arguments are numbers are passed here.
    ask(unsafe { libc::prctl(what, value, 0, 0, 0) })
}

/// Sets a limit, soft and hard; one that is lower already stays.
fn limit(what: libc::__rlimit_resource_t, most: u64) -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` lives through the call.
    ask(unsafe { libc::getrlimit(what, &mut limit) })?;
    limit.rlim_cur = limit.rlim_cur.min(most);
    limit.rlim_max = limit.rlim_max.min(most);
    // SAFETY: as above.
    ask(unsafe { libc::setrlimit(what, &limit) })
}

/// No program that is run may have a capability.
fn drop_bounding_set() -> io::Result<()> {
    // The kernel knows some forty; the first that it does not know is refused.
    for capability in 0..64 {
        match prctl(libc::PR_CAPBSET_DROP, capability) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            // Without SETPCAP the set can't be changed; no_new_privs holds all the same.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => break,
            dropped => dropped?,
        }
    }
    Ok(())
}

fn become_user(user: u32, group: u32) -> io::Result<()> {
    // SAFETY: no list is passed.
    ask(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: no preconditions.
    ask(unsafe { libc::setresgid(group, group, group) })?;
    // SAFETY: no preconditions.
    ask(unsafe { libc::setresuid(user, user, user) })
}

/// Gives up every capability: permitted, effective, inheritable, ambient.
fn drop_capabilities() -> io::Result<()> {
    prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong,
    )?;
    set_own(&Sets::default())
}

fn filter(calls: SystemCalls<'_>) -> io::Result<()> {
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let (named, otherwise, by_name) = match calls {
        SystemCalls::Only(named) => (named, refused, SeccompAction::Allow),
        SystemCalls::AllBut(named) => (named, SeccompAction::Allow, refused),
    };
    let rules: BTreeMap<i64, Vec<_>> = named.iter().map(|call| (*call, Vec::new())).collect();
    let architecture: TargetArch = std::env::consts::ARCH
        .try_into()
        .map_err(io::Error::other)?;
    let filter =
        SeccompFilter::new(rules, otherwise, by_name, architecture).map_err(io::Error::other)?;
    let program: BpfProgram = filter.try_into().map_err(io::Error::other)?;
    seccompiler::apply_filter(&program).map_err(io::Error::other)
}
