//! Breakpoints that the target itself has removed: it wrote its own code back, or other code over it.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    os::unix::fs::FileExt as _,
    time::{Duration, Instant},
};

use teracron_common::ProbeId;

use super::{
    placed::{Mapping, Placed, PlacedFile},
    plural,
};
use image::{FileKey, Image};
use model::text::{self, duration};
use tracer::process::face;

/// Between two looks at a process.
const EVERY: Duration = Duration::from_secs(30);
/// So long after a process was first seen its breakpoints are there.
const SETTLED: Duration = Duration::from_secs(1);
/// Sites that are looked at in one process; the rest is not looked at.
const MOST_SITES: usize = 5_000;
/// Sites that are looked at a second, about: what this costs the reader, some milliseconds.
const BUDGET: usize = 5_000;
/// The same at the end of a run.
const LAST_BUDGET: usize = 100_000;

/// `int3`.
const BREAKPOINT: u8 = 0xcc;
/// `call`, which newer kernels make of a 5-byte nop with a probe.
const CALL: u8 = 0xe8;
/// First byte of that nop.
const NOP: u8 = 0x0f;

/// What a look at a file in a process has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Sites that were looked at.
    pub looked_at: u64,
    /// Sites where there is no breakpoint of ours.
    pub missing: u64,
    /// Offset of the first of these.
    pub first: Option<u64>,
}

/// Compares what memory has at sites with what is to be there: `memory` answers the byte, `None` where it
/// can't be read, `file` what the file has.
pub(super) fn compare(
    offsets: impl Iterator<Item = u64>,
    memory: impl Fn(u64) -> Option<u8>,
    file: impl Fn(u64) -> Option<u8>,
) -> Found {
    let mut found = Found::default();
    for offset in offsets {
        let Some(byte) = memory(offset) else {
            continue;
        };
        found.looked_at += 1;
        let in_place = byte == BREAKPOINT || (byte == CALL && file(offset) == Some(NOP));
        if !in_place {
            found.missing += 1;
            found.first.get_or_insert(offset);
        }
    }
    found
}

/// Looks at processes in turn.
#[derive(Default)]
pub(super) struct Removed {
    /// When a process was looked at last.
    looked: HashMap<u32, Instant>,
    /// What has been told.
    told: HashSet<(u32, FileKey)>,
    /// Breakpoints that are missing, in all.
    pub missing: u64,
}

impl Removed {
    /// The breakpoints are in a process from now on.
    pub(super) fn attached(&mut self, pid: u32) {
        let now = Instant::now();
        self.looked
            .insert(pid, now.checked_sub(SETTLED).unwrap_or(now));
    }

    /// A process is no more, or another program.
    pub(super) fn forget(&mut self, pid: u32) {
        self.looked.remove(&pid);
        self.told.retain(|(told, _)| *told != pid);
    }

    /// Once a second: looks at those processes whose time has come, as far as that is cheap. Answers what
    /// the user should know.
    pub(super) fn look(
        &mut self,
        processes: &[(u32, String)],
        placed: &Placed,
        name: impl Fn(ProbeId) -> Option<String>,
    ) -> Vec<String> {
        self.look_at(processes, placed, name, EVERY, BUDGET)
    }

    /// At the end of a run: at all of them.
    pub(super) fn look_last(
        &mut self,
        processes: &[(u32, String)],
        placed: &Placed,
        name: impl Fn(ProbeId) -> Option<String>,
    ) -> Vec<String> {
        self.look_at(processes, placed, name, SETTLED, LAST_BUDGET)
    }

