//! Does a forked child live through a probe on a 5-byte nop?
//!
//! Linux 6.18 replaces such a nop, once it was hit, by a call of a page that it maps for the purpose; the child of a
//! `fork` has the call and not the page, and dies of SIGSEGV there. No version number tells which kernels were
//! mended, so it is tried out: a program of 200 bytes, made here, calls a function that begins with such a
//! nop, forks, calls it in the child, and says by its exit code what became of the child.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd as _, AsRawFd as _},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{MultiProgram, MultiSite, background};
use sites::Nop5;

/// How long the program may take; it needs a millisecond or two.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where the program's file is mapped.
const BASE: u64 = 0x40_0000;
/// Bytes before its code: the ELF header and one program header.
const HEADERS: usize = 64 + 56;

/// What this kernel does, tried out once; and whether that could be tried out.
pub(super) fn nop5(kernel: (u32, u32)) -> (Nop5, bool) {
    static ANSWER: OnceLock<(Nop5, bool)> = OnceLock::new();
    if kernel < (6, 18) {
        return (Nop5::Stepped, true);
    }
    *ANSWER.get_or_init(|| match children_live() {
        Ok(true) => (Nop5::Optimised, true),
        Ok(false) => (Nop5::Unsafe, true),
        Err(error) => {
            log::debug!("5-byte nops were not tried out: {error}");
            (Nop5::Unsafe, false)
        }
    })
}

/// Whether the forked child of a program lives that has a probe on a 5-byte nop.
///
/// # Errors
/// Where that can't be tried out: without privileges, where memory can't be executed, where it takes too long.
fn children_live() -> io::Result<bool> {
    let (bytes, nop) = program();
    let file = executable(&bytes)?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let site = MultiSite {
        offset: nop,
        cookie: 0,
    };
    // Nobody else maps this file, so the probe needs no process; it is there before the first instruction runs.
    let link = MultiProgram::empty()?.attach(&path, &[site], 0, false)?;
    let code = run(&path);
    // The kernel lets go of a link slowly.
    background::detaching("teracron-detach", move || drop((link, file)));
    match code? {
        0 => Ok(true),
        1 => Ok(false),
        other => Err(io::Error::other(format!("the program said {other}"))),
    }
}

/// A file in memory with these bytes that nobody can change any more.
fn executable(bytes: &[u8]) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = memfd_create("teracron-nop5", flags | MemfdFlags::EXEC)
        // Kernels before 6.3 don't know the last flag, and allow it anyway.
        .or_else(|_| memfd_create("teracron-nop5", flags))?;
    let mut file = File::from(memory);
    file.write_all(bytes)?;
    fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    // What is open for writing can't be executed.
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Runs the program and waits for its exit code.
fn run(path: &str) -> io::Result<i32> {
    let mut child = Command::new(path)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let ended = wait(&child);
    if !matches!(ended, Ok(true)) {
        let _ = child.kill();
    }
    let status = child.wait()?;
    ended?;
    status
        .code()
        .ok_or_else(|| io::Error::other(format!("the program ended with {status}")))
}

/// Whether the program ends within the time that it has.
fn wait(child: &Child) -> io::Result<bool> {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::other("no process id"))?;
    let ended = pidfd_open(pid, PidfdFlags::empty())?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut polled = [PollFd::from_borrowed_fd(ended.as_fd(), PollFlags::IN)];
        let timeout = left.try_into().map_err(io::Error::other)?;
        match poll(&mut polled, Some(&timeout)) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The program, and where in its file the nop lies.
