//! Giving up capabilities. They are each thread's own, and the kernel has no call for all threads of a process: each
//! thread is sent a signal, in whose handler it gives up its own, as libpsx of libcap does.

use std::{
    fs, io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A capability's number (include/uapi/linux/capability.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Capability {
    /// Giving files to another user.
    Chown = 0,
    /// Signals to processes of other users.
    Kill = 5,
    /// Reading of files whatever their modes say.
    DacReadSearch = 2,
    /// Becoming another group.
    SetGid = 6,
    /// Becoming another user.
    SetUid = 7,
    /// Other processes' memory and maps.
    SysPtrace = 19,
    /// Perf events for probes, and the kernel's statistics of programs.
    SysAdmin = 21,
    /// Perf events, and reading of kernel memory by programs.
    Perfmon = 38,
    /// Programs and maps in the kernel.
    Bpf = 39,
    /// Links of `/proc/PID/map_files`.
    CheckpointRestore = 40,
}

/// `_LINUX_CAPABILITY_VERSION_3` of include/uapi/linux/capability.h, and the thread: the calling one.
const HEAD: [u32; 2] = [0x2008_0522, 0];
/// Effective, permitted, inheritable: of the first 32 capabilities, then of the rest.
pub(crate) type Sets = [u32; 6];
/// How long threads may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// What the handler keeps.
static KEPT: AtomicU64 = AtomicU64::new(u64::MAX);
/// One at a time.
static TURN: Mutex<()> = Mutex::new(());

/// No program that this process runs from now on, and no thread that it starts, gets more rights than it has now. To be
/// called before there are threads.
///
/// # Errors
/// Where the kernel refuses it.
pub fn no_new_privileges() -> io::Result<()> {
    // SAFETY: numbers alone.
    match unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has every thread of this process keep these capabilities alone, of those that it has.
///
/// # Errors
/// Where a thread does not answer in time, or the kernel refuses it: it may have kept more.
pub fn keep_only(kept: &[Capability]) -> io::Result<()> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mask = kept
        .iter()
        .fold(0, |mask, capability| mask | 1 << (*capability as u32));
    KEPT.store(mask, Ordering::SeqCst);
    let signal = libc::SIGRTMAX() - 1;
    install(signal)?;
    let began = Instant::now();
    // A thread that is being made meanwhile has what its maker had: they are looked at until all are found to have less.
    loop {
        let more = threads_with_more(mask)?;
        if more.is_empty() {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            return Err(io::ErrorKind::TimedOut.into());
        }
        for thread in more {
            // SAFETY: numbers alone; a thread that has ended is an error without effect.
            unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), thread, signal) };
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Threads of this process that have a capability that is not in a mask.
fn threads_with_more(mask: u64) -> io::Result<Vec<i32>> {
    let mut more = Vec::new();
    for entry in fs::read_dir("/proc/self/task")? {
        let entry = entry?;
        // It may have ended.
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else {
            continue;
        };
        let has = |set: &str| {
            let mut lines = status.lines();
            let value = lines.find_map(|line| line.strip_prefix(set))?;
            u64::from_str_radix(value.trim(), 16).ok()
        };
        let all = has("CapPrm:").unwrap_or(0) | has("CapEff:").unwrap_or(0);
        if all & !mask != 0
            && let Some(thread) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
        {
            more.push(thread);
        }
    }
    Ok(more)
}

/// Says what the calling thread has. It makes one system call and nothing else.
pub(crate) fn set_own(sets: &Sets) -> io::Result<()> {
    // SAFETY: a header, and the two records of three words that this version has; both live through the call.
    match unsafe { libc::syscall(libc::SYS_capset, HEAD.as_ptr(), sets.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn install(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: all zero is a valid value: no flags, no signal blocked.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = give_up as *const () as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler makes two system calls and touches nothing else; `action` lives through the call.
    match unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// In each thread: gives up what is not kept. It may interrupt anything, so it makes system calls only, and leaves the
/// thread's `errno` as it was.
extern "C" fn give_up(_: libc::c_int) {
    let kept = KEPT.load(Ordering::SeqCst);
    // SAFETY: the place of `errno` is the thread's own.
    let errno = unsafe { *libc::__errno_location() };
    let mut sets = Sets::default();
    // SAFETY: a header and room for the two records of three words that this version has.
    let got = unsafe { libc::syscall(libc::SYS_capget, HEAD.as_ptr(), sets.as_mut_ptr()) };
    if got == 0 {
        for (place, set) in sets.iter_mut().enumerate() {
            let half = if place < 3 { kept } else { kept >> 32 };
            *set &= half as u32;
        }
        // Where it is refused, `keep_only` sees that.
        let _ = set_own(&sets);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier, mpsc};

    /// In a process of its own, since the others need what is given up here.
    #[test]
    fn every_thread_gives_up_the_rest() {
        const MARK: &str = "TERACRON_TEST_CAPABILITIES";
        if std::env::var_os(MARK).is_none() {
            let status = std::process::Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "capabilities::tests::every_thread_gives_up_the_rest",
                ])
                .env(MARK, "1")
                .status()
                .unwrap();
            assert!(status.success());
            return;
        }
        let started = Arc::new(Barrier::new(4));
        let (stop, ends): (Vec<_>, Vec<_>) = (0..3).map(|_| mpsc::channel::<()>()).unzip();
        let threads: Vec<_> = ends
            .into_iter()
            .map(|end| {
                let started = started.clone();
                std::thread::spawn(move || {
                    started.wait();
                    let _ = end.recv();
                })
            })
            .collect();
        started.wait();
        let kept = [Capability::SysPtrace, Capability::Bpf];
        keep_only(&kept).unwrap();
        let most = 1 << 19 | 1 << 39;
        assert!(threads_with_more(most).unwrap().is_empty());
        // A second time less.
        keep_only(&[]).unwrap();
        assert!(threads_with_more(0).unwrap().is_empty());
        drop(stop);
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
