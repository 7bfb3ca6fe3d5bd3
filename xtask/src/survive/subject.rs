//! A target that runs: it does rounds of work and is compared with its untraced self.

use std::{collections::BTreeMap, path::Path, process::Command};

use serde_json::Value;

use super::{
    agent::Log,
    memory,
    process::{Deadline, Program, ending},
    targets::Launch,
};
use crate::shell::Result;

/// What a target does when nobody traces it.
pub(super) struct Untraced {
    /// Its checksum after a round, and after one of a storm.
    sums: BTreeMap<&'static str, Value>,
    ending: String,
    /// What it counts in one round.
    pub log: Log,
}

pub(super) const ROUND: &str = "round";
pub(super) const STORM: &str = "storm";

/// A target that runs.
pub(super) struct Subject {
    program: Program,
    /// The processes to trace, by its own word.
    pub pids: Vec<u32>,
    /// What its own code differed in before anything was attached.
    before: BTreeMap<String, u64>,
}

impl Subject {
    /// Starts it and waits until it is ready.
    pub(super) fn start(launch: &Launch, folder: &Path, deadline: Deadline) -> Result<Self> {
        let mut program = Program::start(&mut launch.command(folder)?)?;
        let pids = loop {
            let Some(line) = program.line(deadline) else {
                let errors = program.errors(deadline.or_after(0.5));
                let how = program.wait(deadline.or_after(0.5)).map(ending);
                return Err(format!(
                    "it did not become ready: {how:?} {}",
                    errors.join(" ")
                ));
            };
            if let Some(words) = line.strip_prefix("ready ") {
                break words
                    .split(' ')
                    .filter_map(|pid| pid.parse().ok())
                    .collect();
            }
        };
        let mut subject = Self {
            program,
            pids,
            before: BTreeMap::new(),
        };
        subject.before = subject.differing()?;
        Ok(subject)
    }

    /// Runs it untraced.
    pub(super) fn calibrate(
        launch: &Launch,
        folder: &Path,
        deadline: Deadline,
    ) -> Result<Untraced> {
        let mut subject = Self::start(launch, folder, deadline)?;
        let mut sums = BTreeMap::new();
        let mut log = Log::default();
        for kind in [ROUND, STORM] {
            let answer = subject.answer(kind, deadline)?;
            if kind == ROUND {
                log.add(&answer);
            }
            sums.insert(kind, answer["sum"].clone());
        }
        Ok(Untraced {
            sums,
            ending: subject.end(deadline)?,
            log,
        })
    }

    fn answer(&mut self, kind: &str, deadline: Deadline) -> Result<Value> {
        self.program.send(kind);
        self.read(deadline)
    }

    /// Tells it to begin a round and doesn't wait.
    pub(super) fn begin(&mut self, kind: &str) {
        self.program.send(kind);
    }

    fn read(&mut self, deadline: Deadline) -> Result<Value> {
        let Some(line) = self.program.line(deadline) else {
            return Err(match self.program.wait(deadline.or_after(0.5)) {
                Some(status) => {
                    let errors = self.program.errors(deadline.or_after(0.5)).join(" ");
                    let errors: String = errors.chars().take(160).collect();
                    format!("{} {errors}", ending(status)).trim_end().to_owned()
                }
                None => "it hangs".to_owned(),
            });
        };
        serde_json::from_str(&line).map_err(|_| format!("it printed {line:?}"))
    }

    /// The end of a round that was begun: anything but what happens untraced is an error.
    pub(super) fn finish(
        &mut self,
        kind: &str,
        untraced: &Untraced,
        log: &mut Log,
        deadline: Deadline,
    ) -> Result<()> {
        let answer = self.read(deadline)?;
        if answer["sum"] != untraced.sums[kind] {
            return Err(format!(
                "wrong output: sum {}, not {}",
                answer["sum"], untraced.sums[kind]
            ));
        }
        if answer["wrong"] != 0 {
            return Err(format!(
                "{} of its children or checks went wrong",
                answer["wrong"]
            ));
        }
        log.add(&answer);
        Ok(())
    }

    /// A whole round.
    pub(super) fn round(
        &mut self,
        kind: &str,
        untraced: &Untraced,
        log: &mut Log,
        deadline: Deadline,
    ) -> Result<()> {
        self.begin(kind);
        self.finish(kind, untraced, log, deadline)
    }

    /// Lets it end; answers how.
    fn end(mut self, deadline: Deadline) -> Result<String> {
        self.program.close();
        let status = self.program.wait(deadline).ok_or("it does not end")?;
        Ok(ending(status))
    }

    /// Lets it end, as it does untraced.
    pub(super) fn end_as(self, untraced: &Untraced, deadline: Deadline) -> Result<()> {
        let how = self.end(deadline)?;
        if how == untraced.ending {
            Ok(())
        } else {
            Err(format!("{how}, untraced {}", untraced.ending))
        }
    }

    /// Bytes of code that differ from the files, over all of its processes that live.
    fn differing(&self) -> Result<BTreeMap<String, u64>> {
        let mut all = BTreeMap::new();
        for &pid in &self.pids {
            for (path, bytes) in memory::differing(pid).unwrap_or_default() {
                *all.entry(path).or_default() += bytes;
            }
        }
        Ok(all)
    }

    /// Waits until its code is what it was before: an error says what is not.
    pub(super) fn restored(&self, deadline: Deadline) -> Result<()> {
        let mut left = BTreeMap::new();
        // The kernel takes breakpoints out a moment after a killed agent is gone.
        let clean = deadline.or_after(8.0).until(|| {
            left = self.differing().unwrap_or_default();
            // What others' agents change in libraries that all share is not ours.
            let foreign = !left.is_empty() && memory::another_agent();
            left.retain(|path, bytes| {
                self.before.get(path).is_none_or(|before| before != bytes)
                    && !(foreign && (path.starts_with("/usr/lib/") || path.starts_with("/lib/")))
            });
            left.is_empty()
        });
        if clean {
            Ok(())
        } else {
            Err(format!("code not restored: {} bytes", memory::show(&left)))
        }
    }

    /// What a bystander has to map: the code of all its files.
    pub(super) fn files(&self) -> Result<Vec<String>> {
        let mut words = Vec::new();
        for &pid in &self.pids {
            for mapping in memory::executable(pid)? {
                let length = mapping.end - mapping.start;
                let piece = [mapping.path, mapping.offset.to_string(), length.to_string()];
                if !words.chunks(3).any(|known: &[String]| known == piece) {
                    words.extend(piece);
                }
            }
        }
        Ok(words)
    }
}

/// A process that maps the same files and that nobody named.
pub(super) struct Bystander {
    program: Program,
    /// Bytes that differed at its start, by others' doing.
    pub before: u64,
}

impl Bystander {
    pub(super) fn start(program: &Path, files: &[String], deadline: Deadline) -> Result<Self> {
        let mut program = Program::start(Command::new(program).args(files))?;
        if program.line(deadline).is_none() {
            return Err("the bystander did not become ready".to_owned());
        }
        let mut bystander = Self { program, before: 0 };
        bystander.before = bystander.differing();
        Ok(bystander)
    }

    fn differing(&self) -> u64 {
        memory::differing(self.program.pid()).map_or(0, |found| found.values().sum())
    }

    /// Bytes of its code that are not what they were at its start.
    pub(super) fn changed(&self) -> u64 {
        self.differing().saturating_sub(self.before)
    }

    /// Bytes of its code that differ from the files.
    pub(super) fn all(&self) -> u64 {
        self.differing()
    }
}
