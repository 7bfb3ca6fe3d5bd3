//! What captures are made from: debug information of files, and where a process keeps `errno`.

use std::collections::HashMap;

use teracron_common::{FutureId, PlanId};

use super::{
    Wanted,
    certain::{self, Certain},
};
use crate::{
    capture::{self, Certainty, Problem, SitePlans, Subject},
    find::Function,
};
use image::{
    DebugFiles, DebugTrust, FileKey, Image,
    debug::{Base, DebugError, DebugInfo, FunctionInfo, Home},
    foreign::tell_reading,
    separate_debug_file,
    symbol::{Elf, Language, Origin},
};
use sites::{Code, ExitPlan, Prologue, SitePlan};

/// Plans that a function's sites name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// At its entry.
    pub entry: Option<PlanId>,
    /// Where it returns.
    pub exit: Option<PlanId>,
    /// It is a block of lines.
    pub block: bool,
    /// Index of the async function whose poll it is.
    pub future: Option<FutureId>,
    /// Go: offset of a goroutine's id in its `g`.
    pub goid: Option<u16>,
}

/// Debug information of files, opened once each.
#[derive(Default)]
pub struct Debugs(HashMap<(FileKey, DebugTrust), Result<Option<DebugInfo>, String>>);

impl Debugs {
    /// The debug information of a module, or why there is none.
    pub fn get(&mut self, module: &Image, elf: &Elf) -> Result<&DebugInfo, String> {
        tell_reading(module);
        let found = self
            .0
            .entry((module.key, module.debug.trust()))
            .or_insert_with(|| {
                let files = || Some(DebugFiles::of(module));
                let why = |error: DebugError| match error {
                    DebugError::Exceeded(_) => format!("{}: {error}", module.name()),
                    _ => error.to_string(),
                };
                // Symbols and debug information of a file are within one budget.
                let own =
                    DebugInfo::open_within(&module.file, files(), &elf.budget).map_err(why)?;
                if own.is_some() {
                    return Ok(own);
                }
                match separate_debug_file(module, elf) {
                    Some(file) => DebugInfo::open(&file, files()).map_err(why),
                    None => Ok(None),
                }
            });
        match found {
            Ok(Some(info)) => Ok(info),
            Ok(None) => Err(format!(
                "{} has no debug information; by position it works: NAME=arg1:i64, NAME=ret:i64",
                module.name()
            )),
            Err(reason) => Err(reason.clone()),
        }
    }
}

/// Whether a compiler may have dropped a function's result: all its callers may be known.
fn needs_proof(function: &Function) -> bool {
    let is_rust = function.language == Language::Rust && function.origin != Origin::Exported;
    function.language != Language::Go && (function.is_local || is_rust)
}

/// What the file proves of the results of functions, as far as they are asked for.
pub(super) fn results_of<'a>(
    wanted: impl Iterator<Item = &'a Wanted>,
    module: &Image,
    elf: &Elf,
    debugs: &mut Debugs,
) -> Certain {
    let mut registers = 0;
    let mut functions = Vec::new();
    for wanted in wanted.filter(|wanted| wanted.function.block.is_none()) {
        let function = &wanted.function;
        let is_asked = wanted.request.wants_result()
            || function.language == Language::Rust
                && debugs.get(module, elf).is_ok_and(|info| {
                    let found = info.function(function.address).ok().flatten();
                    found.is_some_and(|found| is_fallible(&found))
                });
        if is_asked && needs_proof(function) {
            registers |= capture::result_registers(&wanted.request, function.language);
            functions.push(function.address);
        }
    }
    Certain::of(module, elf, &functions, registers, &mut |address| {
        let info = debugs.get(module, elf).ok()?;
        Some(capture::returns(&info.function(address).ok()??))
    })
}

/// Whether a function stores all its parameters where its debug information says: it was not optimised.
fn stores_arguments(info: &FunctionInfo<'_>) -> bool {
    let mut any = false;
    let all = info.parameters.iter().all(|parameter| {
        match info.home(parameter, 0) {
            Ok(Home::Spilled(_) | Home::SpilledFrom(..) | Home::Behind(..)) => any = true,
            Ok(Home::Memory(address)) => return address.base == Base::Frame,
            _ => return false,
        }
        true
    });
    any && all
}

