//! Commands and options.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{
    output::{ColorMode, OutputMode},
    probe::ReturnProbeMode,
};

/// Traces named functions of running processes, without a change to them.
///
/// Puts eBPF probes on functions of a process that is already running and turns their calls into
/// spans: no source, no rebuild, no restart. The target is never stopped, and no argument of a call
/// is read.
#[derive(Debug, Parser)]
#[command(
    name = "teracron-agent",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Without a command, `run` is meant:\n  sudo teracron-agent --pid 1234 --probe payment:create_order",
    after_long_help = EXTRA
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Without a command: run.
    #[command(flatten)]
    pub run: RunArgs,
}

const EXTRA: &str = "\
Without a command, `run` is meant:
  sudo teracron-agent --pid 1234 --probe payment:create_order

Exit codes:
  0  done
  1  failure while running
  2  wrong usage or configuration
  3  a privilege or a kernel feature is missing (see `teracron-agent doctor`)
  4  the target or a symbol was not found, or cannot be probed safely";

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Trace functions (the default).
    Run(RunArgs),
    /// List what can be probed, and what it would cost.
    Symbols(SymbolsArgs),
    /// Check whether this machine can trace, and say what to do where it can't.
    Doctor(DoctorArgs),
}

/// Options of `run`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = EXTRA)]
pub struct RunArgs {
    /// Process to trace, as seen from here; may be repeated.
    ///
    /// Children that it forks are traced too, from their first instruction on, unless --no-follow.
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,
    /// Function to trace: `WORKFLOW:FUNCTION[@MODULE]`; may be repeated.
    ///
    /// FUNCTION is a demangled name with or without parameters (`shop::Cart::total`,
    /// `create_order`), a mangled name, a pattern (`shop::*`), or an address in the file (`0x1234`).
    /// A name stands for the compiler's clones of it, too. MODULE is a path or the name of any file
    /// that the process has mapped (`libpay.so`); without it the main program is searched, then all
    /// libraries.
    #[arg(long, value_name = "SPEC")]
    pub probe: Vec<String>,
    /// Trace every process that runs this file, now or later; may be repeated.
    #[arg(long, value_name = "PATH")]
    pub exe: Vec<PathBuf>,
    /// Don't trace children that a process forks.
    #[arg(long)]
    pub no_follow: bool,
    /// How spans are shown on standard output.
    #[arg(long, value_enum, default_value_t = OutputMode::Console)]
    pub output: OutputMode,
    /// Whether colours are used.
    #[arg(long, value_enum, default_value_t = ColorMode::Auto)]
    pub color: ColorMode,
    /// Stop after this many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<f64>,
    /// How the end of a call is seen.
    ///
    /// `auto` uses a return probe only where nothing can unwind the stack, and a probe on every way
    /// out of the function elsewhere; `ret` always does the latter; `uretprobe` insists on return
    /// probes and is refused where they could kill the target.
    #[arg(long, value_enum, default_value_t = ReturnProbeMode::Auto)]
    pub return_probe: ReturnProbeMode,
    /// Share of traces that are kept, 0 to 1: all or nothing per trace, decided in the kernel.
    #[arg(long, value_name = "RATE", default_value_t = 1.0, value_parser = rate)]
    pub trace_sample_rate: f64,
    /// Spans don't carry what they did to the process's memory.
    #[arg(long)]
    pub no_span_memory: bool,
    /// Use return probes even where they can kill the target.
    #[arg(long)]
    pub allow_unsafe_return_probes: bool,
    /// Say nothing but errors on standard error.
    #[arg(long)]
    pub quiet: bool,
    /// Say on standard error what the agent does.
    #[arg(long)]
    pub debug: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 && value <= 1e9 => Ok(value),
        _ => Err("a number of seconds above 0 is wanted".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("a share from 0 to 1 is wanted".to_owned()),
    }
}

/// Options of `symbols`.
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["pid", "file"]))]
pub struct SymbolsArgs {
    /// Functions of this process: of its main program and all its libraries.
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Functions of this file.
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// Only functions whose name matches.
    #[arg(value_name = "GLOB")]
    pub pattern: Option<String>,
    /// One JSON object per line.
    #[arg(long)]
    pub json: bool,
    /// Say on standard error what the agent does.
    #[arg(long)]
    pub debug: bool,
}

/// Options of `doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// One JSON object.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_the_default() {
        let cli = Cli::try_parse_from(["teracron-agent", "--pid", "7", "--probe", "a:b"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.run.pid, [7]);
        let cli =
            Cli::try_parse_from(["teracron-agent", "run", "--pid", "7", "--probe", "a:b"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Run(args)) if args.pid == [7]));
    }

    #[test]
    fn wrong_usage() {
        for line in [
            &["--pid", "x"][..],
            &["--duration", "-1"],
            &["--duration", "nan"],
            &["--output", "xml"],
            &["symbols"],
            &["symbols", "--pid", "1", "--file", "x"],
            &["frobnicate"],
        ] {
            let all = ["teracron-agent"].iter().chain(line);
            assert!(Cli::try_parse_from(all).is_err(), "{line:?}");
        }
    }
}
