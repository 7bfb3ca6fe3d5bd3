//! Capture plans in the kernel, and the programs that run them: loaded with the first plan, from
//! whatever thread attaches probes.

use std::{
    collections::{BTreeSet, HashMap},
    os::fd::OwnedFd,
    sync::{Mutex, OnceLock, PoisonError},
};

use aya::maps::{HashMap as EbpfHashMap, Map, MapData, PerCpuHashMap, PerCpuValues};
use teracron_common::{FutureSite, Plan};

use super::{
    multi::{self, Descriptors, MultiProgram},
    session::{OBJECT, chain},
};
use model::error::{Context as _, Error, Result};
use planner::probe::{Group, ProbeTable, Program, Site};

/// The plans that the kernel side has.
pub struct Plans {
    descriptors: Descriptors,
    /// Number of plans and of async functions that it has.
    installed: Mutex<(usize, usize)>,
    /// Programs of groups that only some runs need.
    capture: OnceLock<HashMap<&'static str, MultiProgram>>,
    go: OnceLock<HashMap<&'static str, MultiProgram>>,
    spawn: OnceLock<HashMap<&'static str, MultiProgram>>,
    future: OnceLock<HashMap<&'static str, MultiProgram>>,
}

impl Plans {
    /// None yet.
    pub fn new(descriptors: Descriptors) -> Self {
        Self {
            descriptors,
            installed: Mutex::new((0, 0)),
            capture: OnceLock::new(),
            go: OnceLock::new(),
            spawn: OnceLock::new(),
            future: OnceLock::new(),
        }
    }

    /// The maps of the session.
    pub fn descriptors(&self) -> &Descriptors {
        &self.descriptors
    }

    /// A loaded program of a group that only some runs need.
    pub fn program(&self, name: &str) -> Option<&MultiProgram> {
        [&self.capture, &self.go, &self.spawn, &self.future]
            .into_iter()
            .find_map(|group| group.get()?.get(name))
    }

    /// Gives the kernel side the plans and async functions that it does not have yet.
    ///
    /// # Errors
    /// Where it has no room for one.
    pub fn add(&self, table: &ProbeTable) -> Result<()> {
        let mut installed = self
            .installed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let steps: Vec<Plan> = table
            .captures()
            .iter()
            .skip(installed.0)
            .map(|plan| plan.steps)
            .collect();
        self.insert("PLANS", installed.0, steps)?;
        installed.0 = table.captures().len();
        let futures: Vec<FutureSite> = table.futures().iter().skip(installed.1).copied().collect();
        self.insert("FUTURE_SITES", installed.1, futures)?;
        installed.1 = table.futures().len();
        self.set_spawning(table, false)?;
        self.count_inlined(table)
    }

    /// Tells the kernel side inside which probes' spans goroutines belong there; `only`: and no others.
    ///
    /// # Errors
    /// Where it has no room for one.
    pub fn set_spawning(&self, table: &ProbeTable, only: bool) -> Result<()> {
        let name = "SPAWNING_PROBES";
        let mut map: EbpfHashMap<MapData, u32, u32> = self.hash_map(name)?;
        for probe in table.spawning() {
            map.insert(probe, 1, 0).failed(|| no_room(name))?;
        }
        if only {
            let others: Vec<u32> = map
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
    fn count_inlined(&self, table: &ProbeTable) -> Result<()> {
        if table.counted().is_empty() {
            return Ok(());
        }
        let mut map = self.inlined_map()?;
        let failed = || no_room("INLINED");
        let zeros = || -> Result<PerCpuValues<u64>> {
            let processors = aya::util::nr_cpus()
                .map_err(|(what, _)| what)
                .failed(failed)?;
            PerCpuValues::try_from(vec![0; processors]).failed(failed)
        };
        for probe in table.counted() {
            // What was counted so far stays.
            if map.get(probe, 0).is_err() {
                map.insert(probe, zeros()?, 0).failed(failed)?;
            }
        }
        Ok(())
    }

    /// Calls that were counted where they were inlined, by probe; those of which there is no count are left out.
    ///
    /// # Errors
    /// Where the counts can't be read.
    pub fn inlined_calls(&self, probes: &BTreeSet<u32>) -> Result<Vec<(u32, u64)>> {
        if probes.is_empty() {
            return Ok(Vec::new());
        }
        let map = self.inlined_map()?;
        let count = |probe: &u32| {
            let values = map.get(probe, 0).ok()?;
            Some((*probe, values.iter().sum()))
        };
        Ok(probes.iter().filter_map(count).collect())
    }

    fn inlined_map(&self) -> Result<PerCpuHashMap<MapData, u32, u64>> {
        let name = "INLINED";
        let map = Map::PerCpuHashMap(self.map_data(name)?);
        map.try_into().failed(|| no_room(name))
    }

    fn map_data(&self, name: &str) -> Result<MapData> {
        let fd: OwnedFd = self
            .descriptors
            .get(name)
            .ok_or_else(|| Error::Failed(format!("the eBPF object has no map {name}")))?
            .try_clone()
            .failed(|| no_room(name))?;
        MapData::from_fd(fd).failed(|| no_room(name))
    }

    fn hash_map<V: aya::Pod>(&self, name: &str) -> Result<EbpfHashMap<MapData, u32, V>> {
        let map = Map::HashMap(self.map_data(name)?);
        map.try_into().failed(|| no_room(name))
    }

    /// Puts values into a map, at the indexes from `first` on.
    fn insert<V: aya::Pod>(&self, name: &str, first: usize, values: Vec<V>) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        let mut map = self.hash_map(name)?;
        for (place, value) in values.into_iter().enumerate() {
            map.insert((first + place) as u32, value, 0)
                .failed(|| no_room(name))?;
        }
        Ok(())
    }

    /// Loads the programs of a group for multi links, where they are not loaded yet.
    ///
    /// # Errors
    /// Where the kernel refuses one.
    pub fn load_multi(&self, group: Group) -> Result<()> {
        let place = match group {
            // What holds is no multi link.
            Group::Always | Group::Hold => return Ok(()),
            Group::Capture => &self.capture,
            Group::Go => &self.go,
            Group::Spawn => &self.spawn,
            Group::Future => &self.future,
        };
        if place.get().is_some() {
            return Ok(());
        }
        let wanted = |program: Program| program.group() == group;
        let loaded = multi::load_programs(OBJECT, &self.descriptors, wanted).map_err(|error| {
            Error::Missing(format!(
                "the kernel refused the agent's programs: {}; run `teracron-agent doctor`",
                chain(&error)
            ))
        })?;
        let _ = place.set(loaded);
        Ok(())
    }
}

fn no_room(map: &str) -> String {
    format!("the kernel has no room in the map {map}")
}

/// The groups of programs that sites need.
pub fn groups_of(sites: &[Site]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for site in sites {
        let group = site.program.group();
        if group != Group::Always && !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups
}
