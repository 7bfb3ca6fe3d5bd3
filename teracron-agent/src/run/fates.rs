//! What becomes of the targets: they die, or they remove breakpoints. Keeps the facts, asks
//! [`deaths`](super::deaths) and [`removed`](super::removed) what to think of them, and says it.

use std::collections::{HashMap, HashSet};

use teracron_common::ProbeId;

use super::{
    Prepared,
    deaths::{TOLD, Verdict, is_asked_for, judge, killed_text, place_text},
    placed::Placed,
    removed::{self, Removed},
};
use image::FileKey;
use model::{signal_name, text};
use pipeline::output::Death;
use planner::probe::ProbeTable;
use tracer::decode::Dying;

/// Processes that were given a deadly signal and have not ended: as many may be writing core dumps at a time.
const MOST_DYING: usize = 4096;

/// The fates of the targets.
#[derive(Default)]
pub(super) struct Fates {
    /// What lies where.
    pub placed: Placed,
    removed: Removed,
    dying: HashMap<u32, (Dying, Verdict)>,
    /// Processes that a signal has killed that nobody asks for politely.
    pub killed: u64,
    told: u64,
    /// The signal by which the last process ended that did end; 0: none.
    last: u32,
    /// Files whose probes were taken out while others ran them.
    pub given_up: u64,
}

/// What is to be done about a process that dies.
pub(super) struct Suspicion {
    /// Files to take the probes out of.
    pub files: Vec<FileKey>,
    /// What the user should know.
    pub note: String,
}

/// A process that has died by a signal.
pub(super) struct Obituary {
    /// For the output.
    pub death: Death,
    /// What the user should know, where not too much was said already.
    pub note: Option<String>,
}

impl Fates {
    /// From what was planned at the start.
    pub(super) fn new(prepared: &Prepared) -> Self {
        let mut this = Self::default();
        this.placed.plan(prepared, &HashSet::new());
        for target in &prepared.targets {
            this.removed.attached(target.process.pid);
        }
        this
    }

    /// Breakpoints of ours that are not in a process now.
    pub(super) fn missing_now(&mut self, pid: u32) -> u64 {
        self.placed.refresh_one(pid);
        removed::missing_now(pid, &self.placed)
    }

    /// A process has become another program.
    pub(super) fn executed(&mut self, pid: u32) {
        self.placed.executed(pid);
        self.removed.forget(pid);
        self.dying.remove(&pid);
    }

    /// A process gets a deadly signal; the probes of a file that may have been the cause should go at
    /// once, before others die of them, too.
    pub(super) fn dying(
        &mut self,
        dying: Dying,
        comm: &str,
        table: &ProbeTable,
    ) -> Option<Suspicion> {
        if self.dying.contains_key(&dying.pid) || self.dying.len() >= MOST_DYING {
            return None;
        }
        self.placed.refresh_one(dying.pid);
        let verdict = judge(&dying, &self.placed.mappings(dying.pid), &self.placed.files);
        let files = verdict.suspects.clone();
        let place = place_text(verdict.place.as_ref(), |probe| name(table, probe));
        self.dying.insert(dying.pid, (dying, verdict));
        let paths: Vec<String> = files
            .iter()
            .filter_map(|key| self.placed.files.remove(key))
            .map(|file| text::shown(&file.image.path))
            .collect();
        if paths.is_empty() {
            return None;
        }
        let note = format!(
            "process {} ({comm}) gets {}{place}: the agent's own breakpoints may have been the cause; all probes are taken out of {} now, in every process",
            dying.pid,
            signal_name(dying.signal),
            paths.join(" and ")
        );
        Some(Suspicion { files, note })
    }

