//! The thread that hands over what waits, and starts the process that delivers again where it ends.

use std::{
    io,
    os::fd::AsFd as _,
    path::PathBuf,
    process::{Child, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::Ordering,
        mpsc::{Receiver, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    Message, Shared,
    messages::{Answer, Order, Start},
};
use crate::shut_in::{self, Channel, Part};
use model::{
    Kind,
    error::{Context as _, Error, Result},
    notes::Notes,
    signal_name,
};
use pipeline::own_files::{Folder, give};

/// What the process sees of our environment: proxies, where certificates are, and what a scrubber is found by.
const VARIABLES: [&str; 12] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "PATH",
    "LANG",
];
/// Until it is started again; it doubles with each that ended soon.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// One that lived so long did not end soon.
const LONG: Duration = Duration::from_secs(60);

/// Ends the process from another thread.
#[derive(Clone, Default)]
pub(super) struct Kill(Arc<Mutex<Option<Channel>>>);

impl Kill {
    /// Nothing is handed over any more: it ends.
    pub(super) fn now(&self) {
        let channel = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = &*channel {
            channel.close();
        }
    }

    fn set(&self, channel: Option<Channel>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = channel;
    }
}

/// A process that delivers.
struct Running {
    child: Reaped,
    send: Arc<Mutex<Channel>>,
    /// Hears what it says; answers whether it said that it is done.
    listener: JoinHandle<bool>,
    since: Instant,
}

/// A child that is not left behind.
struct Reaped(Child);

impl Reaped {
    /// Ends it; answers how it ended, as the rest of a sentence.
    fn end(&mut self) -> String {
        let _ = self.0.kill();
        self.0.wait().map_or_else(|_| String::new(), how)
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        self.end();
    }
}

/// The thread's state.
pub(super) struct Worker {
    start: Start,
    spool: Option<PathBuf>,
    shared: Arc<Shared>,
    sender: Sender<Message>,
    kill: Kill,
    running: Option<Running>,
    /// Processes that were started.
    started: u64,
    pause: Duration,
    notes: Notes,
}

impl Worker {
    pub(super) fn new(
        start: Start,
        spool: Option<PathBuf>,
        shared: Arc<Shared>,
        sender: Sender<Message>,
        kill: Kill,
    ) -> Self {
        Self {
            notes: Notes { quiet: start.quiet },
            start,
            spool,
            shared,
            sender,
            kill,
            running: None,
            started: 0,
            pause: FIRST_PAUSE,
        }
    }

    /// Until it is told to finish.
    pub(super) fn run(mut self, messages: &Receiver<Message>, ready: &Sender<Result<()>>) {
        let begun = self.begin();
        let failed = begun.is_err();
        let _ = ready.send(begun);
        if failed {
            return;
        }
        // This thread has a way in, too, so that the queue does not end by itself.
        while let Ok(message) = messages.recv() {
            match message {
                Message::Spans(spans) => {
                    let count = spans.len();
                    self.hand_over(Kind::Spans, count, Order::Spans(spans));
                    self.shared.spans.fetch_sub(count, Ordering::Relaxed);
                }
                Message::Samples(samples) => {
                    let count = samples.len();
                    self.hand_over(Kind::Metrics, count, Order::Samples(samples));
                    self.shared.samples.fetch_sub(count, Ordering::Relaxed);
                }
                Message::Change(handling) => {
                    self.start.handling = (*handling).clone();
                    self.order(&Order::Change(handling));
                }
                Message::Ended(number) if number == self.started => {
                    self.died();
                    self.begin_again();
                }
                Message::Ended(_) => {}
                Message::Finish(patience) => return self.finish(patience),
            }
        }
    }

    /// Hands something over, to the next process where one ends meanwhile; what can't be handed over is counted.
    fn hand_over(&mut self, kind: Kind, count: usize, order: Order) {
        if self.running.is_none() {
            self.begin_again();
        }
        if self.running.is_none() {
            return self.shared.books().stopped(kind, count as u64);
        }
        // Before: a process that ends while it takes it has it.
        self.shared.books().sent(kind, count as u64);
        self.order(&order);
    }

    fn order(&mut self, order: &Order) {
        let Some(running) = &self.running else {
            return;
        };
        let sent = {
            let mut channel = running.send.lock().unwrap_or_else(PoisonError::into_inner);
            channel.send(order, &[])
        };
        if let Err(error) = sent {
            log::debug!("the process that delivers: {error}");
            self.died();
        }
    }

    /// Starts a process, and waits until it is ready.
    fn begin(&mut self) -> Result<()> {
        let starting = || "cannot start the process that delivers".to_owned();
        let (channel, child) = shut_in::start(
            Part::Delivering,
            (Stdio::null(), Stdio::inherit()),
            &self.variables(),
        )
        .failed(starting)?;
        self.started += 1;
        let number = self.started;
        let send = Arc::new(Mutex::new(channel.again().failed(starting)?));
        self.kill.set(Some(channel.again().failed(starting)?));
        let mut child = Reaped(child);
        let mut listener = Listener {
            channel,
            send: send.clone(),
            shared: self.shared.clone(),
            spool: self.spool.clone(),
            slug: self.start.slug.clone(),
        };
        let start = Box::new(self.start.clone());
        let begun = {
            let mut channel = send.lock().unwrap_or_else(PoisonError::into_inner);
            channel.send(&Order::Start(start), &[])
        };
        let begun = begun.and_then(|()| listener.until_started());
        match begun {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error),
            Err(error) => {
                let why = child.end();
                return Err(Error::Failed(format!("{}: {error}{why}", starting())));
            }
        }
        let sender = self.sender.clone();
        let listener = thread::Builder::new()
            .name("teracron-answers".to_owned())
            .spawn(move || {
                let is_done = listener.listen();
                // Whoever waits for messages learns of it among them.
                let _ = sender.send(Message::Ended(number));
                is_done
            })
            .failed(starting)?;
        self.running = Some(Running {
            child,
            send,
            listener,
            since: Instant::now(),
        });
        Ok(())
    }

    fn variables(&self) -> Vec<&str> {
        let of_scrubber = self.start.handling.scrub.variables.iter();
        VARIABLES
            .into_iter()
            .chain(of_scrubber.map(String::as_str))
            .collect()
    }

    /// Starts another process after the last one has ended, as often as it takes; not any more once the run is over, but
    /// for one last time.
    fn begin_again(&mut self) {
        loop {
            let is_over = {
                let over = self
                    .shared
                    .over
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                let waited = self
                    .shared
                    .hurry
                    .wait_timeout_while(over, self.pause, |over| !*over);
                *waited.unwrap_or_else(PoisonError::into_inner).0
            };
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            match self.begin() {
                Ok(()) => {
                    self.notes.say("delivering again");
                    return;
                }
                Err(error) => log::debug!("{error}"),
            }
            if is_over {
                return;
            }
        }
    }

    /// The process has ended: books what went with it.
    fn died(&mut self) {
        let Some(running) = &self.running else {
            return;
        };
        if running.since.elapsed() >= LONG {
            self.pause = FIRST_PAUSE;
        }
        let why = self.reap();
        let deaths = {
            let mut books = self.shared.books();
            books.ended();
            books.deaths()
        };
        // Once, and then by the numbers: status and the last lines.
        if deaths == 1 {
            self.notes.say(&format!(
                "the process that delivers has ended{why}: what it had in memory is lost and counted; it is started again"
            ));
        }
    }

    /// Ends the process for good; answers how it ended, as the rest of a sentence.
    fn reap(&mut self) -> String {
        self.kill.set(None);
        let Some(mut running) = self.running.take() else {
            return String::new();
        };
        let why = running.child.end();
        // What it said last is still to be heard.
        let _ = running.listener.join();
        why
    }

    /// Has the process pack and send what it has.
    fn finish(&mut self, patience: Duration) {
        if self.running.is_none() {
            self.begin_again();
        }
        self.order(&Order::Finish(patience));
        if let Some(mut running) = self.running.take() {
            let _ = running.child.0.wait();
            if !running.listener.join().unwrap_or(false) {
                self.shared.books().ended();
            }
        }
        self.kill.set(None);
    }
}

fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match status.signal() {
        Some(signal) => format!(" ({})", signal_name(signal.unsigned_abs())),
        None => String::new(),
    }
}

/// Hears what a process says.
struct Listener {
    channel: Channel,
    send: Arc<Mutex<Channel>>,
    shared: Arc<Shared>,
    spool: Option<PathBuf>,
    slug: String,
}

impl Listener {
    fn until_started(&mut self) -> io::Result<Result<()>> {
        loop {
            match self.channel.receive()?.0 {
                Answer::Started(started) => return Ok(started),
                answer => self.take(answer)?,
            }
        }
    }

    /// Until nothing more comes; answers whether it said that it is done.
    fn listen(&mut self) -> bool {
        let mut is_done = false;
        while let Ok((answer, _)) = self.channel.receive() {
            is_done = matches!(answer, Answer::Finished(_));
            // Where nothing can be sent any more, what was said before is heard all the same.
            if let Err(error) = self.take(answer) {
                log::debug!("the process that delivers: {error}");
            }
        }
        is_done
    }

    fn take(&self, answer: Answer) -> io::Result<()> {
        match answer {
            Answer::Report(report) | Answer::Finished(report) => {
                self.shared.books().report(*report);
                Ok(())
            }
            Answer::Folder => self.give_folder(),
            Answer::Started(_) => Ok(()),
        }
    }

    /// Gives the spool's folder, made and given away where that is needed.
    fn give_folder(&self) -> io::Result<()> {
        let mut channel = self.send.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(spool) = &self.spool else {
            return channel.send(&Order::Folder(Err("it is in memory".to_owned())), &[]);
        };
        let given = if rustix::process::geteuid().is_root() {
            give(spool, &self.slug, Part::Delivering.user())
        } else {
            Folder::make(spool)
                .and_then(|folder| folder.sub(&self.slug))
                .and_then(Folder::into_handle)
        };
        match given {
            Ok((handle, path)) => {
                let path = path.to_string_lossy().into_owned();
                channel.send(&Order::Folder(Ok(path)), &[handle.as_fd()])
            }
            Err(refused) => channel.send(&Order::Folder(Err(refused.to_string())), &[]),
        }
    }
}