    fn look_at(
        &mut self,
        processes: &[(u32, String)],
        placed: &Placed,
        name: impl Fn(ProbeId) -> Option<String>,
        every: Duration,
        mut budget: usize,
    ) -> Vec<String> {
        let mut notes = Vec::new();
        let now = Instant::now();
        for (pid, comm) in processes {
            let last = match self.looked.get(pid) {
                Some(last) if now.duration_since(*last) < every => continue,
                // Whoever has just come may not have its breakpoints yet.
                None => {
                    self.looked.insert(*pid, now);
                    continue;
                }
                Some(last) => *last,
            };
            if budget == 0 {
                break;
            }
            self.looked.insert(*pid, now);
            // It may have ended.
            let Ok(memory) = File::open(format!("/proc/{}/mem", face(*pid))) else {
                continue;
            };
            let mut left = MOST_SITES;
            let mappings = placed.mappings(*pid);
            for (key, file) in &placed.files {
                if self.told.contains(&(*pid, *key)) {
                    continue;
                }
                let found = look_into(&memory, &mappings, file, left);
                let looked_at = found.looked_at as usize;
                (left, budget) = (left - looked_at.min(left), budget.saturating_sub(looked_at));
                let Some(first) = found.first else {
                    continue;
                };
                self.told.insert((*pid, *key));
                self.missing += found.missing;
                let passed = duration(now.duration_since(last).as_nanos() as u64);
                let since = format!("for {passed} at most");
                let function = file.probe_before(first).and_then(&name);
                notes.push(note(
                    *pid,
                    comm,
                    found,
                    &file.image,
                    function.as_deref(),
                    &since,
                ));
            }
        }
        notes
    }
}

/// How many sites have no breakpoint of ours in a process now.
pub(super) fn missing_now(pid: u32, placed: &Placed) -> u64 {
    let Ok(memory) = File::open(format!("/proc/{}/mem", face(pid))) else {
        return 0;
    };
    let mappings = placed.mappings(pid);
    let files = placed.files.values();
    files
        .map(|file| look_into(&memory, &mappings, file, MOST_SITES).missing)
        .sum()
}

fn look_into(memory: &File, mappings: &[Mapping], file: &PlacedFile, most: usize) -> Found {
    let byte = |from: &File, at: u64| {
        let mut byte = [0u8; 1];
        from.read_exact_at(&mut byte, at).ok()?;
        Some(byte[0])
    };
    let mut offsets: Vec<u64> = file.sites.iter().map(|site| site.offset).collect();
    offsets.dedup();
    offsets.truncate(most);
    compare(
        offsets.into_iter(),
        |offset| {
            let address = mappings
                .iter()
                .filter(|mapping| mapping.file == file.image.key)
                .find_map(|mapping| mapping.address_of(offset))?;
            byte(memory, address)
        },
        |offset| byte(&file.image.file, offset),
    )
}

fn note(
    pid: u32,
    comm: &str,
    found: Found,
    image: &Image,
    function: Option<&str>,
    since: &str,
) -> String {
    let first = match function {
        Some(name) => format!("function {}", text::shown(name)),
        None => format!("at offset {:#x}", found.first.unwrap_or_default()),
    };
    format!(
        "process {pid} ({comm}) has removed or replaced {} of {} in {} (first: {first}), {since}: calls there are not seen any more",
        found.missing,
        plural(found.looked_at as usize, "breakpoint"),
        text::shown(&image.path),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_is_gone_from_what_is_there() {
        let memory = HashMap::from([
            (1u64, BREAKPOINT),
            (2, CALL),
            (3, CALL),
            (4, 0x55),
            (5, 0x90),
        ]);
        let file = HashMap::from([(1u64, 0x55u8), (2, NOP), (3, 0x55), (4, 0x55)]);
        let found = compare(
            [1, 2, 3, 4, 5, 6].into_iter(),
            |at| memory.get(&at).copied(),
            |at| file.get(&at).copied(),
        );
        assert_eq!(
            found,
            Found {
                looked_at: 5,
                missing: 3,
                first: Some(3),
            }
        );
        let none = compare([6, 7].into_iter(), |_| None, |_| None);
        assert_eq!(none, Found::default());
        let all = compare([1].into_iter(), |_| Some(BREAKPOINT), |_| None);
        assert_eq!((all.looked_at, all.missing), (1, 0));
    }
}
