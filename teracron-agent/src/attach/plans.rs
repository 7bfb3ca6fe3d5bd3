//! Capture plans in the kernel, and the programs that run them: loaded with the first plan, from
//! whatever thread attaches probes.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    sync::{Mutex, OnceLock, PoisonError},
};

use aya::maps::{HashMap as EbpfHashMap, Map, MapData};
use teracron_common::{FutureSite, Plan};

use super::{
    multi::{self, Descriptors, MultiProgram},
    session::{OBJECT, chain},
};
use crate::{
    error::{Context as _, Error, Result},
    probe::{Group, ProbeTable, Program, Site},
};

/// The plans that the kernel side has.
pub struct Plans {
    descriptors: Descriptors,
    /// Number of plans and of async functions that it has.
    installed: Mutex<(usize, usize)>,
    /// Programs of groups that only some runs need.
    capture: OnceLock<HashMap<&'static str, MultiProgram>>,
    go: OnceLock<HashMap<&'static str, MultiProgram>>,
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
            future: OnceLock::new(),
        }
    }

    /// The maps of the session.
    pub fn descriptors(&self) -> &Descriptors {
        &self.descriptors
    }

    /// A loaded program of a group that only some runs need.
    pub fn program(&self, name: &str) -> Option<&MultiProgram> {
        [&self.capture, &self.go, &self.future]
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
        Ok(())
    }

    /// Puts values into a map, at the indexes from `first` on.
    fn insert<V: aya::Pod>(&self, name: &str, first: usize, values: Vec<V>) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        let failed = || format!("the kernel has no room in the map {name}");
        let fd: OwnedFd = self
            .descriptors
            .get(name)
            .ok_or_else(|| Error::Failed(format!("the eBPF object has no map {name}")))?
            .try_clone()
            .failed(failed)?;
        let map = Map::HashMap(MapData::from_fd(fd).failed(failed)?);
        let mut map: EbpfHashMap<MapData, u32, V> = map.try_into().failed(failed)?;
        for (place, value) in values.into_iter().enumerate() {
            map.insert((first + place) as u32, value, 0)
                .failed(failed)?;
        }
        Ok(())
    }

    /// Loads the programs of a group for multi links, where they are not loaded yet.
    ///
    /// # Errors
    /// Where the kernel refuses one.
    pub fn load_multi(&self, group: Group) -> Result<()> {
        let place = match group {
            Group::Always => return Ok(()),
            Group::Capture => &self.capture,
            Group::Go => &self.go,
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