/// Whether a Rust function returns a `Result`, itself or when its future is ready.
fn is_fallible(info: &FunctionInfo<'_>) -> bool {
    info.result.is_some_and(|result| {
        let name = info.name_of(result);
        name.contains("Result<")
    })
}

/// What is known of the processes that a plan is for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources {
    /// Where `errno` lies is known of one of them, or will be.
    pub errno: bool,
}

/// A function whose sites are planned.
#[derive(Clone, Copy)]
pub(super) struct Sited<'a> {
    /// What is asked for.
    pub wanted: &'a Wanted,
    /// Its code.
    pub code: &'a Code,
    /// The plan.
    pub sites: &'a SitePlan,
}

impl Sources {
    /// Plans what is read of a function's calls.
    pub(super) fn plans(
        &self,
        Sited {
            wanted,
            code,
            sites,
        }: Sited<'_>,
        module: &Image,
        elf: &Elf,
        debugs: &mut Debugs,
        certain: &Certain,
    ) -> SitePlans {
        let mut plans = SitePlans::default();
        let language = wanted.function.language;
        // Errors of Rust are results.
        if wanted.request.is_empty() && !matches!(language, Language::Rust | Language::Go) {
            return plans;
        }
        let found = match debugs.get(module, elf) {
            Ok(info) => match info.function(wanted.function.address) {
                Ok(Some(function)) => Ok(function),
                Ok(None) => Err("the debug information does not know the function".to_owned()),
                Err(error @ DebugError::Exceeded(_)) => Err(format!("{}: {error}", module.name())),
                Err(error) => Err(error.to_string()),
            },
            Err(reason) => Err(reason),
        };
        let prologue = Prologue::of(code);
        // Without optimisation everything is passed, and stored at once.
        let is_optimised = !found.as_ref().is_ok_and(stores_arguments);
        let reads = (language != Language::Go
            && found.is_ok()
            && is_optimised
            && wanted.request.wants_arguments())
        .then(|| certain::reads(module, elf, code));
        let subject = Subject {
            reads: reads.as_ref(),
            language,
            info: found.as_ref().map_err(Clone::clone),
            prologue: &prologue,
            certainty: match needs_proof(&wanted.function) && is_optimised {
                true => certain.get(wanted.function.address),
                false => Certainty::Whole,
            },
            address: wanted.function.address,
            errno: self.errno,
            future: wanted.function.future.as_deref().map(|poll| poll.is_second),
        };
        plans.exit = capture::at_exit(&wanted.request, &subject, wanted.probe, &mut plans.problems);
        let jumps = sites.jumps_out();
        // A return probe sees every end.
        let jumps_away =
            matches!(sites.exit, ExitPlan::Sites(_)) && (jumps > 0 || sites.tail_calls);
        if wanted.request.wants_result() && plans.exit.is_some() && jumps_away {
            plans.problems.push(Problem {
                wanted: "ret".to_owned(),
                reason: "the function can end by a jump to another one, which makes the result; not where it ends so".to_owned(),
            });
        }
        let mut made_elsewhere = None;
        if let ExitPlan::Sites(exits) = &sites.exit
            && exits.len() == jumps
        {
            plans.exit = None;
            made_elsewhere =
                Some("it always ends by a jump to another function, which makes the result");
        }
        if let Some(condition) = &wanted.request.fails {
            let has_rule = plans
                .exit
                .as_ref()
                .is_some_and(|plan| plan.failure.is_some());
            // Where it ends so the rule is not asked, and a failure would look good.
            if jumps_away && made_elsewhere.is_none() {
                made_elsewhere =
                    Some("it can end by a jump to another function, which makes the result");
            }
            plans.without_rule = (!has_rule || jumps_away).then(|| {
                let rule = format!("fails {condition}");
                let problem = plans.problems.iter().find(|problem| problem.wanted == rule);
                problem.map_or_else(
                    || {
                        made_elsewhere
                            .unwrap_or("it returns nothing that could be read")
                            .to_owned()
                    },
                    |problem| problem.reason.clone(),
                )
            });
        }
        plans.entry = capture::at_entry(
            &wanted.request,
            &subject,
            sites.entry.address,
            // The kernel side keeps the place of a poll's result by itself, anew for each poll.
            subject.future.is_none() && plans.exit.as_ref().is_some_and(capture::reads_kept),
            wanted.probe,
            &mut plans.problems,
        );
        plans
    }
}
