//! What the kernel side knows of a run's probes: capture plans, async functions, what spawns, what is counted. It is
//! told by whatever thread attaches probes.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::maps::PerCpuValues;
use teracron_common::{FutureId, PlanId, ProbeId};

use super::maps::{Hash, PlanMaps};
use model::error::{Context as _, Result};
use planner::probe::ProbeTable;

/// The plans that the kernel side has.
pub(super) struct Plans(Mutex<Installed>);

struct Installed {
    maps: PlanMaps,
    /// Number of capture plans that it has.
    plans: usize,
    /// Number of async functions that it has.
    futures: usize,
}

impl Plans {
    /// None yet.
    pub(super) fn new(maps: PlanMaps) -> Self {
        Self(Mutex::new(Installed {
            maps,
            plans: 0,
            futures: 0,
        }))
    }

    fn installed(&self) -> MutexGuard<'_, Installed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the kernel side the plans and async functions that it does not have yet.
    ///
    /// # Errors
    /// Where it has no room for one.
    pub(super) fn add(&self, table: &ProbeTable) -> Result<()> {
        let mut installed = self.installed();
        let Installed {
            maps,
            plans,
            futures,
        } = &mut *installed;
        let steps = table.captures().iter().map(|plan| plan.steps);
        add_new(
            &mut maps.plans,
            plans,
            steps,
            PlanId::from_index,
            "capture plans",
        )?;
        let sites = table.futures().iter().copied();
        add_new(
            &mut maps.future_sites,
            futures,
            sites,
            FutureId::from_index,
            "async functions",
        )?;
        maps.set_spawning(table, false)?;
        maps.count_inlined(table)
    }

    /// Tells the kernel side that goroutines belong to the spans of this table's probes only.
    ///
    /// # Errors
    /// Where it has no room for one.
    pub(super) fn keep_spawning(&self, table: &ProbeTable) -> Result<()> {
        self.installed().maps.set_spawning(table, true)
    }

    /// Calls that were counted where they were inlined, by probe; those of which there is no count are left out.
    pub(super) fn inlined_calls(&self, probes: &BTreeSet<ProbeId>) -> Vec<(ProbeId, u64)> {
        let installed = self.installed();
        let count = |probe: &ProbeId| {
            let values = installed.maps.inlined.get(probe, 0).ok()?;
            Some((*probe, values.iter().sum()))
        };
        probes.iter().filter_map(count).collect()
    }
}

/// Puts the values that a map does not have yet behind those that it has.
fn add_new<K: aya::Pod, V: aya::Pod>(
    map: &mut Hash<K, V>,
    installed: &mut usize,
    all: impl Iterator<Item = V>,
    id: impl Fn(usize) -> K,
    what: &str,
) -> Result<()> {
    for (index, value) in all.enumerate().skip(*installed) {
        map.insert(id(index), value, 0).failed(|| no_room(what))?;
        *installed = index + 1;
    }
    Ok(())
}

impl PlanMaps {
    /// Tells the kernel side inside which probes' spans goroutines belong there; `only`: and no others.
    fn set_spawning(&mut self, table: &ProbeTable, only: bool) -> Result<()> {
        let map = &mut self.spawning_probes;
        for probe in table.spawning() {
            map.insert(probe, 1, 0)
                .failed(|| no_room("probes that start goroutines"))?;
        }
        if only {
            let others: Vec<ProbeId> = map
                .keys()
                .flatten()
                .filter(|probe| !table.spawning().contains(probe))
                .collect();
            for probe in others {
                let _ = map.remove(&probe);
            }
        }
        Ok(())
    }

    /// Makes room for the counts of calls where they were inlined.
    fn count_inlined(&mut self, table: &ProbeTable) -> Result<()> {
        if table.counted().is_empty() {
            return Ok(());
        }
        let failed = || no_room("inlined calls");
        let zeros = || -> Result<PerCpuValues<u64>> {
            let processors = aya::util::nr_cpus()
                .map_err(|(what, _)| what)
                .failed(failed)?;
            PerCpuValues::try_from(vec![0; processors]).failed(failed)
        };
        for probe in table.counted() {
            // What was counted so far stays.
            if self.inlined.get(probe, 0).is_err() {
                self.inlined.insert(probe, zeros()?, 0).failed(failed)?;
            }
        }
        Ok(())
    }
}

fn no_room(what: &str) -> String {
    format!("the kernel has no room for more {what}")
}
