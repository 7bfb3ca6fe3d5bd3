//! The signals that the agent listens to.

use tokio::signal::unix::{Signal, SignalKind, signal};

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
