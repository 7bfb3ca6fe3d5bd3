//! Memory and processor share of the targets, read from `/proc` now and then.

mod runtime;
mod thread;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use procfs::process::{Process as ProcProcess, Stat};
use wire::{CPU_SCALE, Sample};

use crate::process::{identity, living_thread};
use model::{ProcessIdentity, ProcessSample};

pub(crate) use runtime::runtime_of;
pub use thread::Sampling;

/// A process that is sampled.
struct Watched {
    who: Arc<ProcessIdentity>,
    runtime: String,
    /// When it was looked at last, and the clock ticks of processor time by then.
    last: Option<(Instant, u64)>,
}

/// Samples processes.
#[derive(Default)]
pub(crate) struct Sampler {
    watched: HashMap<u32, Watched>,
    ticks_per_second: u64,
    page_size: u64,
}

impl Sampler {
    /// Watches nobody yet.
    pub(crate) fn new() -> Self {
        Self {
            watched: HashMap::new(),
            ticks_per_second: procfs::ticks_per_second().max(1),
            page_size: procfs::page_size(),
        }
    }

    /// Takes a sample of each process; those that are not named any more are forgotten. A process
    /// that has ended, or whose id is another's by now, gives none.
    pub(crate) fn sample(&mut self, pids: impl Iterator<Item = u32>) -> Vec<ProcessSample> {
        let pids: Vec<u32> = pids.collect();
        self.watched.retain(|pid, _| pids.contains(pid));
        pids.into_iter()
            .filter_map(|pid| self.sample_one(pid))
            .collect()
    }

    fn sample_one(&mut self, pid: u32) -> Option<ProcessSample> {
        let process = ProcProcess::new(i32::try_from(pid).ok()?).ok()?;
        let stat = process.stat().ok()?;
        // Of a process whose main thread has ended, another thread tells the memory.
        let mut thread = None;
        if matches!(stat.state, 'Z' | 'X' | 'x') {
            thread = living_thread(pid).and_then(|tid| ProcProcess::new(tid as i32).ok());
            if thread.is_none() {
                self.watched.remove(&pid);
                return None;
            }
        }
        if let Some(watched) = self.watched.get(&pid)
            && watched.who.start_time != stat.starttime
        {
            // Another process has the id; it is sampled once the agent knows it as a target.
            log::debug!("process {pid} is another one now");
            return None;
        }
        let sample = self.figures(thread.as_ref().unwrap_or(&process), &stat, pid)?;
        // It may have ended in between, and the figures be another's.
        let same = process
            .stat()
            .is_ok_and(|now| now.starttime == stat.starttime);
        let watched = self.watched.get(&pid)?;
        same.then(|| ProcessSample {
            process: watched.who.clone(),
            runtime: watched.runtime.clone(),
            sample,
        })
    }

    fn figures(&mut self, process: &ProcProcess, stat: &Stat, pid: u32) -> Option<Sample> {
        let memory = process.statm().ok()?;
        let (vms, rss) = (
            memory.size * self.page_size,
            memory.resident * self.page_size,
        );
        let now = Instant::now();
        let ticks = stat.utime + stat.stime;
        let ticks_per_second = self.ticks_per_second;
        let who = || {
            let who = identity(pid).filter(|who| who.start_time == stat.starttime);
            who.unwrap_or_else(|| ProcessIdentity {
                pid,
                start_time: stat.starttime,
                ..ProcessIdentity::default()
            })
        };
        let watched = self.watched.entry(pid).or_insert_with(|| Watched {
            who: Arc::new(who()),
            runtime: runtime_of(pid),
            last: None,
        });
        let cpu = watched.last.map(|(then, before)| {
            share(
                ticks.saturating_sub(before),
                ticks_per_second,
                now.duration_since(then),
            )
        });
        watched.last = Some((now, ticks));
        Some(Sample {
            timestamp: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as u64),
            vms,
            uss: unique(process).unwrap_or(rss),
            rss,
            cpu,
        })
    }

    /// A process id may be another process from now on (it runs a new program).
    pub(crate) fn forget(&mut self, pid: u32) {
        self.watched.remove(&pid);
    }
}

/// Bytes that only this process has: private clean, dirty and huge pages. `None` where neither
/// `smaps_rollup` nor `smaps` can be read.
fn unique(process: &ProcProcess) -> Option<u64> {
    const PARTS: [&str; 3] = ["Private_Clean", "Private_Dirty", "Private_Hugetlb"];
    let add = |map: &HashMap<String, u64>| -> u64 {
        PARTS.iter().filter_map(|part| map.get(*part)).sum()
    };
    if let Ok(rollup) = process.smaps_rollup() {
        let maps = rollup.memory_map_rollup;
        return Some(maps.iter().map(|map| add(&map.extension.map)).sum());
    }
    let maps = process.smaps().ok()?;
    Some(maps.iter().map(|map| add(&map.extension.map)).sum())
}

/// Share of one core, times [`CPU_SCALE`], capped.
fn share(ticks: u64, ticks_per_second: u64, elapsed: Duration) -> u64 {
    let seconds = elapsed.as_secs_f64();
    if seconds <= 0.0 {
        return 0;
    }
    let share = ticks as f64 / ticks_per_second as f64 / seconds;
    // Half to even, as Python's `round`.
    ((share * CPU_SCALE as f64).round_ties_even() as u64).min(CPU_SCALE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_this_process() {
        let mut sampler = Sampler::new();
        let own = std::process::id();
        let first = sampler.sample(std::iter::once(own));
        let [first] = first.as_slice() else {
            panic!("{first:?}");
        };
        assert_eq!(first.sample.cpu, None);
        assert!(first.sample.uss > 0 && first.sample.uss <= first.sample.vms);
        assert!(first.runtime.starts_with("rustc 1."), "{}", first.runtime);
        let second = sampler.sample(std::iter::once(own));
        assert!(second[0].sample.cpu.is_some());
        assert!(sampler.sample(std::iter::once(u32::MAX)).is_empty());
    }

    #[test]
    fn a_reused_id_is_not_sampled_as_the_old_process() {
        let mut sampler = Sampler::new();
        let own = std::process::id();
        sampler.sample(std::iter::once(own));
        Arc::make_mut(&mut sampler.watched.get_mut(&own).unwrap().who).start_time -= 1;
        assert!(sampler.sample(std::iter::once(own)).is_empty());
        sampler.forget(own);
        assert_eq!(sampler.sample(std::iter::once(own)).len(), 1);
    }

    #[test]
    fn shares() {
        assert_eq!(share(50, 100, Duration::from_secs(1)), 5_000);
        assert_eq!(share(400, 100, Duration::from_secs(1)), 10_000);
        assert_eq!(share(4, 100, Duration::ZERO), 0);
    }
}
