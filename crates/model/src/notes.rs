//! What the user is told while the agent runs, on standard error.
//!
//! Nothing that the agent does waits for whoever reads it: a thread writes what waits in a bounded queue. What finds
//! no room there is dropped, and how much is told as soon as somebody reads again. Before [`start`], and where there
//! is no thread, it is written at once.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write},
    os::fd::AsFd as _,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, poll};

use crate::wrap;

/// Bytes that may wait.
const MAX_WAITING: usize = 256 << 10;
/// Bytes that are written at a time, so that it is seen whether somebody reads: a pipe takes them whole.
const PIECE: usize = 4096;
/// At the end, a reader that takes nothing for so long gets no more.
const PATIENCE: Duration = Duration::from_secs(1);
/// And nobody more than this.
const LAST: Duration = Duration::from_secs(5);

/// Takes the live line away, where it stands. What is written on a terminal begins with it: the line and what comes
/// between it go different ways, so that nobody knows which is there first.
pub const FRESH_LINE: &str = "\r\x1b[K";

/// Before each further line of what a terminal has no room for in one.
const INDENT: &str = "    ";

static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Says it instead.
type Messenger = Box<dyn Fn(&str) + Send + Sync>;

static MESSENGER: OnceLock<Messenger> = OnceLock::new();

/// In a process that has no standard error of its own: somebody else says things from now on. Only the first call
/// counts.
pub fn send_to(messenger: impl Fn(&str) + Send + Sync + 'static) {
    let _ = MESSENGER.set(Box::new(messenger));
}

/// Tells the user things, unless asked to be quiet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Notes {
    /// Say nothing.
    pub quiet: bool,
}

impl Notes {
    /// Says something. What comes from outside must have been made safe to show.
    pub fn say(self, text: &str) {
        if !self.quiet {
            say(text);
        }
    }
}

/// Says something, quiet or not.
pub fn say(text: &str) {
    if let Some(messenger) = MESSENGER.get() {
        messenger(text);
        return;
    }
    let mut line = format!("teracron-agent: {text}");
    if let Some(columns) = wrap::columns(io::stderr())
        && !line.contains('\n')
    {
        line = wrap::wrap(&line, columns, INDENT);
    }
    if io::stderr().is_terminal() {
        line.insert_str(0, FRESH_LINE);
    }
    line.push('\n');
    match QUEUE.get() {
        Some(queue) => queue.add(line.as_bytes()),
        None => {
            // Nobody may read it.
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }
}

/// Writes what is no line: the one that is written over again and again. It is left out while much waits.
pub fn draw(text: &str) {
    match QUEUE.get() {
        Some(queue) => queue.draw(text.as_bytes()),
        None => {
            eprint!("{text}");
            let _ = io::stderr().flush();
        }
    }
}

/// From now on nobody waits for standard error.
pub fn start() {
    // A descriptor of its own: a thread that waits in the library's would hold its lock.
    let Ok(stderr) = io::stderr().as_fd().try_clone_to_owned() else {
        return;
    };
    if let Some(queue) = Queue::new(Patient(File::from(stderr))) {
        let _ = QUEUE.set(queue);
    }
}

/// Before the end: waits until everything is written, as long as somebody reads.
pub fn finish() {
    if let Some(queue) = QUEUE.get() {
        queue.finish();
    }
}

/// Waits where the file does not, because whoever shares it wants it so.
struct Patient(File);

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None)?;
                }
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// Bytes that the thread has taken and not yet written.
    writing: usize,
    /// Lines that found no room.
    dropped: u64,
    /// Nobody will read any more.
    closed: bool,
}

#[derive(Clone, Default)]
struct Queue(Arc<(Mutex<State>, Condvar)>);

