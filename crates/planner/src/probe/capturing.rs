//! What captures are made from: debug information of files, and where a process keeps `errno`.

use std::collections::HashMap;

use teracron_common::{FutureId, PlanId};

use super::Wanted;
use crate::capture::{self, Problem, SitePlans, Subject};
use image::{
    DebugFiles, DebugTrust, FileKey, Image,
    debug::{DebugError, DebugInfo},
    foreign::tell_reading,
    separate_debug_file,
    symbol::{Elf, Language},
};
use sites::{Code, ExitPlan, Flow, Prologue, SitePlan};

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
                "{} has no debug information; by position it works: NAME=arg1:i64",
                module.name()
            )),
            Err(reason) => Err(reason.clone()),
        }
    }
}

/// What is known of the processes that a plan is for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources {
    /// Where `errno` lies is known of one of them, or will be.
    pub errno: bool,
}

impl Sources {
    /// Plans what is read of a function's calls.
    pub fn plans(
        &self,
        wanted: &Wanted,
        code: &Code,
        sites: &SitePlan,
        module: &Image,
        elf: &Elf,
        debugs: &mut Debugs,
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
        let asked = capture::result_registers(&wanted.request, language);
        let needs_proof = wanted.function.is_local || language == Language::Rust;
        let results = (needs_proof && asked != 0).then(|| {
            Flow::analyse(code, &|address, len| elf.bytes(&module.file, address, len))
                .map_or(0, |flow| sites::proven(code, &flow, asked))
        });
        let subject = Subject {
            language,
            info: found.as_ref().map_err(Clone::clone),
            prologue: &prologue,
            results,
            errno: self.errno,
            future: wanted.function.future.as_deref().map(|poll| poll.is_second),
        };
        plans.exit = capture::at_exit(&wanted.request, &subject, wanted.probe, &mut plans.problems);
        let jumps = sites.jumps_out();
        if wanted.request.wants_result() && plans.exit.is_some() && (jumps > 0 || sites.tail_calls)
        {
            plans.problems.push(Problem {
                wanted: "ret".to_owned(),
                reason: "the function can end by a jump to another one, which makes the result; not where it ends so".to_owned(),
            });
        }
        let mut only_jumps = None;
        if let ExitPlan::Sites(exits) = &sites.exit
            && exits.len() == jumps
        {
            plans.exit = None;
            only_jumps =
                Some("it always ends by a jump to another function, which makes the result");
        }
        if let Some(condition) = &wanted.request.fails {
            let has_rule = plans
                .exit
                .as_ref()
                .is_some_and(|plan| plan.failure.is_some());
            plans.without_rule = (!has_rule).then(|| {
                let rule = format!("fails {condition}");
                let problem = plans.problems.iter().find(|problem| problem.wanted == rule);
                problem.map_or_else(
                    || {
                        only_jumps
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
