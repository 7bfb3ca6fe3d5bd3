//! Commands and options.

use std::path::PathBuf;

use clap::{
    Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, error::ErrorKind,
    parser::ValueSource,
};

use crate::{
    config::{AccountArgs, Flags, Settings, ShipArgs},
    output::{ColorMode, OutputMode},
    probe::ReturnProbeMode,
};

/// Traces named functions of running processes, without a change to them.
///
/// Puts eBPF probes on functions of a process that is already running and turns their calls into
/// spans: no source, no rebuild, no restart. The target is never stopped, and of a call's arguments only those are
/// read that a probe names. With an API key, spans and memory samples are encrypted for the key's owner and sent.
#[derive(Debug, Parser)]
#[command(
    name = "teracron-agent",
    version,
    after_help = "Without a command, `run` is meant:\n  sudo teracron-agent --pid 1234 --probe payment:create_order",
    after_long_help = EXTRA
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Answer with JSON on standard output: one object, or one a line.
    #[arg(long, global = true)]
    pub json: bool,
    /// Without a command: run.
    #[command(flatten)]
    pub run: RunArgs,
    /// Whose data it is.
    #[command(flatten)]
    pub account: AccountArgs,
}

impl Cli {
    /// Reads the command line.
    ///
    /// # Errors
    /// Where it makes no sense; also what `--help` and `--version` print.
    pub fn read<T: Into<std::ffi::OsString> + Clone>(
        line: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let mut command = Self::command();
        let matches = command.try_get_matches_from_mut(line)?;
        // Flags of `run` that stand before another command would be passed over in silence.
        if let Some((name, _)) = matches.subcommand() {
            let stray = matches.ids().find(|id| {
                matches.value_source(id.as_str()) == Some(ValueSource::CommandLine)
                    && command
                        .get_arguments()
                        .any(|arg| arg.get_id() == *id && !arg.is_global_set())
            });
            if let Some(id) = stray {
                let message = format!(
                    "--{} belongs behind `{name}`, if it means anything there",
                    id.as_str().replace('_', "-")
                );
                return Err(command.error(ErrorKind::ArgumentConflict, message));
            }
        }
        Self::from_arg_matches(&matches)
    }

    /// The settings that the line alone makes, without environment: for tests and benches.
    ///
    /// # Errors
    /// As for `run`.
    pub fn settings(&self) -> crate::error::Result<Settings> {
        let flags = Flags {
            account: &self.account,
            run: &self.run,
            json: self.json,
        };
        Settings::resolve(&flags, &|_| None)
    }
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
    /// Trace functions and sample memory (the default).
    Run(RunArgs),
    /// List what can be probed, and what it would cost.
    Symbols(SymbolsArgs),
    /// Check whether this machine can trace, and say what to do where it can't.
    Doctor,
    /// Show what `run` would take, and where each value comes from.
    Config(RunArgs),
    /// Ask the running agents what became of everything they received.
    Status(StatusArgs),
    /// Store an API key for later runs.
    Login(LoginArgs),
    /// Wipe the stored API key.
    Logout,
    /// Show which API key is in force.
    Whoami,
    /// Write the manual pages and shell completions of this program into a folder, for packages.
    #[command(hide = true)]
    Manual(ManualArgs),
}