impl Queue {
    /// Before `out`; `None` where the system gives no thread.
    fn new(out: impl Write + Send + 'static) -> Option<Self> {
        let queue = Self::default();
        let shared = queue.clone();
        thread::Builder::new()
            .name("teracron-notes".to_owned())
            .spawn(move || shared.write_all(out))
            .ok()?;
        Some(queue)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, line: &[u8]) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        if state.waiting.len() + state.writing + line.len() > MAX_WAITING {
            state.dropped += 1;
            return;
        }
        state.waiting.extend_from_slice(line);
        self.0.1.notify_all();
    }

    fn draw(&self, bytes: &[u8]) {
        let mut state = self.state();
        if !state.closed && state.waiting.len() + state.writing < PIECE {
            state.waiting.extend_from_slice(bytes);
            self.0.1.notify_all();
        }
    }

    fn write_all(&self, mut out: impl Write) {
        loop {
            let mut state = self
                .0
                .1
                .wait_while(self.state(), |state| state.waiting.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            let mut bytes = std::mem::take(&mut state.waiting);
            let dropped = std::mem::take(&mut state.dropped);
            if dropped > 0 {
                let note = format!(
                    "teracron-agent: {dropped} more lines are lost: nobody read standard error in time\n"
                );
                bytes.extend_from_slice(note.as_bytes());
            }
            state.writing = bytes.len();
            drop(state);
            for piece in bytes.chunks(PIECE) {
                let written = out.write_all(piece);
                let mut state = self.state();
                state.writing -= piece.len();
                state.closed |= written.is_err();
                self.0.1.notify_all();
                if state.closed {
                    return;
                }
            }
        }
    }

    fn finish(&self) {
        let until = Instant::now() + LAST;
        let left = |state: &State| match state.closed {
            true => 0,
            false => state.waiting.len() + state.writing,
        };
        let mut state = self.state();
        loop {
            let before = left(&state);
            let wait = PATIENCE.min(until.saturating_duration_since(Instant::now()));
            if before == 0 || wait.is_zero() {
                return;
            }
            let (after, result) = self
                .0
                .1
                .wait_timeout_while(state, wait, |state| left(state) == before)
                .unwrap_or_else(PoisonError::into_inner);
            if result.timed_out() {
                return;
            }
            state = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{BufRead as _, BufReader, Read as _},
        os::unix::net::UnixStream,
        sync::mpsc::{Sender, channel},
    };

    #[test]
    fn nobody_waits_for_a_reader_and_what_was_lost_is_told() {
        let (out, mut reader) = UnixStream::pair().unwrap();
        let queue = Queue::new(out).unwrap();
        let line = [b"x".repeat(99), b"\n".to_vec()].concat();
        // More than the queue and any socket's buffer take.
        for _ in 0..100_000 {
            queue.add(&line);
        }
        let drawn = "only where there is room";
        queue.draw(drawn.as_bytes());
        let began = Instant::now();
        queue.finish();
        assert!((PATIENCE..LAST).contains(&began.elapsed()));
        // Somebody reads again. What was lost is told wherever in between it was noticed.
        let (mut said, mut lost) = (0, 0);
        let mut lines = BufReader::new(reader.try_clone().unwrap());
        while said + lost < 100_000 {
            let mut told = String::new();
            lines.read_line(&mut told).unwrap();
            let told = told.trim_end().replace(drawn, "");
            if told.starts_with('x') {
                assert_eq!(told.len(), 99);
                said += 1;
            } else {
                assert!(
                    told.ends_with("nobody read standard error in time"),
                    "{told}"
                );
                lost += told.split(' ').nth(1).unwrap().parse::<u64>().unwrap();
            }
        }
        assert!(lost > 0);
        assert_eq!(said + lost, 100_000);
        assert!(lines.buffer().is_empty());
        queue.add(b"next\n");
        let mut next = [0; 64];
        assert_eq!(reader.read(&mut next).unwrap(), 5);
        queue.finish();
    }

    #[test]
    fn a_closed_standard_error_is_no_hindrance() {
        struct Closed(Sender<()>);
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                let _ = self.0.send(());
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (tried, heard) = channel();
        let queue = Queue::new(Closed(tried)).unwrap();
        queue.add(b"x\n");
        heard.recv().unwrap();
        queue.finish();
        queue.add(b"y\n");
        queue.finish();
        assert!(queue.state().closed);
    }
}
