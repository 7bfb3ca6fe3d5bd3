//! Standard output behind a bounded queue: who reads it slowly must not hold up the kernel reader.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

/// Bytes that are handed over at a time.
const CHUNK: usize = 256 << 10;
/// Bytes that may wait.
const MAX_WAITING: usize = 16 << 20;
/// A reader that takes nothing for so long after the end gets no more.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the two threads share.
#[derive(Debug, Default)]
struct State {
    waiting: AtomicUsize,
    closed: AtomicBool,
    failed: AtomicBool,
    /// Lines that found no room.
    dropped: AtomicU64,
}

/// Counts lines that found no room.
#[derive(Clone, Debug, Default)]
pub struct Drops(Arc<State>);

impl Drops {
    /// So far.
    pub fn lines(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

/// A writer that never blocks: what finds no room is dropped, whole lines of it, and counted.
pub struct Queue {
    buffer: Vec<u8>,
    chunks: Sender<Vec<u8>>,
    done: Receiver<()>,
    state: Arc<State>,
}

impl Queue {
    /// Before `out`.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn new(mut out: impl Write + Send + 'static) -> io::Result<Self> {
        let (chunks, received) = channel::<Vec<u8>>();
        let (finished, done) = channel();
        let state = Arc::new(State::default());
        let shared = state.clone();
        thread::Builder::new()
            .name("teracron-output".to_owned())
            .spawn(move || {
                while let Ok(chunk) = received.recv() {
                    let written = out.write_all(&chunk).and_then(|()| out.flush());
                    shared.waiting.fetch_sub(chunk.len(), Ordering::Relaxed);
                    if let Err(error) = written {
                        let closed = error.kind() == io::ErrorKind::BrokenPipe;
                        shared.failed.store(!closed, Ordering::Relaxed);
                        shared.closed.store(true, Ordering::Relaxed);
                        break;
                    }
                }
                let _ = finished.send(());
            })?;
        Ok(Self {
            buffer: Vec::new(),
            chunks,
            done,
            state,
        })
    }

    /// The count of what found no room; it outlives the queue.
    pub fn drops(&self) -> Drops {
        Drops(self.state.clone())
    }

    fn hand_over(&mut self) -> io::Result<()> {
        if self.state.closed.load(Ordering::Relaxed) {
            return Err(if self.state.failed.load(Ordering::Relaxed) {
                io::Error::other("standard output can't be written")
            } else {
                io::ErrorKind::BrokenPipe.into()
            });
        }
        let chunk = std::mem::take(&mut self.buffer);
        if chunk.is_empty() {
            return Ok(());
        }
        let waiting = self.state.waiting.load(Ordering::Relaxed);
        if waiting > 0 && waiting + chunk.len() > MAX_WAITING {
            let lines = chunk.iter().filter(|byte| **byte == b'\n').count();
            self.state
                .dropped
                .fetch_add(lines as u64, Ordering::Relaxed);
            return Ok(());
        }
        self.state.waiting.fetch_add(chunk.len(), Ordering::Relaxed);
        // Gone only where `closed` says so at the next call.
        let _ = self.chunks.send(chunk);
        Ok(())
    }
}

impl Write for Queue {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() >= CHUNK && self.buffer.last() == Some(&b'\n') {
            self.hand_over()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_over()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let _ = self.hand_over();
        self.chunks = channel().0;
        // As long as somebody reads, everything is written.
        while let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = {
            let before = self.state.waiting.load(Ordering::Relaxed);
            let result = self.done.recv_timeout(PATIENCE);
            if result.is_err() && self.state.waiting.load(Ordering::Relaxed) == before {
                return;
            }
            result
        } {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Condvar, Mutex};

    /// Whether it is open, and what came through.
    type Passed = (Mutex<(bool, Vec<u8>)>, Condvar);

    /// Takes nothing until it is opened.
    #[derive(Clone, Default)]
    struct Gate(Arc<Passed>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (state, opened) = &*self.0;
            let mut state = opened
                .wait_while(state.lock().unwrap(), |(open, _)| !*open)
                .unwrap();
            state.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_slow_reader_loses_whole_lines_and_their_number_is_known() {
        let gate = Gate::default();
        let mut queue = Queue::new(gate.clone()).unwrap();
        let line = [b"x".repeat(999), b"\n".to_vec()].concat();
        for _ in 0..40_000 {
            queue.write_all(&line).unwrap();
        }
        queue.flush().unwrap();
        let dropped = queue.drops().lines();
        assert!(dropped > 20_000, "{dropped}");
        gate.0.0.lock().unwrap().0 = true;
        gate.0.1.notify_all();
        drop(queue);
        let written = &gate.0.0.lock().unwrap().1;
        assert_eq!(written.len() as u64, (40_000 - dropped) * 1000);
        assert!(written.chunks(1000).all(|chunk| chunk == line));
    }

    #[test]
    fn nobody_reads() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut queue = Queue::new(Closed).unwrap();
        queue.write_all(b"x\n").unwrap();
        let error = loop {
            queue.write_all(b"x\n").unwrap();
            if let Err(error) = queue.flush() {
                break error;
            }
            thread::yield_now();
        };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
