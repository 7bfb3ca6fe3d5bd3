//! The signals that the agent listens to.

use std::thread;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use model::error::{Context as _, Result};

/// What asks the agent to read its settings again: listened to from the first moment on, or it would end a start.
pub struct Hangups(Signal);

impl Hangups {
    /// Listens from now on.
    pub fn listen() -> Result<Self> {
        listen(SignalKind::hangup()).map(Self)
    }
}

fn listen(kind: SignalKind) -> Result<Signal> {
    signal(kind).failed(|| "cannot listen for signals".to_owned())
}

/// Signals that ask the agent to stop, or to read its settings again.
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl StopSignals {
    /// Listens from now on; before anything is attached, so that a stop never leaves a probe.
    pub fn listen(hangups: Hangups) -> Result<Self> {
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: hangups.0,
        })
    }

    /// Waits for a request to stop.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Waits for either: `true` to stop, `false` to read the settings again.
    pub async fn stop_or_reload(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => true,
            _ = self.hangup.recv() => false,
        }
    }
}

/// While the agent starts it reads files and loads programs, and waits for nothing: a thread of its own hears what asks
/// it to stop, and ends it at once. Nothing is traced yet, and what is attached goes with the process.
pub struct Starting {
    over: Option<oneshot::Sender<()>>,
}

impl Starting {
    /// From now on, until [`over`](Self::over).
    ///
    /// # Errors
    /// Where there can be no thread, or signals can't be heard.
    pub fn begin() -> Result<Self> {
        let (over, is_over) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let wait = move || -> Result<Option<i32>> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build()
                .failed(|| "cannot listen for signals".to_owned())?;
            runtime.block_on(async move {
                let (mut interrupt, mut terminate) = (
                    listen(SignalKind::interrupt())?,
                    listen(SignalKind::terminate())?,
                );
                let _ = ready.send(());
                Ok(tokio::select! {
                    _ = interrupt.recv() => Some(libc::SIGINT),
                    _ = terminate.recv() => Some(libc::SIGTERM),
                    _ = is_over => None,
                })
            })
        };
        thread::Builder::new()
            .name("starting".to_owned())
            .spawn(move || {
                if let Ok(Some(signal)) = wait() {
                    end(signal);
                }
            })
            .failed(|| "cannot start a thread".to_owned())?;
        // Only then it is heard; where it can't be, the thread has ended.
        is_ready
            .recv()
            .failed(|| "cannot listen for signals".to_owned())?;
        Ok(Self { over: Some(over) })
    }

    /// The start is over: who reads, stops in good order.
    pub fn over(mut self) {
        if let Some(over) = self.over.take() {
            let _ = over.send(());
        }
    }
}

/// Ends the process, as a shell says that it ended by a signal: 130, 143.
fn end(signal: i32) -> ! {
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
