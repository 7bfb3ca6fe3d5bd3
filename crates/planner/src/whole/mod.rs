//! The whole plan of a set of probes, in one visit: from what is asked for and what is known of the processes and
//! their files to everything that is attached.
//!
//! It needs open files and nothing else, so that it can be done by a process that may do nothing else: a [`Request`]
//! comes in, a [`Planned`] goes out, and both can be sent.

mod answer;
mod explain;
mod files;
mod request;
mod told;
mod wanted;

use std::collections::HashSet;

pub use crate::find::{NAMES_SHOWN, list};
pub use answer::{FileSites, Planned};
pub use request::{Files, ReachedProcess, Request};

use crate::{
    layout::LayoutPlan,
    moving::FileMoving,
    probe::{
        Constants, CountedCalls, Dangers, Debugs, GoFile, ModulePlan, Planner, ProbeTable, Reached,
        Sources, decide, find_go_runtime, find_unwinder_sites, go_error_texts, weak_proof,
    },
};
use files::Known;
use image::{
    FileKey, Image, copies_stacks,
    symbol::{Elves, Language},
};
use model::{error::Result, text::counted};
use sites::KernelRules;
use told::Told;

/// A plan that is being made.
struct Plans {
    request: Request,
    table: ProbeTable,
    elves: Elves,
    debugs: Debugs,
    known: Known,
    plans: Vec<ModulePlan>,
    /// Calls that are counted where functions were inlined.
    counted: Vec<(Image, CountedCalls)>,
    layouts: LayoutPlan,
    notes: Vec<String>,
    /// Lines of an explanation.
    explained: Vec<String>,
}

/// Plans a set of probes. `files` are those that the request's images mean.
///
/// # Errors
/// Where a function is not found, or can't be probed safely.
pub fn plan(mut request: Request, files: &Files) -> Result<Planned> {
    let known = Known::of(&request, files);
    let mut plans = Plans {
        table: std::mem::take(&mut request.table),
        request,
        elves: Elves::default(),
        debugs: Debugs::default(),
        known,
        plans: Vec::new(),
        counted: Vec::new(),
        layouts: LayoutPlan::default(),
        notes: Vec::new(),
        explained: Vec::new(),
    };
    let moving = plans.moving();
    let wanted = plans.resolve_all()?;
    plans.sites(wanted)?;
    let unwinders = plans.unwinders();
    plans.add_counted();
    Ok(Planned {
        table: plans.table,
        plans: plans
            .plans
            .iter()
            .map(|plan| FileSites::new(&plan.module, plan.sites.clone()))
            .collect(),
        unwinders,
        layouts: plans.layouts,
        executables: plans.known.executables(),
        moving,
        explained: plans.explained,
        notes: plans.notes,
        refused: plans.elves.take_notes(),
    })
}

impl Plans {
    /// What the files say of moving text, as far as it was not known.
    fn moving(&mut self) -> Vec<(FileKey, FileMoving)> {
        let mut found: Vec<(FileKey, FileMoving)> = Vec::new();
        let mut done: HashSet<FileKey> = self.request.moving.clone();
        for image in self.known.groups().iter().flatten() {
            if done.insert(image.key)
                && let Ok(elf) = self.elves.get(image)
            {
                found.push((image.key, FileMoving::of(image, elf)));
            }
        }
        found
    }

