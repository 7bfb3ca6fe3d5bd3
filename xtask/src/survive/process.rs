//! Children that cannot outlive the matrix or make it wait: each in a group of its own, with limits, read
//! by threads, waited for until a deadline, and all descendants killed after each cell.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::shell::Result;

/// When a cell is over, whatever is still to come.
#[derive(Clone, Copy)]
pub(super) struct Deadline(Instant);

impl Deadline {
    /// So many seconds from now.
    pub(super) fn after(seconds: f64) -> Self {
        Self(Instant::now() + Duration::from_secs_f64(seconds))
    }

    /// The earlier of this and so many seconds from now.
    pub(super) fn or_after(self, seconds: f64) -> Self {
        Self(self.0.min(Self::after(seconds).0))
    }

    /// What is left of it.
    pub(super) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Asks again and again until it is so; `false` if the time ran out.
    pub(super) fn until(self, mut so: impl FnMut() -> bool) -> bool {
        loop {
            if so() {
                return true;
            }
            if self.left().is_zero() {
                return false;
            }
            sleep(Duration::from_millis(10));
        }
    }
}

/// A child with what it prints, line by line.
pub(super) struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    out: Receiver<String>,
    err: Receiver<String>,
    ended: Option<ExitStatus>,
}

/// The longest line that is kept whole, in bytes.
const LONGEST: u64 = 1 << 20;

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        loop {
            let mut line = Vec::new();
            match from.by_ref().take(LONGEST).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                    if send.send(line).is_err() {
                        return;
                    }
                }
            }
        }
    });
    receive
}

impl Program {
    /// Starts it, all three streams ours.
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        // SAFETY: between fork and exec only `setrlimit` and `prctl` are called, which are system calls alone.
        unsafe { command.pre_exec(limits) };
        let mut child = command
            .spawn()
            .map_err(|error| format!("{:?}: {error}", command.get_program()))?;
        Ok(Self {
            stdin: child.stdin.take(),
            out: lines(child.stdout.take().ok_or("no stdout")?),
            err: lines(child.stderr.take().ok_or("no stderr")?),
            child,
            ended: None,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints; `None` if it ended or prints none in time.
    pub(super) fn line(&mut self, deadline: Deadline) -> Option<String> {
        self.out.recv_timeout(deadline.left()).ok()
    }

    /// The next line of its errors; `Err(true)` if it closed them, `Err(false)` if none came in time.
    pub(super) fn error_line(&mut self, deadline: Deadline) -> std::result::Result<String, bool> {
        self.err
            .recv_timeout(deadline.left())
            .map_err(|error| error == RecvTimeoutError::Disconnected)
    }

    /// What it has printed by now.
    pub(super) fn printed(&mut self) -> Vec<String> {
        self.out.try_iter().collect()
    }

    /// What it printed up to its end.
    pub(super) fn rest(&mut self, deadline: Deadline) -> Vec<String> {
        std::iter::from_fn(|| self.line(deadline)).collect()
    }

    /// What it said among its errors, up to its end.
    pub(super) fn errors(&mut self, deadline: Deadline) -> Vec<String> {
        std::iter::from_fn(|| self.error_line(deadline).ok()).collect()
    }

    /// Writes a line to it. A program that is gone says so when it is read.
    pub(super) fn send(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            // In one piece: some targets take each piece that comes for a line.
            let _ = stdin.write_all(format!("{line}\n").as_bytes());
        }
    }

    /// Ends its input.
    pub(super) fn close(&mut self) {
        self.stdin = None;
    }

    /// Sends a signal to it alone.
    pub(super) fn signal(&self, number: i32) {
        if self.ended.is_none() {
            // SAFETY: our own child, not waited for yet.
            unsafe { libc::kill(self.child.id() as i32, number) };
        }
    }

    /// How it ended; `None` if it has not in time.
    pub(super) fn wait(&mut self, deadline: Deadline) -> Option<ExitStatus> {
        deadline.until(|| {
            if self.ended.is_none() {
                self.ended = self.child.try_wait().ok().flatten();
            }
            self.ended.is_some()
        });
        self.ended
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // SAFETY: the group of our own child, not waited for yet.
            unsafe { libc::kill(-(self.child.id() as i32), libc::SIGKILL) };
            let _ = self.child.wait();
        }
    }
}

/// No core dumps, no endless loops (seconds of processor time), no endless files; dies with us.
fn limits() -> std::io::Result<()> {
    for (what, most) in [
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_CPU, 900),
        (libc::RLIMIT_FSIZE, 4 << 30),
    ] {
        let limit = libc::rlimit {
            rlim_cur: most,
            rlim_max: most,
        };
        // SAFETY: reads a structure of ours.
        if unsafe { libc::setrlimit(what, &limit) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Orphans of our children become ours, so that none escapes `kill_all`.
pub(super) fn adopt_orphans() {
    // SAFETY: changes a flag of this process.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

/// Kills whatever still descends from us; to be called when no `Program` is left.
pub(super) fn kill_all() {
    for _ in 0..200 {
        let ours = descendants(std::process::id());
        if ours.is_empty() {
            return;
        }
        for pid in ours {
            // SAFETY: a descendant of ours: while we are its reaper its number is not given away.
            unsafe {
                libc::kill(pid as i32, libc::SIGKILL);
                libc::waitpid(pid as i32, std::ptr::null_mut(), libc::WNOHANG);
            }
        }
        sleep(Duration::from_millis(20));
    }
    eprintln!("survive: some children do not die");
}

/// All processes below one, by their parents.
pub(super) fn descendants(of: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok());
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        if let (Some(pid), Some(parent)) = (pid, parent) {
            parents.push((pid, parent));
        }
    }
    let mut found: Vec<u32> = vec![of];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(
            parents
                .iter()
                .filter(|one| one.1 == parent)
                .map(|one| one.0),
        );
        next += 1;
    }
    found.remove(0);
    found
}

/// How a program ended, for people.
pub(super) fn ending(status: ExitStatus) -> String {
    match status.signal() {
        Some(number) => format!("killed by {}", signal_name(number)),
        None => format!("exit code {}", status.code().unwrap_or(-1)),
    }
}

fn signal_name(number: i32) -> String {
    let name = match number {
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGXCPU => "SIGXCPU",
        _ => return format!("signal {number}"),
    };
    name.to_owned()
}