    /// A process has ended; `code` is as `wait` reports it.
    pub(super) fn exited(
        &mut self,
        pid: u32,
        code: u32,
        comm: &str,
        table: &ProbeTable,
    ) -> Option<Obituary> {
        let signal = code & 0x7f;
        let dying = self.dying.remove(&pid);
        self.placed.ended(pid);
        self.removed.forget(pid);
        self.last = signal;
        if signal == 0 {
            return None;
        }
        self.killed += u64::from(!is_asked_for(signal));
        self.told += 1;
        // Threads get a SIGKILL when another one has brought the process down.
        let verdict = dying
            .filter(|(dying, _)| dying.signal == signal)
            .map(|(_, verdict)| verdict)
            .unwrap_or_default();
        let place = place_text(verdict.place.as_ref(), |probe| name(table, probe));
        let mut note = (self.told <= TOLD).then(|| killed_text(pid, comm, signal, &place));
        if self.told == TOLD
            && let Some(note) = &mut note
        {
            note.push_str("; more such ends are only counted");
        }
        let address = verdict.place.as_ref().map(|place| place.address);
        let probe = verdict.place.as_ref().and_then(|place| place.probe);
        let (module, offset) = verdict.place.and_then(|place| place.module).unzip();
        Some(Obituary {
            death: Death {
                pid,
                comm: comm.to_owned(),
                signal: signal_name(signal).into_owned(),
                address,
                module,
                offset,
                function: probe.and_then(|probe| name(table, probe)),
                suspected: !verdict.suspects.is_empty(),
            },
            note,
        })
    }

    /// Once a second: what the living have done. Answers what the user should know.
    pub(super) fn look(&mut self, processes: &[(u32, String)], table: &ProbeTable) -> Vec<String> {
        self.placed.refresh();
        self.removed
            .look(processes, &self.placed, |probe| name(table, probe))
    }

    /// The same at the end, while the breakpoints are still there.
    pub(super) fn look_last(
        &mut self,
        processes: &[(u32, String)],
        table: &ProbeTable,
    ) -> Vec<String> {
        // What was unloaded a moment ago is not compared with what lies there now.
        self.placed.refresh();
        self.removed
            .look_last(processes, &self.placed, |probe| name(table, probe))
    }

    /// Breakpoints that targets have removed.
    pub(super) fn removed(&self) -> u64 {
        self.removed.missing
    }

    /// The signal by which the last process ended, where nobody asked it to.
    pub(super) fn last_killed_by(&self) -> Option<u32> {
        (self.last != 0 && !is_asked_for(self.last)).then_some(self.last)
    }
}

fn name(table: &ProbeTable, probe: ProbeId) -> Option<String> {
    table.name(probe).map(|name| name.operation.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dying(pid: u32, signal: u32) -> Dying {
        Dying {
            pid,
            tid: pid,
            at_ns: 0,
            signal,
            code: 1,
            ip: Some(0x1000),
            detail: 0,
        }
    }

    #[test]
    fn the_exit_code_says_which_signal_it_was() {
        let mut fates = Fates::default();
        let table = ProbeTable::default();
        // A core dump is told by bit 7.
        assert!(fates.dying(dying(1, 11), "a", &table).is_none());
        let told = fates.exited(1, 11 | 0x80, "a", &table).unwrap();
        assert_eq!(
            told.note.unwrap(),
            "process 1 (a) was killed by SIGSEGV at 0x1000 (in no file)"
        );
        assert_eq!(told.death.address, Some(0x1000));
        assert_eq!(fates.last_killed_by(), Some(11));
        // It survived that one and was killed by another.
        assert!(fates.dying(dying(2, 11), "b", &table).is_none());
        let told = fates.exited(2, 9, "b", &table).unwrap();
        assert_eq!(told.note.unwrap(), "process 2 (b) was killed by SIGKILL");
        assert_eq!((fates.killed, told.death.address), (2, None));
        let told = fates.exited(3, 15, "c", &table).unwrap();
        assert_eq!(told.note.unwrap(), "process 3 (c) was stopped by SIGTERM");
        assert_eq!((fates.killed, fates.last_killed_by()), (2, None));
        assert!(fates.exited(4, 0x100, "d", &table).is_none());
        assert_eq!(fates.last_killed_by(), None);
    }

    #[test]
    fn a_flood_of_deaths_is_told_only_so_far() {
        let mut fates = Fates::default();
        let table = ProbeTable::default();
        let notes = (1..100)
            .filter_map(|pid| fates.exited(pid, 9, "x", &table)?.note)
            .count();
        assert_eq!((notes as u64, fates.killed), (TOLD, 99));
    }
}
