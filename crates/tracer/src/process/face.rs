//! A process whose main thread has ended by `pthread_exit` goes on in its other threads, but what `/proc/PID` says of
//! its memory is empty, and a probe for that thread reaches nothing.

use std::{fs, io};

/// Threads of a process that are looked at for one that lives.
const MOST: usize = 1024;

/// The id by which a process's memory and files are found in `/proc`: its own, or that of another thread where its main
/// thread has ended.
pub fn face(pid: u32) -> u32 {
    if !has_no_memory(pid) {
        return pid;
    }
    living_thread(pid).unwrap_or(pid)
}

/// A thread of a process that has not ended; `None` where there is none but the main one, or the process is gone.
pub fn living_thread(pid: u32) -> Option<u32> {
    fs::read_dir(format!("/proc/{pid}/task"))
        .ok()?
        .flatten()
        .take(MOST)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|tid| *tid != pid && !has_no_memory(*tid))
}

/// Whether a thread of a process has not ended.
pub fn is_living_thread(pid: u32, tid: u32) -> bool {
    !has_no_memory_at(&format!("/proc/{pid}/task/{tid}/exe"))
}

/// A zombie, or a kernel's thread.
fn has_no_memory(id: u32) -> bool {
    has_no_memory_at(&format!("/proc/{id}/exe"))
}

fn has_no_memory_at(path: &str) -> bool {
    fs::read_link(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faces() {
        let own = std::process::id();
        assert_eq!(face(own), own);
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv());
        assert!(living_thread(own).is_some_and(|tid| tid != own));
        drop(stop);
        let _ = thread.join();
        // PID_MAX_LIMIT is 2^22.
        assert_eq!(face(1 << 23), 1 << 23);
        assert_eq!(living_thread(1 << 23), None);
    }
}
