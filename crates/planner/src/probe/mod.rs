//! Probes: resolved functions with their sites, ready to be attached.

mod blocks;
mod callers;
mod capturing;
mod certain;
mod constants;
mod danger;
mod facts;
mod futures;
mod go;
mod inlined;
mod missing;
mod plan;
mod policy;
mod program;
mod resolve;
mod site;
mod unwinder;

use std::{
    collections::{BTreeSet, HashSet},
    fs::File,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use teracron_common::{EnterCookie, ExitCookie, FutureId, FutureSite, PlanId, ProbeId};

use crate::{capture::CapturePlan, find::Function};
use image::{FileKey, Image, symbol::Place};
use model::ProbeName;
use sites::{ExitPlan, SitePlan};

pub(crate) use blocks::resolve as resolve_block;
pub use capturing::{Debugs, Reading, Sources};
pub use constants::Constants;
pub use danger::Dangers;
pub use facts::ProcessFacts;
pub use go::error_texts as go_error_texts;
pub(crate) use go::{GoFile, find as find_go_runtime};
pub(crate) use inlined::{CountedCalls, find as find_inlined};
pub(crate) use missing::not_found;
pub use missing::{inlined_everywhere, missing};
pub use plan::{MAX_COUNTED, Refused, Wanted, each as plan_each};
pub(crate) use plan::{ModulePlan, Planner, weak_proof};
pub use policy::{Reached, ReturnProbeMode, decide};
pub use program::Program;
pub(crate) use resolve::{Resolution, Resolved, no_file, resolve};
pub use site::{OnPlace, Site};
pub use unwinder::{UnwinderSites, find as find_unwinder_sites};

/// All probes of a run; records say the index.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProbeTable {
    names: Vec<ProbeName>,
    /// What is captured; records say the index.
    captures: Vec<CapturePlan>,
    /// Async functions; sites say the index.
    #[serde(with = "crate::contract::futures")]
    futures: Vec<FutureSite>,
    /// Probes of async functions whose futures are dropped where no site sees it, or without any code.
    undropped: HashSet<ProbeId>,
    /// Probes inside whose spans goroutines are started that belong there.
    spawning: BTreeSet<ProbeId>,
    /// Probes whose calls are counted where they were inlined.
    counted: BTreeSet<ProbeId>,
    /// Go programs, to name types.
    go_files: Vec<GoFile>,
    /// Functions that have a probe already: file, address.
    taken: std::collections::HashMap<(FileKey, u64), ProbeId>,
}

impl ProbeTable {
    /// The name behind an index.
    pub fn name(&self, probe: ProbeId) -> Option<&ProbeName> {
        self.names.get(probe.index())
    }

    /// Number of names.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// A table with these names, for benches.
    pub fn of_names(names: Vec<ProbeName>) -> Self {
        Self {
            names,
            ..Self::default()
        }
    }

    /// A table for a new set of probes: names keep their indexes, no function has a probe yet.
    pub fn next(&self) -> Self {
        Self {
            names: self.names.clone(),
            captures: self.captures.clone(),
            futures: self.futures.clone(),
            undropped: self.undropped.clone(),
            counted: self.counted.clone(),
            go_files: self.go_files.clone(),
            ..Self::default()
        }
    }

    /// The probes that functions have in this set.
    pub fn in_force(&self) -> HashSet<ProbeId> {
        self.taken.values().copied().collect()
    }

    /// Functions that have a probe.
    pub fn functions(&self) -> usize {
        self.taken.len()
    }

    /// Index of a name, made where it is new. The clones of a function share it.
    fn index(&mut self, workflow: &str, operation: &str) -> ProbeId {
        let found = self
            .names
            .iter()
            .rposition(|name| *name.workflow == *workflow && *name.operation == *operation);
        ProbeId::from_index(found.unwrap_or_else(|| {
            self.names.push(ProbeName {
                workflow: workflow.into(),
                operation: operation.into(),
            });
            self.names.len() - 1
        }))
    }

    /// Takes a function for a workflow; `None` where it is taken already.
    pub fn take(&mut self, module: &Image, workflow: &str, function: &Function) -> Option<ProbeId> {
        let place = (module.key, function.place());
        if self.taken.contains_key(&place) {
            return None;
        }
        let index = self.index(workflow, &function.plain);
        self.taken.insert(place, index);
        Some(index)
    }

    /// Notes a capture plan; answers its index.
    pub(crate) fn add_capture(&mut self, plan: CapturePlan) -> PlanId {
        self.captures.push(plan);
        PlanId::from_index(self.captures.len() - 1)
    }

    /// All capture plans of the run, by index.
    pub fn captures(&self) -> &[CapturePlan] {
        &self.captures
    }

    /// Notes an async function; answers its index.
    pub(crate) fn add_future(&mut self, site: FutureSite) -> FutureId {
        self.futures.push(site);
        FutureId::from_index(self.futures.len() - 1)
    }

    /// Notes that no site sees a probe's futures being dropped.
    pub(crate) fn add_undropped(&mut self, probe: ProbeId) {
        self.undropped.insert(probe);
    }

