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

use model::totals::{Cause, Dropped, KindTotals};

/// Bytes that are handed over at a time.
const CHUNK: usize = 256 << 10;
/// Bytes that may wait.
const MAX_WAITING: usize = 16 << 20;
/// A reader that takes nothing for so long after the end gets no more.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where lines go that tell spans.
pub trait Lines {
    /// Takes whole lines, which tell so many spans.
    ///
    /// # Errors
    /// Where nobody will read any more.
    fn add(&mut self, lines: &[u8], spans: u64) -> io::Result<()>;

    /// All that was added may be written now.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    fn flush(&mut self) -> io::Result<()>;

    /// Nothing more is added: waits until all is written, as long as somebody reads.
    fn close(&mut self) {}

    /// Which of the spans that were added are not written.
    fn unwritten(&self) -> Unwritten;
}

/// Spans that were handed over and are not written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unwritten {
    /// They wait.
    pub waiting: u64,
    /// They found no room.
    pub no_room: u64,
    /// Nobody reads any more.
    pub closed: u64,
}

/// The books of a sink that received so many spans, keeps some for later and does not show some.
pub(super) fn books(received: u64, kept: u64, not_shown: u64, unwritten: Unwritten) -> KindTotals {
    let Unwritten {
        waiting,
        no_room,
        closed,
    } = unwritten;
    let mut dropped = Dropped::default();
    dropped.add(Cause::NotShown, not_shown);
    dropped.add(Cause::Unread, no_room);
    dropped.add(Cause::Closed, closed);
    let pending = kept + waiting;
    KindTotals {
        received,
        pending,
        shipped: received.saturating_sub(pending + dropped.sum()),
        dropped,
        ..KindTotals::default()
    }
}

/// Lines without anybody behind them: written at once.
impl Lines for &mut Vec<u8> {
    fn add(&mut self, lines: &[u8], _: u64) -> io::Result<()> {
        self.extend_from_slice(lines);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn unwritten(&self) -> Unwritten {
        Unwritten::default()
    }
}

/// What the two threads share.
#[derive(Debug, Default)]
struct State {
    waiting: AtomicUsize,
    waiting_spans: AtomicU64,
    closed: AtomicBool,
    failed: AtomicBool,
    no_room: AtomicU64,
    unread: AtomicU64,
}

/// Whole lines, and how many spans they tell.
type Chunk = (Vec<u8>, u64);

/// Never blocks: what finds no room is dropped, whole lines of it, and counted.
pub struct Queue {
    buffer: Vec<u8>,
    spans: u64,
    chunks: Sender<Chunk>,
    done: Receiver<()>,
    given_up: bool,
    state: Arc<State>,
}

impl Queue {
    /// Before `out`.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn new(mut out: impl Write + Send + 'static) -> io::Result<Self> {
        let (chunks, received) = channel::<Chunk>();
        let (finished, done) = channel();
        let state = Arc::new(State::default());
        let shared = state.clone();
        thread::Builder::new()
            .name("teracron-output".to_owned())
            .spawn(move || {
                while let Ok((chunk, spans)) = received.recv() {
                    let written = out.write_all(&chunk).and_then(|()| out.flush());
                    shared.waiting.fetch_sub(chunk.len(), Ordering::Relaxed);
                    shared.waiting_spans.fetch_sub(spans, Ordering::Relaxed);
                    if let Err(error) = written {
                        let closed = error.kind() == io::ErrorKind::BrokenPipe;
                        shared.failed.store(!closed, Ordering::Relaxed);
                        shared.unread.fetch_add(spans, Ordering::Relaxed);
                        shared.closed.store(true, Ordering::Relaxed);
                        break;
                    }
                }
                let _ = finished.send(());
            })?;
        Ok(Self {
            buffer: Vec::new(),
            spans: 0,
            chunks,
            done,
            given_up: false,
            state,
        })
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
        let spans = std::mem::take(&mut self.spans);
        if chunk.is_empty() {
            return Ok(());
        }
        let waiting = self.state.waiting.load(Ordering::Relaxed);
        if waiting > 0 && waiting + chunk.len() > MAX_WAITING {
            self.state.no_room.fetch_add(spans, Ordering::Relaxed);
            return Ok(());
        }
        self.state.waiting.fetch_add(chunk.len(), Ordering::Relaxed);
        self.state.waiting_spans.fetch_add(spans, Ordering::Relaxed);
        // Gone only where `closed` says so at the next call.
        let _ = self.chunks.send((chunk, spans));
        Ok(())
    }
}

impl Lines for Queue {
    fn add(&mut self, lines: &[u8], spans: u64) -> io::Result<()> {
        if self.buffer.len() >= CHUNK
            && let Err(error) = self.hand_over()
        {
            self.spans += spans;
            return Err(error);
        }
        self.buffer.extend_from_slice(lines);
        self.spans += spans;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_over()
    }

    fn close(&mut self) {
        self.wait();
    }

    fn unwritten(&self) -> Unwritten {
        let state = &self.state;
        let in_queue = state.waiting_spans.load(Ordering::Relaxed) + self.spans;
        let closed = state.closed.load(Ordering::Relaxed);
        let mut unwritten = Unwritten {
            waiting: 0,
            no_room: state.no_room.load(Ordering::Relaxed),
            closed: state.unread.load(Ordering::Relaxed),
        };
        let left = match (closed, self.given_up) {
            (true, _) => &mut unwritten.closed,
            (false, true) => &mut unwritten.no_room,
            (false, false) => &mut unwritten.waiting,
        };
        *left += in_queue;
        unwritten
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.close();
    }
}

impl Queue {
    fn wait(&mut self) {
        let _ = self.hand_over();
        self.chunks = channel().0;
        // As long as somebody reads, everything is written.
        while let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = {
            let before = self.state.waiting.load(Ordering::Relaxed);
            let result = self.done.recv_timeout(PATIENCE);
            if result.is_err() && self.state.waiting.load(Ordering::Relaxed) == before {
                self.given_up = true;
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
        for _ in 0..20_000 {
            queue
                .add(&[line.clone(), line.clone()].concat(), 2)
                .unwrap();
        }
        queue.flush().unwrap();
        let Unwritten {
            waiting,
            no_room: dropped,
            closed,
        } = queue.unwritten();
        assert!(dropped > 20_000, "{dropped}");
        assert_eq!((waiting + dropped, closed), (40_000, 0));
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
        let mut added = 0;
        let error = loop {
            queue.add(b"x\n", 1).unwrap();
            added += 1;
            if let Err(error) = queue.flush() {
                break error;
            }
            thread::yield_now();
        };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        let closed = Unwritten {
            closed: added,
            ..Unwritten::default()
        };
        assert_eq!(queue.unwritten(), closed);
    }
}
