//! What of ours lies where: the sites of each probed file, and where the traced processes have their files.
//!
//! Kept from planning on, because a process that has died can't be asked any more.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use teracron_common::{EnterCookie, ProbeId};

use super::Prepared;
use image::{FileKey, Image};
use planner::probe::Site;
use tracer::{
    kernel::KernelProgram,
    process::{Module, Process},
};

/// Processes whose mappings are read again at a time.
const READ_AT_A_TIME: usize = 20;

/// A breakpoint in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PlacedSite {
    /// Offset in the file.
    pub offset: u64,
    /// Index of the probe, where calls of it begin here.
    pub probe: Option<ProbeId>,
    /// It changes return addresses.
    pub on_return: bool,
}

/// A file with breakpoints.
#[derive(Clone, Debug)]
pub(super) struct PlacedFile {
    /// The file.
    pub image: Image,
    /// Functions that were asked for are probed here; else it is only watched for how calls end.
    pub traced: bool,
    /// In order of their offsets.
    pub sites: Vec<PlacedSite>,
}

impl PlacedFile {
    /// The probe whose calls begin at, or nearest before, an offset.
    pub(super) fn probe_before(&self, offset: u64) -> Option<ProbeId> {
        let end = self.sites.partition_point(|site| site.offset <= offset);
        let before = self.sites.get(..end).unwrap_or_default();
        before.iter().rev().find_map(|site| site.probe)
    }
}

/// Code of a file in a process's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    /// First address.
    pub start: u64,
    /// Address behind the last.
    pub end: u64,
    /// Offset of the first in the file.
    pub offset: u64,
    /// The file.
    pub file: FileKey,
    /// Last part of its path, not escaped.
    pub name: Arc<str>,
}

impl Mapping {
    /// Offset in the file of what lies at an address.
    pub(super) fn offset_of(&self, address: u64) -> Option<u64> {
        if address >= self.end {
            return None;
        }
        self.offset.checked_add(address.checked_sub(self.start)?)
    }

    /// Where a byte of the file lies.
    pub(super) fn address_of(&self, offset: u64) -> Option<u64> {
        let address = self.start.checked_add(offset.checked_sub(self.offset)?)?;
        (address < self.end).then_some(address)
    }
}

/// What is known of files and processes.
#[derive(Default)]
pub(super) struct Placed {
    /// Files with breakpoints.
    pub files: HashMap<FileKey, PlacedFile>,
    processes: HashMap<u32, Arc<[Mapping]>>,
    /// Processes whose mappings have changed since they were read.
    stale: HashSet<u32>,
}

impl Placed {
    /// Files in which functions are probed that were asked for.
    pub(super) fn traced_files(&self) -> Vec<FileKey> {
        let traced = self.files.iter().filter(|(_, file)| file.traced);
        traced.map(|(key, _)| *key).collect()
    }

    /// Takes what a set of probes is planned to be, in place of what was.
    pub(super) fn plan(&mut self, prepared: &Prepared, left_out: &HashSet<FileKey>) {
        self.files.clear();
        for it in &prepared.attachments {
            self.add(&it.module, &it.sites, it.of_set);
        }
        for file in self.files.values_mut() {
            file.sites.sort_unstable();
        }
        self.files.retain(|key, _| !left_out.contains(key));
        for target in &prepared.targets {
            self.keep(target.process.pid, &target.modules);
        }
    }

    /// No function is traced any more.
    pub(super) fn untraced(&mut self) {
        self.files.retain(|_, file| !file.traced);
    }

    fn add(&mut self, image: &Image, sites: &[Site], traced: bool) {
        let file = self.files.entry(image.key).or_insert_with(|| PlacedFile {
            image: image.clone(),
            traced,
            sites: Vec::new(),
        });
        file.sites.extend(sites.iter().map(|site| {
            let program = KernelProgram::of(site.program);
            PlacedSite {
                offset: site.offset,
                probe: program
                    .is_entry()
                    .then(|| EnterCookie::unpack(site.cookie).id.probe()),
                on_return: program.is_return_probe(),
            }
        }));
    }

    fn keep(&mut self, pid: u32, modules: &[Module]) {
        let mappings = modules.iter().flat_map(|module| {
            let name: Arc<str> = module.name().into();
            module
                .mappings
                .iter()
                .map(move |(start, end, offset)| Mapping {
                    start: *start,
                    end: *end,
                    offset: *offset,
                    file: module.key,
                    name: name.clone(),
                })
        });
        self.stale.remove(&pid);
        self.processes.insert(pid, mappings.collect());
    }

    /// A child has what its parent has.
    pub(super) fn forked(&mut self, parent: u32, child: u32) {
        match self.processes.get(&parent) {
            Some(mappings) if !self.stale.contains(&parent) => {
                let mappings = mappings.clone();
                self.processes.insert(child, mappings);
            }
            _ => self.changed(child),
        }
    }

    /// A process has mapped something else.
    pub(super) fn changed(&mut self, pid: u32) {
        self.stale.insert(pid);
    }

    /// A process has become another program.
    pub(super) fn executed(&mut self, pid: u32) {
        self.processes.remove(&pid);
        self.changed(pid);
    }

    /// A process is no more.
    pub(super) fn ended(&mut self, pid: u32) {
        self.processes.remove(&pid);
        self.stale.remove(&pid);
    }

    /// What a process has mapped, as far as it is known.
    pub(super) fn mappings(&self, pid: u32) -> Arc<[Mapping]> {
        self.processes.get(&pid).cloned().unwrap_or_default()
    }

    /// Reads the mappings of some processes that have changed, as long as they live.
    pub(super) fn refresh(&mut self) {
        let pids: Vec<u32> = self.stale.iter().copied().take(READ_AT_A_TIME).collect();
        for pid in pids {
            self.refresh_one(pid);
        }
    }

    /// Reads a process's mappings where they have changed; what is not there any more stays as it was known.
    pub(super) fn refresh_one(&mut self, pid: u32) {
        if !self.stale.remove(&pid) {
            return;
        }
        let modules = Process::find(pid).and_then(|process| process.modules());
        if let Ok(modules) = modules
            && !modules.is_empty()
        {
            self.keep(pid, &modules);
        }
    }

    /// Whether one of these processes has a file mapped.
    pub(super) fn is_mapped(&self, file: FileKey, mut pids: impl Iterator<Item = u32>) -> bool {
        pids.any(|pid| {
            let mappings = self.processes.get(&pid);
            mappings.is_none_or(|mappings| mappings.iter().any(|mapping| mapping.file == file))
        })
    }
}
