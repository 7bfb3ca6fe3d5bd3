//! Questions to several agents at once, with one deadline for all of them.

use std::{
    io::{self, Read as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
};

/// An answer is never longer.
const MAX_ANSWER: usize = 4 << 20;
/// Between attempts to reach an agent whose queue is full.
const AGAIN: Duration = Duration::from_millis(50);

/// A question to one agent.
pub(super) struct Question {
    /// Its socket.
    pub(super) path: PathBuf,
    /// What it answered; before the end: that it has not.
    pub(super) outcome: io::Result<Vec<u8>>,
    state: State,
}

enum State {
    /// Not yet connected.
    Waiting,
    /// So much has come.
    Reading(UnixStream, Vec<u8>),
    Done,
}

impl Question {
    /// Nothing is asked yet.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            outcome: Err(io::ErrorKind::TimedOut.into()),
            state: State::Waiting,
        }
    }

    fn finish(&mut self, outcome: io::Result<Vec<u8>>) {
        self.outcome = outcome;
        self.state = State::Done;
    }

    fn connect(&mut self) {
        match open(&self.path) {
            Ok(stream) => self.state = State::Reading(stream, Vec::new()),
            // Too many wait for it already.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.finish(Err(error)),
        }
    }

    /// Takes what has come.
    fn read(&mut self) {
        let State::Reading(stream, answer) = &mut self.state else {
            return;
        };
        let mut piece = [0; 16 << 10];
        match stream.read(&mut piece) {
            Ok(0) => {
                let answer = std::mem::take(answer);
                self.finish(Ok(answer));
            }
            Ok(read) if answer.len() + read > MAX_ANSWER => {
                self.finish(Err(io::Error::other("the answer is too long")));
            }
            Ok(read) => answer.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => self.finish(Err(error)),
        }
    }
}

/// A connection that never waits.
fn open(path: &Path) -> io::Result<UnixStream> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixStream::from(socket))
}

/// Asks all of them; who has not answered at `until` has timed out.
///
/// # Errors
/// Where the system can't wait.
pub(super) fn ask(questions: &mut [Question], until: Instant) -> io::Result<()> {
    loop {
        let mut is_waiting = false;
        for question in &mut *questions {
            if matches!(question.state, State::Waiting) {
                question.connect();
            }
            is_waiting |= matches!(question.state, State::Waiting);
        }
        let streams: Vec<(usize, &UnixStream)> = questions
            .iter()
            .enumerate()
            .filter_map(|(place, question)| match &question.state {
                State::Reading(stream, _) => Some((place, stream)),
                _ => None,
            })
            .collect();
        let mut left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || (streams.is_empty() && !is_waiting) {
            return Ok(());
        }
        if is_waiting {
            left = left.min(AGAIN);
        }
        let mut polled: Vec<PollFd<'_>> = streams
            .iter()
            .map(|(_, stream)| PollFd::new(*stream, PollFlags::IN))
            .collect();
        match poll(
            &mut polled,
            Some(&Timespec::try_from(left).map_err(io::Error::other)?),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<usize> = streams
            .iter()
            .zip(&polled)
            .filter(|(_, polled)| !polled.revents().is_empty())
            .map(|((place, _), _)| *place)
            .collect();
        for place in ready {
            questions[place].read();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write as _, os::unix::net::UnixListener, thread};

    #[test]
    fn an_answer_that_drips_is_given_up_and_the_others_are_heard() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (slow, silent) = (path("slow"), path("silent"));
        let dripping = UnixListener::bind(&slow).unwrap();
        // Nobody ever accepts here.
        let _silent = UnixListener::bind(&silent).unwrap();
        let good = UnixListener::bind(path("good")).unwrap();
        let endless = UnixListener::bind(path("endless")).unwrap();
        let threads = [
            thread::spawn(move || {
                let (mut stream, _) = dripping.accept().unwrap();
                // As long as somebody listens.
                while stream.write_all(b" ").is_ok() {
                    thread::sleep(Duration::from_millis(100));
                }
            }),
            thread::spawn(move || good.accept().unwrap().0.write_all(b"{}").unwrap()),
            thread::spawn(move || {
                let (mut stream, _) = endless.accept().unwrap();
                while stream.write_all(&[b' '; 4096]).is_ok() {}
            }),
        ];
        let mut questions =
            ["slow", "silent", "good", "endless", "none"].map(|name| Question::new(path(name)));
        let began = Instant::now();
        ask(&mut questions, began + Duration::from_secs(2)).unwrap();
        let took = began.elapsed();
        assert!((2..4).contains(&took.as_secs()), "{took:?}");
        let kinds = questions.map(|question| question.outcome.map_err(|error| error.kind()));
        assert_eq!(
            kinds,
            [
                Err(io::ErrorKind::TimedOut),
                Err(io::ErrorKind::TimedOut),
                Ok(b"{}".to_vec()),
                Err(io::ErrorKind::Other),
                Err(io::ErrorKind::NotFound),
            ]
        );
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_full_queue_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("full");
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        let first = open(&path).unwrap();
        assert_eq!(open(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let listener = UnixListener::from(socket);
        let asked = path.clone();
        let asking = thread::spawn(move || {
            let mut questions = [Question::new(asked)];
            ask(&mut questions, Instant::now() + Duration::from_secs(30)).unwrap();
            questions.map(|question| question.outcome.unwrap())
        });
        // Room for the next.
        drop(listener.accept().unwrap());
        listener.accept().unwrap().0.write_all(b"x").unwrap();
        assert_eq!(asking.join().unwrap(), [b"x".to_vec()]);
        drop(first);
    }
}
