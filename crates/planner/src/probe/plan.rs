//! Sites for a module's functions, together: a jump from one probed function to another needs no
//! exit site, so whether a function is probed matters to the others.

use std::{collections::HashSet, sync::Arc};

use teracron_common::ProbeId;

use super::{
    ProbeTable, Program, Site,
    callers::own_return,
    capturing::{self, Debugs, Reading, Sited, Sources},
    certain::Certain,
    future_site, futures, go,
    inlined::InlinedCounts,
    policy::{self, ReturnProbeMode},
    sites_of,
};
use crate::{
    capture::{Request, SitePlans},
    find::Function,
    probe_spec::{GoSpawn, ProbeOptions},
};
use image::{
    Image,
    symbol::{Elf, Language, Proven, Starts},
};
use sites::{Context, ExitPlan, Flow, KernelRules, ReturnProbe, SitePlan};

/// A function that can't be probed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its plain name.
    pub function: String,
    /// The reason.
    pub reason: String,
    /// It was refused because the user asked for something unsafe.
    pub unsafe_request: bool,
}

/// A function that is to be probed.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Index of the probe.
    pub probe: ProbeId,
    /// The function.
    pub function: Function,
    /// What is read of its calls.
    pub request: Arc<Request>,
    /// What else the probe does.
    pub options: ProbeOptions,
}

/// What is to be attached in one file.
#[derive(Debug)]
pub(crate) struct ModulePlan {
    /// The file.
    pub module: Image,
    /// All sites, in the order of attachment.
    pub sites: Vec<Site>,
    /// The functions with their plans.
    pub functions: Vec<(Function, SitePlan, SitePlans)>,
}

impl ModulePlan {
    /// Whether one of its functions is in this language.
    pub(crate) fn is_of(&self, language: Language) -> bool {
        let mut functions = self.functions.iter();
        functions.any(|(function, ..)| function.language == language)
    }
}

/// Plans sites.
pub(crate) struct Planner<'a> {
    /// What the kernel emulates.
    pub rules: KernelRules,
    /// What the user wants.
    pub mode: ReturnProbeMode,
    /// `--allow-unsafe-return-probes`.
    pub allow_unsafe: bool,
    /// Names of probes.
    pub table: &'a mut ProbeTable,
    /// What captures are made from.
    pub sources: &'a Sources,
    /// Debug information of files.
    pub debugs: &'a mut Debugs,
}

/// Rounds after which a set of functions that depend on each other must be settled.
const MAX_ROUNDS: usize = 8;

/// Functions of which is counted where they were inlined: it takes the debug information.
pub const MAX_COUNTED: usize = 50;

/// A function whose code was understood.
struct Candidate {
    wanted: Wanted,
    code: Proven,
    sites: Option<SitePlan>,
}