///
/// It exits with 0 where the child lived, 1 where it died or was wrong, 2 where something else failed. It has a
/// handler for SIGSEGV, so that neither the kernel's log nor a collector of core files hears of the trial.
fn program() -> (Vec<u8>, u64) {
    let mut code = Vec::new();
    let mut emit = |bytes: &[u8]| {
        code.extend_from_slice(bytes);
        code.len()
    };
    // Build the handler's record on the stack (struct kernel_sigaction: handler, flags, restorer, mask).
    emit(&[0x6a, 0x00]); // push 0: the mask
    emit(&[0x6a, 0x00]); // push 0: the restorer, which is not used: the handler never returns
    emit(&[0x68, 0x00, 0x00, 0x00, 0x04]); // push SA_RESTORER
    let handler = emit(&[0x48, 0x8d, 0x05, 0, 0, 0, 0]); // lea rax,[rip+handler]
    emit(&[0x50]); // push rax
    emit(&[0xbf, 11, 0, 0, 0]); // mov edi,SIGSEGV
    emit(&[0x48, 0x89, 0xe6]); // mov rsi,rsp
    emit(&[0x31, 0xd2]); // xor edx,edx
    emit(&[0x41, 0xba, 8, 0, 0, 0]); // mov r10d,8
    emit(&[0xb8, 13, 0, 0, 0]); // mov eax,rt_sigaction
    emit(&[0x0f, 0x05]); // syscall
    emit(&[0x85, 0xc0]); // test eax,eax
    let failed_action = emit(&[0x0f, 0x85, 0, 0, 0, 0]); // jne failed
    // Hit it some times, so that it is replaced.
    let again = emit(&[0xbb, 16, 0, 0, 0]); // mov ebx,16
    let first_call = emit(&[0xe8, 0, 0, 0, 0]); // call function
    emit(&[0xff, 0xcb]); // dec ebx
    let loops = emit(&[0x0f, 0x85, 0, 0, 0, 0]); // jne again
    emit(&[0xb8, 57, 0, 0, 0]); // mov eax,fork
    emit(&[0x0f, 0x05]); // syscall
    emit(&[0x85, 0xc0]); // test eax,eax
    let failed_fork = emit(&[0x0f, 0x88, 0, 0, 0, 0]); // js failed
    let to_parent = emit(&[0x0f, 0x85, 0, 0, 0, 0]); // jne parent
    let second_call = emit(&[0xe8, 0, 0, 0, 0]); // call function
    emit(&[0x31, 0xff]); // xor edi,edi
    let parent = emit(&[0xb8, 60, 0, 0, 0, 0x0f, 0x05]); // mov eax,exit; syscall
    emit(&[0x89, 0xc7]); // mov edi,eax
    emit(&[0x48, 0x89, 0xe6]); // mov rsi,rsp
    emit(&[0x31, 0xd2]); // xor edx,edx
    emit(&[0x45, 0x31, 0xd2]); // xor r10d,r10d
    emit(&[0xb8, 61, 0, 0, 0, 0x0f, 0x05]); // mov eax,wait4; syscall
    emit(&[0x85, 0xc0]); // test eax,eax
    let failed_wait = emit(&[0x0f, 0x88, 0, 0, 0, 0]); // js failed
    // The parent itself, once more: it must be right there too.
    let third_call = emit(&[0xe8, 0, 0, 0, 0]); // call function
    emit(&[0x31, 0xff]); // xor edi,edi
    emit(&[0x83, 0x3c, 0x24, 0x00]); // cmp dword [rsp],0: the child's status
    emit(&[0x40, 0x0f, 0x95, 0xc7]); // setne dil
    let in_handler = emit(&[0xb8, 60, 0, 0, 0, 0x0f, 0x05]); // mov eax,exit; syscall
    let failed = emit(&[0xbf, 1, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]); // handler: exit(1)
    let function = emit(&[0xbf, 2, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]); // failed: exit(2)
    emit(&[0x0f, 0x1f, 0x44, 0x00, 0x00, 0xc3]); // function: the nop; ret
    // Each names the end of an instruction, whose last four bytes are the distance.
    for (from, to) in [
        (handler, in_handler),
        (failed_action, failed),
        (first_call, function),
        (loops, again),
        (failed_fork, failed),
        (to_parent, parent),
        (second_call, function),
        (failed_wait, failed),
        (third_call, function),
    ] {
        let distance = (to as i32 - from as i32).to_le_bytes();
        if let Some(place) = code.get_mut(from - 4..from) {
            place.copy_from_slice(&distance);
        }
    }
    let size = (HEADERS + code.len()) as u64;
    let mut file = Vec::with_capacity(HEADERS + code.len());
    // Elf64_Ehdr: 64 bits, little-endian, version 1, an executable for x86-64.
    file.extend_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    file.extend_from_slice(&2u16.to_le_bytes());
    file.extend_from_slice(&62u16.to_le_bytes());
    file.extend_from_slice(&1u32.to_le_bytes());
    file.extend_from_slice(&(BASE + HEADERS as u64).to_le_bytes()); // e_entry
    file.extend_from_slice(&64u64.to_le_bytes()); // e_phoff
    file.extend_from_slice(&[0; 12]); // e_shoff, e_flags
    for half in [64u16, 56, 1, 64, 0, 0] {
        file.extend_from_slice(&half.to_le_bytes());
    }
    // Elf64_Phdr: PT_LOAD, readable and executable, the whole file.
    file.extend_from_slice(&1u32.to_le_bytes());
    file.extend_from_slice(&5u32.to_le_bytes());
    for word in [0, BASE, BASE, size, size, 0x1000] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    file.extend_from_slice(&code);
    (file, (HEADERS + function) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_right_where_nothing_is_probed() {
        let (bytes, nop) = program();
        let at = usize::try_from(nop).unwrap();
        assert!(sites::is_nop5(&bytes[at..at + 5]));
        let file = executable(&bytes).unwrap();
        let code = run(&format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        assert_eq!(code, 0);
        assert!((&file).write_all(b"x").is_err(), "it is sealed");
    }

    #[test]
    fn a_child_that_dies_is_told() {
        let (mut bytes, nop) = program();
        // The function reads address 0 in place of the nop, once the parent has forked: mov eax,[0]. Before that
        // the handler ends the program itself.
        let at = usize::try_from(nop).unwrap();
        bytes[at..at + 5].copy_from_slice(&[0x8b, 0x00, 0x90, 0x90, 0x90]);
        let file = executable(&bytes).unwrap();
        let code = run(&format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        assert_eq!(code, 1);
    }

    /// On 6.18 the child dies; elsewhere it must be told one way or the other, and fast.
    #[test]
    fn this_kernel_is_asked() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let start = Instant::now();
        let lives = children_live().unwrap();
        println!("children live: {lives}; asked in {:?}", start.elapsed());
        assert!(start.elapsed() < PATIENCE);
        let kernel = crate::kernel::features::kernel_version();
        if kernel < (6, 18) {
            assert!(lives);
        }
    }

    #[test]
    fn older_kernels_are_not_asked() {
        assert_eq!(nop5((6, 17)), (Nop5::Stepped, true));
        assert_eq!(nop5((5, 15)), (Nop5::Stepped, true));
    }
}