    /// Whether a probe's futures may be gone without a site having seen it.
    pub fn is_undropped(&self, probe: ProbeId) -> bool {
        self.undropped.contains(&probe)
    }

    /// All async functions of the run, by index.
    pub fn futures(&self) -> &[FutureSite] {
        &self.futures
    }

    /// Notes that goroutines which are started inside a probe's spans belong there.
    pub(crate) fn add_spawning(&mut self, probe: ProbeId) {
        self.spawning.insert(probe);
    }

    /// Probes inside whose spans goroutines are started that belong there.
    pub fn spawning(&self) -> &BTreeSet<ProbeId> {
        &self.spawning
    }

    /// Notes that a function's calls are counted where it was inlined; answers the index of its name.
    pub fn count_inlined(&mut self, workflow: &str, operation: &str) -> ProbeId {
        let index = self.index(workflow, operation);
        self.counted.insert(index);
        index
    }

    /// Probes whose calls are counted where they were inlined.
    pub fn counted(&self) -> &BTreeSet<ProbeId> {
        &self.counted
    }

    /// Notes a Go program.
    pub(crate) fn add_go_file(&mut self, file: GoFile) {
        self.go_files.push(file);
    }

    /// Gives the Go programs their files, where the table comes from elsewhere; what has none is forgotten.
    pub fn open_go_files(&mut self, file_of: impl Fn(FileKey) -> Option<Arc<File>>) {
        self.go_files.retain_mut(|file| file.open(&file_of));
    }

    /// The name of a Go type at an address of a process that has files with types loaded there.
    pub fn go_type_name(&self, loaded: &[(FileKey, u64)], address: u64) -> Option<String> {
        self.go_files
            .iter()
            .find_map(|file| file.type_name(loaded, address))
    }

    /// Whether a function has a probe.
    pub fn is_taken(&self, key: FileKey, address: u64) -> bool {
        self.taken.contains_key(&(key, address))
    }

    /// Gives a function free again that turned out not to be probeable.
    pub fn release(&mut self, key: FileKey, address: u64) {
        self.taken.remove(&(key, address));
    }
}

/// The sites of a planned function; `reading` names the plans of what is captured.
fn sites_of(
    plan: &SitePlan,
    probe: ProbeId,
    reading: Reading,
    is_part: bool,
    place_of: impl Fn(u64) -> Option<Place>,
) -> Option<Vec<Site>> {
    let is_go = reading.goid.is_some();
    // The site of an async function names that, which names the rest.
    let named = match reading.future {
        Some(future) => future.at_site(),
        None => probe.at_site(),
    };
    let program =
        |[of_spans, capturing, of_go, of_futures]: [Program; 4], plan: Option<PlanId>| match (
            reading.future,
            is_go,
            plan,
        ) {
            (Some(_), ..) => of_futures,
            (None, true, _) => of_go,
            (None, false, Some(_)) => capturing,
            (None, false, None) => of_spans,
        };
    let enter = EnterCookie {
        id: reading.entry.map_or(named, PlanId::at_site),
        base: plan.entry.base,
        block: reading.block,
        cfa_offset: plan.entry.cfa_offset,
        part: is_part,
        tail_calls: plan.tail_calls,
        generation: 0,
        reads: is_go && reading.entry.is_some(),
        goid: reading.goid.map_or(0, |offset| (offset / 8) as u8),
    };
    let entry = place_of(plan.entry.address)?;
    let mut sites = vec![Site::new(
        program(
            [
                Program::SpanEnter,
                Program::CaptureEnter,
                Program::GoEnter,
                Program::FutureEnter,
            ],
            reading.entry,
        ),
        entry,
        enter.pack(),
    )];
    match &plan.exit {
        ExitPlan::ReturnProbe => {
            let program = match reading.exit {
                Some(_) => Program::CaptureReturn,
                None => Program::SpanReturn,
            };
            let cookie = ExitCookie {
                id: reading.exit.map_or(named, PlanId::at_site),
                base: teracron_common::CfaBase::StackPointer,
                cfa_offset: 0,
                condition: None,
                reads: false,
            };
            sites.push(Site::new(program, entry, cookie.pack()));
        }
        ExitPlan::Sites(exits) => {
            for exit in exits {
                let plan = reading.exit.filter(|_| exit.returns);
                let program = program(
                    [
                        Program::SpanExit,
                        Program::CaptureExit,
                        Program::GoExit,
                        Program::FutureExit,
                    ],
                    plan,
                );
                let cookie = ExitCookie {
                    id: plan.map_or(named, PlanId::at_site),
                    base: exit.base,
                    cfa_offset: exit.cfa_offset,
                    condition: exit.condition,
                    reads: is_go && plan.is_some(),
                };
                sites.push(Site::new(program, place_of(exit.address)?, cookie.pack()));
            }
        }
    }
    Some(sites)
}

/// What the kernel side is told of an async function; its plans move there from `reading`.
fn future_site(future: &sites::Poll, probe: ProbeId, reading: &mut Reading) -> FutureSite {
    FutureSite {
        probe,
        state_offset: future.state_offset,
        is_second: future.is_second.into(),
        entry_plan: PlanId::or_none(reading.entry.take()),
        exit_plan: PlanId::or_none(reading.exit.take()),
    }
}
