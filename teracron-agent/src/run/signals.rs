//! The signals that the agent listens to.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Context as _, Result};

/// Signals that ask the agent to stop, or to read its settings again.
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl StopSignals {
    /// Listens from now on; before anything is attached, so that a stop never leaves a probe.
    pub fn listen() -> Result<Self> {
        let listen =
            |kind: SignalKind| signal(kind).failed(|| "cannot listen for signals".to_owned());
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
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
