//! Programs that the agent starts.

use std::{io, os::unix::process::CommandExt as _, process::Command};

/// Has a program die when the thread that starts it ends, whatever kills that, and inherit no descriptor but the three
/// that the command names.
pub fn dies_with_us(command: &mut Command) {
    let parent = std::process::id().cast_signed();
    // SAFETY: it makes system calls only; nothing of what other threads of ours may hold is touched.
    unsafe { command.pre_exec(move || separate(parent)) };
}

/// In the child, before it becomes the program.
fn separate(parent: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    let told = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if told != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: no preconditions.
    if unsafe { libc::getppid() } != parent {
        // The agent died before the kernel was told.
        return Err(io::ErrorKind::NotConnected.into());
    }
    // What the agent's own parent left open in it. Closed by the exec, as the library's own pipe must not be yet.
    // SAFETY: no pointers.
    let closed = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if closed != 0 {
        // Before Linux 5.11.
        for fd in 3..1 << 16 {
            // SAFETY: no pointers; a number that is no descriptor is an error without effect.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}
