//! The command line.

mod args;
mod symbols;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

pub use args::{Cli, Command, DoctorArgs, RunArgs, SymbolsArgs};

use crate::{doctor, error::Result, run, text};

/// The program. Answers the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let (debug, result): (bool, Result<()>) = match cli.command {
        Some(Command::Run(args)) => {
            start_log(args.debug);
            (args.debug, run::run(&args))
        }
        Some(Command::Symbols(args)) => {
            start_log(args.debug);
            (args.debug, symbols::symbols(&args))
        }
        Some(Command::Doctor(args)) => (false, doctor::doctor(&args)),
        None => {
            start_log(cli.run.debug);
            (cli.run.debug, run::run(&cli.run))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Multi-line only for the verifier's words, which are for people who debug.
            let message = error.to_string();
            let shown = if debug {
                message
            } else {
                text::escape(&message, 2000)
            };
            eprintln!("teracron-agent: {shown}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// The command's definition, for completions and the manual page.
pub fn command() -> clap::Command {
    Cli::command()
}

struct StderrLog;

impl log::Log for StderrLog {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("teracron")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = record.args().to_string();
            eprintln!("teracron-agent: {}: {}", record.level(), text::shown(&line));
        }
    }

    fn flush(&self) {}
}

fn start_log(debug: bool) {
    let _ = log::set_logger(&StderrLog);
    log::set_max_level(if debug {
        log::LevelFilter::Debug
    } else {
        log::LevelFilter::Error
    });
}
