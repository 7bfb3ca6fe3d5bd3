//! What the reader does with the kernel's word of processes: they fork, run new programs, map files, die.

use std::{io, time::Instant};

use teracron_common::End;

use super::{life::Event, reader::Reader};
use tracer::{
    assemble::monotonic_ns,
    decode::{self, Change, Dying},
    kernel::OpenFrame,
};

impl Reader {
    pub(super) fn read_events(&mut self) {
        let (mut changes, mut ended) = (Vec::new(), Vec::new());
        let over = self.over;
        let ring = self.events.get_mut();
        while let Some(item) = ring.next() {
            match decode::change(&item) {
                Ok(change) => {
                    log::debug!("{change:?}");
                    changes.push(change);
                }
                Err(error) => log::error!("{error}"),
            }
        }
        for change in changes {
            match change {
                Change::Forked {
                    parent,
                    child,
                    at_ns,
                } => {
                    if !self.reloading.settings.targets.follow {
                        self.live(Event::ForkedAway { parent, child });
                        continue;
                    }
                    self.assembler.learn_process(child);
                    self.session.forked(parent, child);
                    self.fates.placed.forked(parent, child);
                    self.live(Event::Forked {
                        parent,
                        child,
                        at_ns,
                    });
                }
                Change::Executed {
                    pid,
                    old_tid,
                    at_ns,
                } => {
                    self.assembler.learn_process(pid);
                    self.session.forget_layout(pid);
                    self.fates.executed(pid);
                    self.sides.forget(pid);
                    self.executed(pid, old_tid, at_ns);
                    self.following.changed();
                }
                Change::Exited { pid, code, at_ns } => {
                    let comm = self.processes.comm(pid);
                    self.mourn(pid, code, &comm);
                    let late = over.is_some_and(|over| at_ns > over);
                    self.gone.add(pid, Instant::now());
                    ended.push((pid, how_it_ended(code, late)));
                }
                Change::ThreadEnded { pid, tid } => self.thread_ended(pid, tid),
                Change::Mapped(pid) => {
                    self.following.changed();
                    self.fates.placed.changed(pid);
                }
                Change::Dying(one) => {
                    let comm = self.processes.comm(one.pid);
                    self.suspect(one, &comm);
                }
            }
            self.processes.change(change);
        }
        for (pid, (end, detail)) in ended {
            self.ended(pid);
            let mut left = self.session.take_left(pid);
            for open in &mut left {
                open.record.detail = detail;
            }
            if !left.is_empty()
                && let Err(error) = self.show_left(left, end)
            {
                log::debug!("{error}");
            }
        }
    }

    /// A process gets a deadly signal: takes out what may have been the cause, before others die of it.
    pub(super) fn suspect(&mut self, dying: Dying, comm: &str) {
        let pid = dying.pid;
        let Some(suspicion) = self.fates.dying(dying, comm, &self.table) else {
            return;
        };
        for key in suspicion.files {
            self.live(Event::FileRemoved(key));
            if self.session.remove_file(key) {
                let others = self.processes.alive().into_iter().filter(|it| *it != pid);
                let others = self.fates.placed.is_mapped(key, others);
                self.fates.given_up += u64::from(others || self.processes.is_endless());
            }
        }
        self.say_all(vec![suspicion.note]);
    }

    /// A process has ended: tells it where a signal did it.
    pub(super) fn mourn(&mut self, pid: u32, code: u32, comm: &str) {
        let Some(obituary) = self.fates.exited(pid, code, comm, &self.table) else {
            return;
        };
        // A closed pipe is noticed again with the next span.
        let _ = self.sinks.death(&obituary.death);
        self.say_all(obituary.note.into_iter().collect());
    }

    /// Forgets those that ended a while ago.
    pub(super) fn forget_gone(&mut self) {
        for pid in self.gone.take_due(Instant::now()) {
            // Another may have its id by now.
            if !self.processes.knows(pid) {
                self.assembler.forget_process(pid);
                self.session.forget_layout(pid);
            }
        }
    }

    pub(super) fn say_all(&mut self, notes: Vec<String>) {
        if !notes.is_empty() {
            self.status.clear();
        }
        for note in notes {
            self.sides.notes.say(&note);
        }
    }

    /// Shows calls of which the kernel side tells no end: they end now, or with the run, in the way given.
    pub(super) fn show_left(&mut self, left: Vec<OpenFrame>, end: End) -> io::Result<()> {
        let now = self.over.unwrap_or_else(monotonic_ns);
        for mut open in left {
            open.record.end_ns = now;
            let mut end = end;
            if let Some(polls) = open.polls {
                self.assembler.polled(open.record.span_id, polls);
                if end == End::ProcessExited && self.table.is_undropped(open.record.probe) {
                    // It may have been dropped long ago.
                    end = End::Unwound;
                }
            }
            let raw = decode::RawSpan {
                record: open.record,
                end,
                type_name: &[],
                message: &[],
            };
            let span = self
                .assembler
                .span(&raw, &self.table, self.session.layouts());
            self.sinks.take(&raw, span, &mut self.summary)?;
        }
        self.sinks.flush()
    }
}

/// How calls end that were open when their process did, by its exit code as waitpid(2) has it: the end and its detail.
/// Of one that ended after the run nothing is told.
fn how_it_ended(code: u32, late: bool) -> (End, u8) {
    match code & 0x7f {
        _ if late => (End::Open, 0),
        0 => (End::ProcessExited, (code >> 8) as u8),
        signal => (End::Signal, signal as u8),
    }
}