impl Planner<'_> {
    /// Plans the given functions of a module.
    pub(crate) fn plan(
        &mut self,
        module: &Image,
        elf: &Elf,
        functions: Vec<Wanted>,
        returns: &Result<(), String>,
        refused: &mut Vec<Refused>,
    ) -> ModulePlan {
        let mut addresses: HashSet<u64> = functions
            .iter()
            .filter(|wanted| wanted.function.block.is_none())
            .map(|wanted| wanted.function.address)
            .collect();
        let starts = Starts::of(elf, &module.file);
        let mut candidates: Vec<Candidate> = Vec::new();
        for wanted in functions {
            match decode(&starts, &wanted.function) {
                Ok(code) => candidates.push(Candidate {
                    wanted,
                    code,
                    sites: None,
                }),
                Err(reason) => {
                    if wanted.function.block.is_none() {
                        addresses.remove(&wanted.function.address);
                    }
                    self.table.release(module.key, wanted.function.place());
                    refused.push(Refused {
                        function: wanted.function.plain,
                        reason,
                        unsafe_request: false,
                    });
                }
            }
        }
        let asked = candidates.iter().map(|candidate| &candidate.wanted);
        let certain = capturing::results_of(asked, module, elf, self.debugs);
        // A refused function changes what the others may assume, so all are planned again.
        for _ in 0..MAX_ROUNDS {
            let mut dropped = Vec::new();
            for (place, candidate) in candidates.iter_mut().enumerate() {
                let planned = self
                    .sites(module, elf, candidate, &addresses, returns)
                    .and_then(|sites| {
                        self.with_rule(module, elf, candidate, &sites, &certain)?;
                        Ok(sites)
                    });
                match planned {
                    Ok(sites) => candidate.sites = Some(sites),
                    Err((reason, unsafe_request)) => dropped.push((place, reason, unsafe_request)),
                }
            }
            if dropped.is_empty() {
                break;
            }
            for (place, reason, unsafe_request) in dropped.into_iter().rev() {
                let function = candidates.remove(place).wanted.function;
                if function.block.is_none() {
                    addresses.remove(&function.address);
                }
                self.table.release(module.key, function.place());
                refused.push(Refused {
                    function: function.plain,
                    reason,
                    unsafe_request,
                });
            }
        }
        self.finish(module, &starts, candidates, &certain)
    }

    /// Plans the sites of one function; else the reason, and whether the user asked for it.
    fn sites(
        &self,
        module: &Image,
        elf: &Elf,
        candidate: &Candidate,
        addresses: &HashSet<u64>,
        returns: &Result<(), String>,
    ) -> Result<SitePlan, (String, bool)> {
        let Wanted {
            function, request, ..
        } = &candidate.wanted;
        if let Some(block) = &function.block {
            if self.rules.whole {
                let reason = "the process copies its stacks (greenlets), where runs of a block can't be told apart";
                return Err((reason.to_owned(), false));
            }
            let read = |address: u64, len: usize| elf.bytes(&module.file, address, len);
            return Flow::analyse(&candidate.code, &read)
                .and_then(|flow| sites::plan_block(&candidate.code, &flow, block, self.rules))
                .map_err(|refusal| refusal.to_string())
                .and_then(|sites| proven(sites, &candidate.code, elf, module))
                .map_err(|reason| (reason, false));
        }
        let return_probe = policy::for_function(
            self.mode,
            self.allow_unsafe,
            function.language,
            returns,
            || own_return(module, elf, &candidate.code),
        )
        .map_err(|reason| {
            (
                format!(
                    "a return probe could kill the target: {reason}; --return-probe ret is safe"
                ),
                true,
            )
        })?;
        // A poll is over where its state says so: that is looked at on the way out.
        let return_probe = match &function.future {
            Some(_) => ReturnProbe::Never,
            None => return_probe,
        };
        let mut context = Context {
            rules: self.rules,
            read_data: &|address, len| elf.bytes(&module.file, address, len),
            is_probed: &|address| addresses.contains(&address),
            return_probe,
            go: function.language == Language::Go,
            results: crate::capture::result_registers(request, function.language),
        };
        let refusal = |refusal: sites::Refusal| (refusal.to_string(), false);
        let mut sites = sites::plan(&candidate.code, &context).map_err(refusal)?;
        // A jump to another function ends this one, but its result is made there.
        if request.wants_result() && sites.jumps_out() > 0 && return_probe != ReturnProbe::Never {
            context.return_probe = ReturnProbe::Always;
            sites = sites::plan(&candidate.code, &context).map_err(refusal)?;
        }
        proven(sites, &candidate.code, elf, module).map_err(|reason| (reason, false))
    }

    /// Refuses a function whose failure rule can't be evaluated: each of its calls would be told as succeeded. Else, as
    /// [`sites`](Self::sites).
    fn with_rule(
        &mut self,
        module: &Image,
        elf: &Elf,
        candidate: &Candidate,
        sites: &SitePlan,
        certain: &Certain,
    ) -> Result<(), (String, bool)> {
        let Candidate { wanted, code, .. } = candidate;
        if wanted.request.fails.is_none() || wanted.function.block.is_some() {
            return Ok(());
        }
        let sited = Sited {
            wanted,
            code,
            sites,
        };
        let plans = self.sources.plans(sited, module, elf, self.debugs, certain);
        match plans.without_rule {
            None => Ok(()),
            Some(reason) => Err((
                format!(
                    "which of its calls fail can't be told, all would look good: {reason}; without `fails` it is traced"
                ),
                false,
            )),
        }
    }

    /// Adds what is captured.
    fn finish(
        &mut self,
        module: &Image,
        starts: &Starts<'_>,
        candidates: Vec<Candidate>,
        certain: &Certain,
    ) -> ModulePlan {
        let elf = starts.elf();
        let mut plan = ModulePlan {
            module: module.clone(),
            sites: Vec::new(),
            functions: Vec::new(),
        };
        let functions: Vec<&Function> = candidates
            .iter()
            .map(|candidate| &candidate.wanted.function)
            .filter(|function| function.block.is_none())
            .collect();
        // Of many functions, or of none, no debug information is opened.
        let inlined = (1..=MAX_COUNTED)
            .contains(&functions.len())
            .then(|| self.debugs.get(module, elf).ok())
            .flatten()
            .map(|debug| InlinedCounts::of(&functions, debug))
            .unwrap_or_default();
        let wants_goroutines = |wanted: &Wanted| wanted.options.go_spawn == GoSpawn::Child;
        let spawn_sites = candidates
            .iter()
            .any(|candidate| wants_goroutines(&candidate.wanted))
            .then(|| go::spawn_sites(starts, self.rules))
            .flatten()
            .unwrap_or_default();
        for Candidate {
            wanted,
            code,
            sites,
        } in candidates
        {
            let Some(sites) = sites else {
                continue;
            };
            let mut captures = if wanted.function.block.is_some() {
                SitePlans::default()
            } else {
                let sited = Sited {
                    wanted: &wanted,
                    code: &code,
                    sites: &sites,
                };
                self.sources.plans(sited, module, elf, self.debugs, certain)
            };
            if wanted.function.block.is_none() {
                captures.inlined = inlined.places(&wanted.function);
            }
            if !spawn_sites.is_empty() && wants_goroutines(&wanted) {
                self.table.add_spawning(wanted.probe);
            }
            let goid = (wanted.function.language == Language::Go)
                .then(|| Some(elf.go.as_ref()?.layout().ok()?.goid))
                .flatten();
            let mut reading = Reading {
                goid,
                future: None,
                block: wanted.function.block.is_some(),
                entry: captures
                    .entry
                    .as_ref()
                    .map(|plan| self.table.add_capture(plan.clone())),
                exit: captures
                    .exit
                    .as_ref()
                    .map(|plan| self.table.add_capture(plan.clone())),
            };
            if let Some(future) = &wanted.function.future {
                let site = future_site(future, wanted.probe, &mut reading);
                reading.future = Some(self.table.add_future(site));
                let drops = futures::drops(&wanted.function, wanted.probe, starts, self.rules);
                if drops.is_empty() {
                    self.table.add_undropped(wanted.probe);
                }
                plan.sites.extend(drops);
            }
            let reads_arguments = wanted.function.future.is_some() && captures.entry.is_some();
            let places = sites_of(
                &sites,
                wanted.probe,
                reading,
                wanted.function.is_part,
                |address| code.place(address, &|at, len| elf.bytes(&module.file, at, len)),
            );
            for site in places.into_iter().flatten() {
                if reads_arguments && site.program == Program::FutureEnter {
                    plan.sites.push(site.with(Program::FutureCapture));
                }
                plan.sites.push(site);
            }
            plan.functions.push((wanted.function, sites, captures));
        }
        plan.sites.extend(spawn_sites);
        plan.sites.sort_unstable();
        plan.sites.dedup();
        plan
    }
}

