//! Which traced processes are alive.

use std::{collections::HashMap, os::fd::OwnedFd};

use tokio::io::unix::AsyncFd;

use model::error::{Context as _, Result};
use sys::readable;
use tracer::{decode::Change, process::Process};

/// The traced processes. They are known from the kernel side's events; that one ended is also asked
/// of its descriptor and, now and then, of `/proc`, should an event have been lost.
pub(super) struct Processes {
    alive: HashMap<u32, Option<Process>>,
    /// Never empty of meaning: new processes of an executable can come at any time.
    endless: bool,
    changed: bool,
    /// One process's descriptor: to notice its end at once.
    first: Option<AsyncFd<OwnedFd>>,
}

impl Processes {
    /// Starts to watch processes; `endless` where new ones can come at any time.
    pub(super) fn start(pids: impl Iterator<Item = u32>, endless: bool) -> Result<Self> {
        let mut this = Self {
            alive: pids.map(|pid| (pid, Process::find(pid).ok())).collect(),
            endless,
            changed: false,
            first: None,
        };
        this.watch_one()?;
        Ok(this)
    }

    /// Process ids, ascending.
    pub(super) fn alive(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self.alive.keys().copied().collect();
        pids.sort_unstable();
        pids
    }

    /// Whether new ones can come at any time.
    pub(super) fn is_endless(&self) -> bool {
        self.endless
    }

    /// Process ids with names, ascending.
    pub(super) fn named(&self) -> Vec<(u32, String)> {
        let mut named: Vec<(u32, String)> = self
            .alive
            .keys()
            .map(|pid| (*pid, self.comm(*pid)))
            .collect();
        named.sort_unstable();
        named
    }

    /// The name that a process had when it was last looked at, escaped; empty where that was never.
    pub(super) fn comm(&self, pid: u32) -> String {
        let known = self.alive.get(&pid).and_then(Option::as_ref);
        known.map_or_else(String::new, |process| process.comm.clone())
    }

    /// Whether processes came or went since the last call.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Whether a process is watched.
    pub(super) fn knows(&self, pid: u32) -> bool {
        self.alive.contains_key(&pid)
    }

    /// Watches one more.
    pub(super) fn add(&mut self, pid: u32) {
        if let std::collections::hash_map::Entry::Vacant(place) = self.alive.entry(pid) {
            place.insert(Process::find(pid).ok());
            self.changed = true;
        }
    }

    fn watch_one(&mut self) -> Result<()> {
        self.first = None;
        let descriptor = self
            .alive
            .values()
            .flatten()
            .find_map(|process| process.pidfd().ok());
        if let Some(descriptor) = descriptor {
            self.first =
                Some(readable(descriptor).failed(|| "cannot watch the target".to_owned())?);
        }
        Ok(())
    }

    /// Takes what the kernel side reports.
    pub(super) fn change(&mut self, change: Change) {
        self.changed = true;
        match change {
            Change::Forked { child: pid, .. } | Change::Executed { pid, .. } => {
                self.alive.insert(pid, Process::find(pid).ok());
            }
            Change::Exited { pid, .. } => {
                self.alive.remove(&pid);
            }
            Change::ThreadEnded { .. } | Change::Mapped(_) | Change::Dying(_) => {}
        }
    }

    /// Looks whether the processes are still there.
    pub(super) fn refresh(&mut self) {
        let before = self.alive.len();
        self.alive.retain(|pid, process| match process {
            Some(process) => process.is_alive(),
            None => Process::find(*pid).is_ok(),
        });
        self.changed |= self.alive.len() != before;
    }

    /// Waits until a process ends; for ever where none can be watched.
    pub(super) async fn ended(&self) {
        match &self.first {
            Some(descriptor) => {
                let _ = descriptor.readable().await;
            }
            None => std::future::pending().await,
        }
    }

    /// After [`ended`](Self::ended): goes on with the others.
    pub(super) fn after_end(&mut self) -> Result<()> {
        self.refresh();
        self.watch_one()
    }

    /// Whether no process is left, and none can come.
    pub(super) fn is_over(&self) -> bool {
        self.alive.is_empty() && !self.endless
    }
}