/// Options of `run`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_long_help = EXTRA)]
pub struct RunArgs {
    /// Process to trace, as seen from here; may be repeated.
    ///
    /// Its descendants that run the same program are traced too, and children that it forks from a few milliseconds
    /// after the fork on, unless --no-follow. No other process is touched.
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,
    /// Function to trace: `[WORKFLOW:]FUNCTION[@MODULE][(NAME, …)][ fails CONDITION]`; may be repeated.
    ///
    /// FUNCTION is a demangled name with or without parameters (`shop::Cart::total`,
    /// `create_order`), a mangled name, a pattern (`shop::*`), or an address in the file (`0x1234`).
    /// A name stands for the compiler's clones of it, too. MODULE is a path or the name of any file
    /// that the process has mapped (`libpay.so`); without it the main program is searched, then all
    /// libraries. NAMEs are read of each call, and nothing else is: parameters and what is in them
    /// (`order.customer->id`), `ret`, or `KEY=arg1:i64` without debug information. CONDITION says which
    /// calls have failed: `ret < 0`, `ret.code != 0`, `null`, `none`.
    #[arg(long, value_name = "SPEC")]
    pub probe: Vec<String>,
    /// Trace every process that runs this file, now or later; may be repeated.
    ///
    /// Breakpoints are set in the file, so that they are hit in every process that runs it.
    #[arg(long, value_name = "PATH")]
    pub exe: Vec<PathBuf>,
    /// Don't trace children that a process forks.
    #[arg(long)]
    pub no_follow: bool,
    /// Set breakpoints in the program's file instead of in one process after the other.
    ///
    /// Then a forked child's first call is seen, and calls cost the same however many processes there are. But every
    /// process that runs the file is hit, those of others, too: each call costs them about a microsecond, and nothing is
    /// recorded of it. Libraries are left as they are for everybody else.
    #[arg(long)]
    pub all_processes: bool,
    /// How spans are shown on standard output [default: console; none where they are sent].
    #[arg(long, value_enum)]
    pub output: Option<OutputMode>,
    /// Whether colours are used [default: auto].
    #[arg(long, value_enum)]
    pub color: Option<ColorMode>,
    /// Stop after this many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<f64>,
    /// How the end of a call is seen.
    ///
    /// `auto`, the default, uses a return probe only where nothing can unwind the stack, and a probe on every way
    /// out of the function elsewhere; `ret` always does the latter; `uretprobe` insists on return
    /// probes and is refused where they could kill the target.
    #[arg(long, value_enum)]
    pub return_probe: Option<ReturnProbeMode>,
    /// Use return probes even where they can kill the target.
    #[arg(long)]
    pub allow_unsafe_return_probes: bool,
    /// Say nothing but errors on standard error.
    #[arg(long)]
    pub quiet: bool,
    /// Say on standard error what the agent does.
    #[arg(long)]
    pub debug: bool,
    /// How much is sent, and when.
    #[command(flatten)]
    pub ship: ShipArgs,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 && value <= 1e9 => Ok(value),
        _ => Err("a number of seconds above 0 is wanted".to_owned()),
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
    /// Show what a probe would attach and read, step by step: of `payment:charge(order_id) fails ret < 0`.
    #[arg(long, value_name = "SPEC", conflicts_with = "pattern")]
    pub plan: Option<String>,
    /// Only functions whose name matches.
    #[arg(value_name = "GLOB")]
    pub pattern: Option<String>,
    /// Say on standard error what the agent does.
    #[arg(long)]
    pub debug: bool,
}

/// Options of `status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// Only the agent that is this process.
    #[arg(long, value_name = "PID")]
    pub agent: Option<u32>,
    /// Where the agents' sockets are.
    #[arg(long, value_name = "FOLDER", default_value = crate::status::FOLDER)]
    pub run_dir: PathBuf,
}

/// Options of `login`.
#[derive(Clone, Debug, Args)]
pub struct LoginArgs {
    /// The API key; asked for where neither this nor `--api-key` nor `TERACRON_API_KEY` gives it.
    ///
    /// Other users can see a command line: prefer to be asked.
    #[arg(value_name = "KEY")]
    pub key: Option<String>,
}

/// Options of `manual`.
#[derive(Clone, Debug, Args)]
pub struct ManualArgs {
    /// Where the files go; it must exist.
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    fn read(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::read(["teracron-agent"].iter().chain(line))
    }

    #[test]
    fn run_is_the_default() {
        let cli = read(&["--pid", "7", "--probe", "a:b"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.run.pid, [7]);
        let cli = read(&["run", "--pid", "7", "--probe", "a:b"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Run(args)) if args.pid == [7]));
    }

    #[test]
    fn the_accounts_flags_stand_anywhere() {
        for line in [
            &["--json", "--api-key", "k", "whoami"][..],
            &["whoami", "--json", "--api-key", "k"],
        ] {
            let cli = read(line).unwrap();
            assert!(cli.json && cli.account.api_key.as_deref() == Some("k"));
        }
    }

    #[test]
    fn wrong_usage() {
        for line in [
            &["--pid", "x"][..],
            &["--duration", "-1"],
            &["--duration", "nan"],
            &["--output", "xml"],
            &["--pid", "1", "doctor"],
            &["--interval", "7", "run"],
            &["symbols"],
            &["symbols", "--pid", "1", "--file", "x"],
            &["frobnicate"],
        ] {
            assert!(read(line).is_err(), "{line:?}");
        }
    }
}