    /// Plans the sites of all functions.
    fn sites(&mut self, wanted: wanted::WantedFiles) -> Result<()> {
        let mut dangers = Dangers::default();
        let mut errno = false;
        let groups = self.known.groups().to_vec();
        for image in groups.iter().flatten() {
            if let Ok(elf) = self.elves.get(image) {
                errno |= self.layouts.add(image, elf);
            }
        }
        let sources = Sources { errno };
        let mut told = Told::default();
        let total: usize = wanted.iter().map(|(_, functions)| functions.len()).sum();
        for (module, functions) in wanted {
            let reached: Vec<Reached<'_>> = self
                .known
                .reached(&self.request)
                .filter(|reached| reached.images.iter().any(|image| image.key == module.key))
                .collect();
            let returns = decide(
                &module,
                &reached,
                !self.request.file_wide.contains(&module.key),
                self.request.kernel,
                &mut dangers,
                &mut self.elves,
            );
            let whole = reached
                .iter()
                .any(|reached| copies_stacks(reached.images.iter().copied()));
            let Ok(elf) = self.elves.get(&module) else {
                continue;
            };
            let plan = Planner {
                rules: KernelRules {
                    whole,
                    ..self.request.rules
                },
                mode: self.request.return_probe,
                allow_unsafe: self.request.allow_unsafe,
                table: &mut self.table,
                sources: &sources,
                debugs: &mut self.debugs,
            }
            .plan(&module, elf, functions, &returns, &mut told.refused);
            told.take(&plan);
            if self.request.explain {
                self.explained.extend(explain::lines(&plan));
            }
            if plan.sites.is_empty() {
                continue;
            }
            let mut constants = Constants::default();
            // What others call by a plain name is Rust all the same.
            if elf.has_rust() || plan.is_of(Language::Rust) {
                constants.add_rust(elf);
            }
            let is_go = elf.go.is_some();
            if is_go {
                if let Ok(debug) = self.debugs.get(&module, elf) {
                    constants.go_texts = go_error_texts(&module, elf, debug);
                }
                self.table.add_go_file(GoFile::new(&module, elf));
            }
            if !constants.is_empty() || is_go {
                self.layouts.add_constants(&module, elf, constants, is_go);
            }
            self.notes.extend(weak_proof(&module, elf));
            self.plans.push(plan);
        }
        let counted = &self.counted;
        told.forget_inlined(|name| {
            let mut counted = counted.iter();
            counted.any(|(_, counted)| counted.function == *name)
        });
        self.notes.extend(told.sentences(total)?);
        Ok(())
    }

    /// Sites in what unwinds, and in Go's runtime, of all files.
    fn unwinders(&mut self) -> Vec<FileSites> {
        let rules = self.request.rules;
        let mut seen: HashSet<FileKey> = HashSet::new();
        let mut found = Vec::new();
        for module in self.known.with_unwinders() {
            if !seen.insert(module.key) {
                continue;
            }
            let Ok(elf) = self.elves.get(module) else {
                continue;
            };
            let sites = find_unwinder_sites(module, elf, rules).or_else(|| {
                // The runtime of a program that is not probed is left alone.
                let mut plans = self.plans.iter();
                plans
                    .any(|plan| plan.module.key == module.key)
                    .then(|| find_go_runtime(module, elf, rules))
                    .flatten()
            });
            found.extend(sites.map(|found| FileSites::new(&found.module, found.sites)));
        }
        found
    }

    /// Adds the places at which inlined calls are counted to what is attached, and tells of them.
    fn add_counted(&mut self) {
        let mut told = Vec::new();
        for (module, calls) in &self.counted {
            let places = counted(calls.sites.len() as u64, "place");
            told.push(match calls.passed_over {
                0 => format!("{} ({places})", calls.function),
                more => format!(
                    "{} ({places}; {more} more can't be counted: no instruction there is passed once per call)",
                    calls.function
                ),
            });
            let mut plans = self.plans.iter_mut();
            match plans.find(|plan| plan.module.key == calls.key) {
                Some(plan) => {
                    plan.sites.extend(calls.sites.iter().copied());
                    plan.sites.sort_unstable();
                    // Two specifications may mean the same.
                    plan.sites.dedup();
                }
                None => self.plans.push(ModulePlan {
                    module: module.clone(),
                    sites: calls.sites.clone(),
                    functions: Vec::new(),
                }),
            }
        }
        if !told.is_empty() {
            self.notes.push(format!(
                "calls that the compiler inlined are counted, not traced: {}",
                list(&told)
            ));
        }
    }
}
