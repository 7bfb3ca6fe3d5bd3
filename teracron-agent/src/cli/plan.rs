//! `teracron-agent symbols --plan SPEC`: everything that a probe would do, before it does anything.

use super::SymbolsArgs;
use crate::{
    config::Targets,
    run::{Prepared, prepare},
};
use model::{
    error::{Error, Result},
    text,
};
use pipeline::output::print_line;
use planner::{
    probe::{ProbeTable, ReturnProbeMode},
    probe_spec::ProbeSpec,
};
use sites::ExitPlan;
use tracer::kernel::Features;

/// Prints the plan of a probe.
///
/// # Errors
/// Where the specification makes no sense, or names nothing.
pub fn plan(spec: &str, args: &SymbolsArgs, json: bool) -> Result<()> {
    if json {
        return Err(Error::Usage("--plan prints text only".to_owned()));
    }
    let probe: ProbeSpec = spec
        .parse()
        .map_err(|error: planner::probe_spec::SpecError| Error::Usage(error.to_string()))?;
    let targets = Targets {
        pids: args.pid.into_iter().collect(),
        executables: args.file.clone().into_iter().collect(),
        follow: true,
        all_processes: false,
        probes: vec![probe],
        return_probe: ReturnProbeMode::Auto,
        allow_unsafe: false,
        span_memory: false,
        sample_rate: 1.0,
    };
    let prepared = prepare(&targets, Features::detect(), ProbeTable::default())?;
    for line in lines(&prepared) {
        print_line(&line)?;
    }
    for note in &prepared.notes {
        eprintln!("teracron-agent: {note}");
    }
    Ok(())
}

/// What is going to be attached, and read.
fn lines(prepared: &Prepared) -> Vec<String> {
    let mut lines = Vec::new();
    for plan in &prepared.plans {
        for (function, sites, captures) in &plan.functions {
            lines.push(format!(
                "{} in {}",
                text::shown(&function.full),
                text::shown(plan.module.name())
            ));
            lines.push(format!(
                "entry at {:#x} ({})",
                sites.entry.address,
                sites.entry.cost.name()
            ));
            if let Some(plan) = &captures.entry {
                lines.extend(plan.to_string().lines().map(str::to_owned));
            }
            match &sites.exit {
                ExitPlan::ReturnProbe => lines.push("exit by return probe".to_owned()),
                ExitPlan::Sites(exits) => {
                    for exit in exits {
                        let out = if exit.returns {
                            "exit"
                        } else {
                            "exit by a jump"
                        };
                        lines.push(format!(
                            "{out} at {:#x} ({})",
                            exit.address,
                            exit.cost.name()
                        ));
                    }
                }
            }
            if let Some(plan) = &captures.exit {
                lines.extend(plan.to_string().lines().map(str::to_owned));
            }
        }
    }
    lines
}