/// What to tell of a file in which only its own symbols say where functions begin; `None` where its unwind table does.
pub(crate) fn weak_proof(module: &Image, elf: &Elf) -> Option<String> {
    // Go's functions are never in it.
    (elf.go.is_none() && !Starts::of(elf, &module.file).has_unwind_table()).then(|| {
        format!(
            "{} has no unwind table (.eh_frame): its own symbols alone say where its functions begin",
            model::text::shown(module.name())
        )
    })
}

/// Plans functions one by one, for a list: by place, the plan or the reason against it.
pub fn each(
    rules: KernelRules,
    module: &Image,
    elf: &Elf,
    functions: &[Function],
    returns: &Result<(), String>,
) -> Vec<Result<SitePlan, String>> {
    let starts = Starts::of(elf, &module.file);
    functions
        .iter()
        .map(|function| {
            let code = decode(&starts, function)?;
            let return_probe = policy::for_function(
                ReturnProbeMode::Auto,
                false,
                function.language,
                returns,
                || own_return(module, elf, &code),
            )?;
            let context = Context {
                rules,
                read_data: &|address, len| elf.bytes(&module.file, address, len),
                is_probed: &|_| false,
                return_probe,
                go: function.language == Language::Go,
                results: crate::capture::result_registers(&Request::default(), function.language),
            };
            sites::plan(&code, &context).map_err(|refusal| refusal.to_string())
        })
        .collect()
}

/// The plan, where each of its sites is proven to be an instruction.
fn proven(sites: SitePlan, code: &Proven, elf: &Elf, module: &Image) -> Result<SitePlan, String> {
    let exits = match &sites.exit {
        ExitPlan::ReturnProbe => &[],
        ExitPlan::Sites(exits) => exits.as_slice(),
    };
    let exits = exits.iter().map(|exit| exit.address);
    for address in exits.chain([sites.entry.address]) {
        code.place(address, &|at, len| elf.bytes(&module.file, at, len))
            .ok_or_else(|| {
                format!("no way through its code is known to pass {address:#x}, which may be data")
            })?;
    }
    Ok(sites)
}

/// The function's instructions, or why it can't be probed.
pub(super) fn decode(starts: &Starts<'_>, function: &Function) -> Result<Proven, String> {
    if function.is_indirect {
        return Err("it chooses one of several functions when the program starts (ifunc); probe the one it chose".to_owned());
    }
    if function.is_coroutine {
        return Err("it is a C++ coroutine, whose calls can't be followed from one suspension to the next; probe what it calls".to_owned());
    }
    if function.only_makes_future {
        return Err("it is an async function, whose polls the compiler put into what awaits it; what is called only makes the future".to_owned());
    }
    if function.language == Language::Go {
        starts
            .elf()
            .go
            .as_ref()
            .map_or(Ok(()), |go| go.layout().map(|_| ()))?;
    }
    function
        .code(starts)
        .map_err(|unconfirmed| unconfirmed.to_string())
}
