//! The command line.

mod account;
mod args;
mod exit;
mod manual;
mod plan;
mod show;
mod symbols;

use std::{process::ExitCode, sync::Arc};

pub use args::{Cli, Command, LoginArgs, ManualArgs, StatusArgs, SymbolsArgs};
pub use exit::code as exit_code;

use crate::{
    config::{AccountArgs, Environment, Flags, RunArgs, Settings},
    delivering, doctor, logging, planning, run,
    shut_in::Part,
    status,
};
use model::{
    error::{Error, Result},
    notes, text,
};
use sys::capabilities::no_new_privileges;
use tracer::kernel::detached;

/// The program. Answers the exit code.
pub fn main() -> ExitCode {
    match Part::asked() {
        Some((Part::Planning, agent)) => return planning::work(agent),
        Some((Part::Delivering, agent)) => return delivering::work(agent),
        None => {}
    }
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let code = match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Multi-line only for the verifier's words, which are for people who debug.
            let message = error.to_string();
            let shown = if log::log_enabled!(log::Level::Debug) {
                message
            } else {
                text::escape(&message, 2000)
            };
            notes::say(&shown);
            ExitCode::from(exit_code(&error))
        }
    };
    notes::finish();
    detached();
    code
}

fn dispatch(cli: Cli) -> Result<()> {
    let Cli {
        command,
        account,
        json,
        run,
    } = cli;
    match command.unwrap_or(Command::Run(run)) {
        Command::Run(args) => start(account, args, json),
        Command::Symbols(args) => {
            logging::start(args.debug);
            match &args.plan {
                Some(spec) => plan::plan(spec, &args, json),
                None => symbols::symbols(&args, json),
            }
        }
        Command::Doctor => doctor::doctor(json),
        Command::Config(run) => {
            let flags = Flags {
                account: &account,
                run: &run,
                json,
            };
            show::config(&flags, &Environment::of_process())
        }
        Command::Status(args) => status::status(&args.run_dir, args.agent, json),
        Command::Login(args) => account::login(&args, &account, json, &Environment::of_process()),
        Command::Logout => account::logout(json, &Environment::of_process()),
        Command::Whoami => account::whoami(&account, json, &Environment::of_process()),
        Command::Manual(args) => manual::write(&args.folder),
    }
}

fn start(account: AccountArgs, args: RunArgs, json: bool) -> Result<()> {
    let resolve = move || {
        let flags = Flags {
            account: &account,
            run: &args,
            json,
        };
        Settings::resolve(&flags, &Environment::of_process())
    };
    let settings = resolve()?;
    // What it starts, a scrubber too, gets no more rights than it has.
    no_new_privileges()
        .map_err(|error| Error::Failed(format!("new privileges can't be forbidden: {error}")))?;
    logging::start(settings.debug);
    if !settings.targets.probes.is_empty() {
        doctor::demand_host_pids()?;
    }
    run::run(settings, Arc::new(resolve))
}
