//! The process of the user's scrubber: it gets a question a line and answers one a line.
//!
//! It gets nothing of the agent's but its questions: no descriptor, no variable but those that were named. It and
//! what it starts are a process group, which is killed as a whole; the kernel kills it when the agent dies.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::AsFd,
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, ioctl_fionbio, read, write},
    process::{Pid, Signal, geteuid, kill_process_group},
};

use model::text;

/// An answer longer than this is nonsense.
const MAX_ANSWER: usize = 1 << 20;

/// A running program.
pub(super) struct Running {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    /// What it said and nobody has asked for yet.
    said: Vec<u8>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Not waited for yet: so the number is still that of its group.
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Starts a program, with these variables.
    ///
    /// # Errors
    /// Where it can't be started.
    pub(super) fn start(
        command: &[String],
        variables: &[(String, OsString)],
    ) -> Result<Self, String> {
        let (program, arguments) = command.split_first().ok_or("scrubber: no program")?;
        let failed =
            |error: &dyn std::fmt::Display| format!("scrubber {}: {error}", text::shown(program));
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .env_clear()
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .process_group(0);
        sys::dies_with_us(&mut command);
        // Where the agent is root, this is another user, who may not be allowed what root may.
        let mut child = command
            .spawn()
            .map_err(|error| failed(&format!("{error}, as user {}", geteuid().as_raw())))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("scrubber: no pipes".to_owned());
        };
        let running = Self {
            child,
            stdin,
            stdout,
            said: Vec::new(),
        };
        ioctl_fionbio(&running.stdin, true)
            .and_then(|()| ioctl_fionbio(&running.stdout, true))
            .map_err(|error| failed(&error))?;
        Ok(running)
    }

    /// Asks it a question, which ends with a line's end; answers what it says, without the line's end.
    ///
    /// # Errors
    /// Where it does not answer in time, or says what is no answer. It must not be asked again: it may answer
    /// later, and then every answer would be another question's.
    pub(super) fn ask(&mut self, question: &[u8], timeout: Duration) -> Result<Vec<u8>, String> {
        // What was said without being asked is no answer.
        self.listen()?;
        if !self.said.is_empty() {
            return Err("it speaks without being asked".to_owned());
        }
        let until = Instant::now() + timeout;
        let mut asked = 0;
        loop {
            while asked < question.len() {
                match write(&self.stdin, &question[asked..]) {
                    Ok(written) => asked += written,
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    Err(_) => return Err(self.ended()),
                }
            }
            self.listen()?;
            if let Some(end) = self.said.iter().position(|byte| *byte == b'\n') {
                if asked < question.len() {
                    return Err("it answers before it has read the question".to_owned());
                }
                let rest = self.said.split_off(end + 1);
                let mut answer = std::mem::replace(&mut self.said, rest);
                answer.pop();
                return Ok(answer);
            }
            if self.said.len() > MAX_ANSWER {
                return Err("its answer is too long".to_owned());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let timeout = timeout.as_millis();
                return Err(format!("no answer in {timeout} ms (scrubber_timeout)"));
            }
            self.wait(asked < question.len(), left)
                .map_err(|error| error.to_string())?;
        }
    }

    /// Waits until it can be asked or has said something.
    fn wait(&self, asking: bool, left: Duration) -> io::Result<()> {
        let mut files = vec![PollFd::new(&self.stdout, PollFlags::IN)];
        if asking {
            files.push(PollFd::new(&self.stdin, PollFlags::OUT));
        }
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut files, Some(&left)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what it has said so far, a little more than an answer may have.
    fn listen(&mut self) -> Result<(), String> {
        let mut piece = [0; 16 << 10];
        while self.said.len() <= MAX_ANSWER {
            match read(self.stdout.as_fd(), &mut piece) {
                Ok(0) => return Err(self.ended()),
                Ok(count) => self.said.extend_from_slice(&piece[..count]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    /// Why it reads and says nothing any more.
    fn ended(&mut self) -> String {
        match self.child.try_wait() {
            Ok(Some(status)) => how(status),
            _ => "it closed its pipes".to_owned(),
        }
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with exit code {code}"),
        (None, Some(signal)) => format!("it was killed by signal {signal}"),
        (None, None) => "it ended".to_owned(),
    }
}
