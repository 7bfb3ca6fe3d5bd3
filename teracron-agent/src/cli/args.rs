//! Commands and options.

use std::path::PathBuf;

use clap::{
    Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};

use super::exit::extra;
use crate::config::{AccountArgs, Environment, Flags, RunArgs, Settings, process_id};
use image::symbol::nearest;

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
    after_long_help = extra()
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
        let matches = command
            .try_get_matches_from_mut(line)
            .map_err(|error| with_tip(error, &command))?;
        // Flags of `run` that stand before another command would be passed over in silence.
        if let Some((name, _)) = matches.subcommand() {
            let stray = command.get_arguments().find(|arg| {
                let id = arg.get_id().as_str();
                let is_here = matches.ids().any(|given| given.as_str() == id);
                is_here
                    && !arg.is_global_set()
                    && matches.value_source(id) == Some(ValueSource::CommandLine)
            });
            let long = stray.and_then(clap::Arg::get_long).map(str::to_owned);
            if let Some(long) = long {
                let message =
                    format!("--{long} belongs behind `{name}`, if it means anything there");
                return Err(command.error(ErrorKind::ArgumentConflict, message));
            }
        }
        Self::from_arg_matches(&matches)
    }

    /// The settings that the line alone makes, without environment: for tests and benches.
    ///
    /// # Errors
    /// As for `run`.
    pub fn settings(&self) -> model::error::Result<Settings> {
        let flags = Flags {
            account: &self.account,
            run: &self.run,
            json: self.json,
        };
        Settings::resolve(&flags, &Environment::default())
    }
}

/// Names the nearest flag where clap finds none: it does not see that two letters changed places.
fn with_tip(mut error: clap::Error, command: &clap::Command) -> clap::Error {
    let given = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(given)) if error.kind() == ErrorKind::UnknownArgument => given,
        _ => return error,
    };
    if error.get(ContextKind::SuggestedArg).is_some() {
        return error;
    }
    let commands = std::iter::once(command).chain(command.get_subcommands());
    let flags = commands.flat_map(clap::Command::get_arguments);
    let names: Vec<&str> = flags.filter_map(clap::Arg::get_long).collect();
    let near = nearest(given.trim_start_matches('-'), names.into_iter());
    if let Some(near) = near.first() {
        let tip = ContextValue::String(format!("--{near}"));
        error.insert(ContextKind::SuggestedArg, tip);
    }
    error
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Trace functions and sample memory (the default).
    #[command(after_long_help = extra())]
    Run(RunArgs),
    /// List what can be probed, and what it would cost.
    Symbols(SymbolsArgs),
    /// Check whether this machine can trace, and say what to do where it can't.
    Doctor,
    /// Show what `run` would take, and where each value comes from.
    #[command(after_long_help = extra())]
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

/// Options of `symbols`.
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["pid", "file"]))]
pub struct SymbolsArgs {
    /// Functions of this process: of its main program and all its libraries.
    #[arg(long, value_name = "PID", value_parser = process_id::read)]
    pub pid: Option<u32>,
    /// Functions of this file.
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// Show what a probe would attach and read, step by step: of `payment:charge(order_id) fails ret < 0`.
    #[arg(long, value_name = "SPEC", conflicts_with = "pattern")]
    pub plan: Option<String>,
    /// Only these: a word that their names have, a name as for `--probe`, or a pattern (`shop::*`).
    #[arg(value_name = "NAME")]
    pub pattern: Option<String>,
    /// Say on standard error what the agent does.
    #[arg(long)]
    pub debug: bool,
}

/// Options of `status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// Only the agent that is this process.
    #[arg(long, value_name = "PID", value_parser = process_id::read)]
    pub agent: Option<u32>,
    /// Where the agents' sockets are.
    #[arg(long, value_name = "FOLDER", default_value = crate::config::RUN_FOLDER)]
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
    use crate::config::table::{API_KEY, PID};

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
        assert_eq!(cli.run.0.get(&PID).unwrap(), Some(vec![7]));
        let cli = read(&["run", "--pid", "7", "--probe", "a:b"]).unwrap();
        assert!(
            matches!(cli.command, Some(Command::Run(args)) if args.0.get(&PID).unwrap() == Some(vec![7]))
        );
    }

    #[test]
    fn the_accounts_flags_stand_anywhere() {
        for line in [
            &["--json", "--api-key", "k", "whoami"][..],
            &["whoami", "--json", "--api-key", "k"],
        ] {
            let cli = read(line).unwrap();
            let key = cli.account.0.get(&API_KEY).unwrap();
            assert!(cli.json && key.as_deref() == Some("k"));
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
            &["--no-follow", "doctor"],
            &["symbols"],
            &["symbols", "--pid", "1", "--file", "x"],
            &["frobnicate"],
        ] {
            assert!(read(line).is_err(), "{line:?}");
        }
    }
}
