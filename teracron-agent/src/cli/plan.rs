//! `teracron-agent symbols --plan SPEC`: everything that a probe would do, before it does anything.

use super::SymbolsArgs;
use crate::{config::Targets, run::explain};
use model::{
    error::{Error, Result},
    notes,
};
use pipeline::output::print_line;
use planner::{probe::ReturnProbeMode, probe_spec::ProbeSpec};
use tracer::kernel::Features;

/// Prints the plan of a probe.
///
/// # Errors
/// Where the specification makes no sense, or names nothing.
pub(super) fn plan(spec: &str, args: &SymbolsArgs, json: bool) -> Result<()> {
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
    let prepared = explain(&targets, Features::detect())?;
    for line in &prepared.explained {
        print_line(line)?;
    }
    for note in &prepared.notes {
        notes::say(note);
    }
    Ok(())
}
