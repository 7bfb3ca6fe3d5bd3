//! Executable memory that is in no file, or in one that can change, is seen. A program of its own: it maps such memory itself.

use std::{fs::File, io::Write as _, os::fd::AsRawFd as _};
use tracer::process::{Process, still_allows_returns};

fn generated() -> Option<String> {
    let own = Process::find(std::process::id()).unwrap();
    still_allows_returns(&own).err()
}

fn map(protection: i32, flags: i32, fd: i32) -> *mut libc::c_void {
    // SAFETY: a new mapping, wherever there is room.
    let place = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, fd, 0) };
    assert_ne!(place, libc::MAP_FAILED);
    place
}

fn unmap(place: *mut libc::c_void) {
    // SAFETY: what `map` has made, and nobody uses.
    unsafe { libc::munmap(place, 4096) };
}

#[test]
fn code_that_is_in_no_file() {
    assert_eq!(generated(), None);
    let (read, write, execute) = (libc::PROT_READ, libc::PROT_WRITE, libc::PROT_EXEC);
    let page = map(read | execute, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1);
    assert!(generated().is_some(), "anonymous");
    unmap(page);
    let page = map(read | execute, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1);
    assert!(generated().is_some(), "shared");
    unmap(page);
    let memory = rustix::fs::memfd_create("code", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    File::from(memory.try_clone().unwrap())
        .write_all(&[0xc3; 4096])
        .unwrap();
    let page = map(read | execute, libc::MAP_PRIVATE, memory.as_raw_fd());
    assert!(generated().is_some(), "memfd");
    unmap(page);
    // A file, by two mappings or by one.
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[0xc3; 4096]).unwrap();
    let code = map(read | execute, libc::MAP_PRIVATE, file.as_raw_fd());
    assert_eq!(generated(), None);
    let alias = map(read | write, libc::MAP_SHARED, file.as_raw_fd());
    assert!(generated().is_some(), "written by another mapping");
    unmap(alias);
    unmap(code);
    let both = map(read | write | execute, libc::MAP_PRIVATE, file.as_raw_fd());
    assert!(generated().is_some(), "written where it runs");
    unmap(both);
    assert_eq!(generated(), None);
}
