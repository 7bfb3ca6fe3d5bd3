//! The signals that the agent listens to.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use model::{
    error::{Context as _, Result},
    notes::Notes,
};

/// What asks the agent to read its settings again: listened to from the first moment on, or it would end a start.
pub(super) struct Hangups(Signal);

impl Hangups {
    /// Listens from now on.
    pub(super) fn listen() -> Result<Self> {
        listen(SignalKind::hangup()).map(Self)
    }
}

fn listen(kind: SignalKind) -> Result<Signal> {
    signal(kind).failed(|| "cannot listen for signals".to_owned())
}

/// Signals that ask the agent to stop, or to read its settings again.
pub(super) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl StopSignals {
    /// Listens from now on; before anything is attached, so that a stop never leaves a probe.
    pub(super) fn listen(hangups: Hangups) -> Result<Self> {
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: hangups.0,
        })
    }

    /// Waits for a request to stop.
    pub(super) async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Waits for either: `true` to stop, `false` to read the settings again.
    pub(super) async fn stop_or_reload(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => true,
            _ = self.hangup.recv() => false,
        }
    }
}

/// What the agent is doing while it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Files are read, sites are planned.
    Planning,
    /// The kernel takes the programs.
    Loading,
    /// Probes are set: what is half done must be undone in good order.
    Attaching,
}

impl Stage {
    fn describe(self) -> &'static str {
        match self {
            Self::Planning => "reading the files that the targets have mapped",
            Self::Loading => "loading programs into the kernel",
            Self::Attaching => "setting probes",
        }
    }
}

/// A start that takes longer says what it is doing, then every ten seconds.
const FIRST_WORD: Duration = Duration::from_secs(1);
const NEXT_WORD: Duration = Duration::from_secs(10);

/// What the start and the thread that listens beside it both know.
#[derive(Debug)]
struct Progress {
    stage: Stage,
    /// The signal that asked to stop while probes were being set.
    asked: Option<i32>,
    /// Something was said lately.
    said: bool,
}

/// While the agent starts it reads files and loads programs, and waits for nothing: a thread of its own hears what asks
/// it to stop, and ends it at once. Nothing is traced yet. While probes are being set the kernel must not be cut off, or
/// it would keep its books of breakpoints: then the start is asked to stop, and undoes what it has done.
///
/// The same thread says what is going on where that takes long.
pub(super) struct Starting {
    over: Option<oneshot::Sender<()>>,
    progress: Arc<Mutex<Progress>>,
}

impl Starting {
    /// From now on, until [`over`](Self::over).
    ///
    /// # Errors
    /// Where there can be no thread, or signals can't be heard.
    pub(super) fn begin(notes: Notes) -> Result<Self> {
        let (over, is_over) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let progress = Arc::new(Mutex::new(Progress {
            stage: Stage::Planning,
            asked: None,
            said: false,
        }));
        let known = progress.clone();
        let wait = move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .failed(|| "cannot listen for signals".to_owned())?;
            runtime.block_on(async move {
                let (mut interrupt, mut terminate) = (
                    listen(SignalKind::interrupt())?,
                    listen(SignalKind::terminate())?,
                );
                let _ = ready.send(());
                let mut is_over = is_over;
                let mut next = FIRST_WORD;
                loop {
                    let signal = tokio::select! {
                        _ = interrupt.recv() => Some(libc::SIGINT),
                        _ = terminate.recv() => Some(libc::SIGTERM),
                        () = tokio::time::sleep(next) => None,
                        _ = &mut is_over => return Ok(()),
                    };
                    let mut progress = locked(&known);
                    match signal {
                        Some(signal) if progress.stage == Stage::Attaching => {
                            progress.asked = Some(signal);
                        }
                        Some(signal) => end(signal),
                        None if std::mem::take(&mut progress.said) => {}
                        None => {
                            notes.say(&format!("still starting: {}", progress.stage.describe()));
                            next = NEXT_WORD;
                        }
                    }
                }
            })
        };
        thread::Builder::new()
            .name("starting".to_owned())
            .spawn(move || {
                if let Err(error) = wait() {
                    log::error!("{error}");
                }
            })
            .failed(|| "cannot start a thread".to_owned())?;
        // Only then it is heard; where it can't be, the thread has ended.
        is_ready
            .recv()
            .failed(|| "cannot listen for signals".to_owned())?;
        Ok(Self {
            over: Some(over),
            progress,
        })
    }

    /// Begins something else.
    pub(super) fn stage(&self, stage: Stage) {
        locked(&self.progress).stage = stage;
    }

    /// Something was said: nobody waits for a word.
    pub(super) fn has_said(&self) {
        locked(&self.progress).said = true;
    }

    /// The signal that asked to stop while probes were being set.
    pub(super) fn asked(&self) -> Option<i32> {
        locked(&self.progress).asked
    }

    /// The start is over: who reads, stops in good order.
    pub(super) fn over(mut self) {
        if let Some(over) = self.over.take() {
            let _ = over.send(());
        }
    }
}

fn locked(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the process, as a shell says that it ended by a signal: 130, 143.
pub(super) fn end(signal: i32) -> ! {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stderr = std::io::stderr();
    // Nobody may read it.
    let mut writable = [PollFd::new(&stderr, PollFlags::OUT)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    if poll(&mut writable, Some(&now)).is_ok_and(|ready| ready > 0) {
        let name = if signal == libc::SIGINT {
            "SIGINT"
        } else {
            "SIGTERM"
        };
        // Not through what another thread may have locked.
        let line =
            format!("teracron-agent: stopped by {name} while starting; nothing was traced\n");
        let _ = rustix::io::write(&stderr, line.as_bytes());
    }
    sys::exit_now(128 + signal)
}
