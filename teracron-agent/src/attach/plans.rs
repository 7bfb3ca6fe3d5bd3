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
    probe::Program,
};

/// The plans that the kernel side has.
pub struct Plans {
    descriptors: Descriptors,
    /// Number of plans that it has.
    installed: Mutex<usize>,
    programs: OnceLock<HashMap<&'static str, MultiProgram>>,
}

impl Plans {
    /// None yet.
    pub fn new(descriptors: Descriptors) -> Self {
        Self {
            descriptors,
            installed: Mutex::new(0),
            programs: OnceLock::new(),
        }
    }

    /// The maps of the session.
    pub fn descriptors(&self) -> &Descriptors {
        &self.descriptors
    }

    /// A loaded program that captures.
    pub fn program(&self, name: &str) -> Option<&MultiProgram> {
        self.programs.get()?.get(name)
    }

    /// Gives the kernel side the plans that it does not have yet. Answers whether they are the first:
    /// then the programs have to be loaded.
    ///
    /// # Errors
    /// Where it has no room for one.
    pub fn add(&self, plans: &[CapturePlan]) -> Result<bool> {
        let mut installed = self
            .installed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(new) = plans.get(*installed..).filter(|new| !new.is_empty()) else {
            return Ok(false);
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
        let first = *installed == 0;
        *installed = plans.len();
        Ok(first)
    }

    /// Loads the programs for multi links.
    ///
    /// # Errors
    /// Where the kernel refuses one.
    pub fn load_multi(&self) -> Result<()> {
        if self.programs.get().is_some() {
            return Ok(());
        }
        let loaded = multi::load_programs(OBJECT, &self.descriptors, Program::captures).map_err(
            |error| {
                Error::Missing(format!(
                    "the kernel refused the programs that capture: {}; run `teracron-agent doctor`",
                    chain(&error)
                ))
            },
        )?;
        let _ = self.programs.set(loaded);
        Ok(())
    }
}
