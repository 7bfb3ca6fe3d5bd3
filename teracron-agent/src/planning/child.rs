//! In the process that plans: it is shut in before it reads anything foreign, and then can do nothing but read the
//! files that it was given, ask for others, and answer.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::fd::AsFd as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use sys::walls::{SystemCalls, Walls, shut_in};

use super::{
    listing,
    messages::{Answer, Order, Wanted},
};
use crate::shut_in::{Channel, PLANNING_USER};
use image::{
    FileKey, Image,
    foreign::{Opener, Owner, Root, RootId, keep_room},
};
use planner::whole::{Files, plan};

/// Seconds of processor time. The largest files that are known take some twenty.
const PROCESSOR_SECONDS: u64 = 600;
/// Of the memory that is left, how much it may have: three quarters.
const SHARE: (u64, u64) = (3, 4);

/// What it may still ask of the kernel: memory, reading of what is open, answers, and the end.
const SYSTEM_CALLS: [i64; 46] = [
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getrlimit,
    libc::SYS_gettid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_memfd_create,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_poll,
    libc::SYS_pread64,
    libc::SYS_prlimit64,
    libc::SYS_read,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_tgkill,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Does what comes on standard input, which is a socket of the agent's. Answers the exit code; nobody reads what is
/// said here.
pub(super) fn work(parent: u32) -> io::Result<()> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    keep_room();
    let (part, of) = SHARE;
    shut_in(
        &Walls {
            user: PLANNING_USER,
            group: PLANNING_USER,
            address_space: Some(image::foreign::room() / of * part),
            processor_seconds: Some(PROCESSOR_SECONDS),
            system_calls: SystemCalls::Only(&SYSTEM_CALLS),
        },
        parent,
    )?;
    let agent = Arc::new(Agent {
        channel: Mutex::new(Channel::new(socket)),
        reading: Mutex::default(),
    });
    Root::host_is_elsewhere(agent.clone());
    let mut files: Files = HashMap::new();
    loop {
        match agent.receive()? {
            (Order::Files(keys), opened) => {
                files.extend(keys.into_iter().zip(opened.into_iter().map(Arc::new)));
            }
            (Order::Plan(request), _) => {
                let planned = plan(*request, &files).map(Box::new);
                return agent.send(&Answer::Planned(planned));
            }
            (Order::List(listing), _) => {
                let listed = listing::list(&listing, &files);
                return agent.send(&Answer::Listed(listed));
            }
            (Order::Opened(_), _) => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The agent, which opens files.
#[derive(Debug)]
struct Agent {
    channel: Mutex<Channel>,
    /// What it was told is being read.
    reading: Mutex<Option<FileKey>>,
}

impl Agent {
    fn send(&self, answer: &Answer) -> io::Result<()> {
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        channel.send(answer, &[])
    }

    fn receive(&self) -> io::Result<(Order, Vec<File>)> {
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        channel.receive()
    }
}

impl Opener for Agent {
    fn open(&self, root: RootId, path: &Path, owner: Option<Owner>) -> io::Result<File> {
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = Wanted::new(root, path.to_owned(), owner);
        channel.send(&Answer::Open(wanted), &[])?;
        match channel.receive()? {
            (Order::Opened(Ok(())), files) => files
                .into_iter()
                .next()
                .ok_or_else(|| io::ErrorKind::InvalidData.into()),
            (Order::Opened(Err(number)), _) => Err(io::Error::from_raw_os_error(number)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn reading(&self, image: &Image) {
        let mut last = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != Some(image.key) {
            *last = Some(image.key);
            // Where nobody hears it, the answer will not be heard either.
            let _ = self.send(&Answer::Reading(image.key));
        }
    }
}
