//! Capture plans in the kernel, and the programs that run them: loaded with the first plan, from
//! whatever thread attaches probes.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    sync::{Mutex, OnceLock, PoisonError},
};

use aya::maps::{HashMap as EbpfHashMap, Map, MapData};
use teracron_common::Plan;

use super::{
    multi::{self, Descriptors, MultiProgram},
    session::{OBJECT, chain},
};
use crate::{
    capture::CapturePlan,
    error::{Context as _, Error, Result},
    probe::{Group, Program, Site},
};

/// The plans that the kernel side has.
pub struct Plans {
    descriptors: Descriptors,
    /// Number of plans that it has.
    installed: Mutex<usize>,
    /// Programs of groups that only some runs need.
    capture: OnceLock<HashMap<&'static str, MultiProgram>>,
    go: OnceLock<HashMap<&'static str, MultiProgram>>,
}

impl Plans {
    /// None yet.
    pub fn new(descriptors: Descriptors) -> Self {
        Self {
            descriptors,
            installed: Mutex::new(0),
            capture: OnceLock::new(),
            go: OnceLock::new(),
        }
    }

    /// The maps of the session.
    pub fn descriptors(&self) -> &Descriptors {
        &self.descriptors
    }

    /// A loaded program of a group that only some runs need.
    pub fn program(&self, name: &str) -> Option<&MultiProgram> {
        [&self.capture, &self.go]
            .into_iter()
            .find_map(|group| group.get()?.get(name))
    }

    /// Gives the kernel side the plans that it does not have yet.
    ///
    /// # Errors
    /// Where it has no room for one.
    pub fn add(&self, plans: &[CapturePlan]) -> Result<()> {
        let mut installed = self
            .installed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(new) = plans.get(*installed..).filter(|new| !new.is_empty()) else {
            return Ok(());
        };
        let failed = || "the kernel has no room for a capture plan".to_owned();
        let fd: OwnedFd = self
            .descriptors
            .get("PLANS")
            .ok_or_else(|| Error::Failed("the eBPF object has no map PLANS".to_owned()))?
            .try_clone()
            .failed(failed)?;
        let map = Map::HashMap(MapData::from_fd(fd).failed(failed)?);
        let mut map: EbpfHashMap<MapData, u32, Plan> = map.try_into().failed(failed)?;
        for (place, plan) in new.iter().enumerate() {
            map.insert((*installed + place) as u32, plan.steps, 0)
                .failed(failed)?;
        }
        *installed = plans.len();
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
