//! `teracron-agent run`: puts the stages together.

mod prepare;
mod processes;
mod reader;
mod wait;

use std::io::{self, IsTerminal as _, Write as _};

use crate::{
    attach::{Features, Options, Scope, Session},
    cli::RunArgs,
    error::{Context as _, Error, Result},
    output::{ColorMode, Console, Json, Output, OutputMode, Silent, StatusLine, summary_line},
    span::Assembler,
};

pub use prepare::{Prepared, prepare};
use processes::Processes;
use reader::{Reader, StopSignals, Traced};

/// Runs until the targets end, the time is over, or a signal comes.
///
/// # Errors
/// See [`Error`]; the exit code says which kind.
pub fn run(args: &RunArgs) -> Result<()> {
    // SAFETY: no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        return Err(Error::Missing(
            "only root can load eBPF programs and probe other processes: use sudo; `teracron-agent doctor` tells more".to_owned(),
        ));
    }
    let features = Features::detect();
    let prepared = prepare(args, features)?;
    for line in &prepared.notes {
        note(args, line);
    }
    let scope = prepared.scope;
    let mut session = Session::load(
        features,
        scope,
        Options {
            follow: !args.no_follow,
            debug: args.debug,
            span_memory: !args.no_span_memory,
            sample_rate: args.trace_sample_rate,
        },
    )?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .failed(|| "cannot start the event loop".to_owned())?;
    runtime.block_on(async {
        let signals = StopSignals::listen()?;
        if args.debug
            && let Err(error) = start_kernel_log(&mut session)
        {
            note(args, &format!("no debug log from the kernel side: {error}"));
        }
        // Before anything counts, so that a step of the wall clock after the first call is noticed.
        let mut assembler = Assembler::default();
        assembler.clock.update();
        assembler.page_size = session.has_span_memory().then(procfs::page_size);
        attach(&mut session, &prepared, args)?;
        settle();
        let processes = Processes::start(&prepared)?;
        let output = output(args);
        let status = StatusLine::new(args.quiet || args.output == OutputMode::Json);
        let reader = Reader::new(
            Traced {
                session,
                table: prepared.table,
                processes,
                assembler,
            },
            output,
            status,
            signals,
            args,
        )?;
        let summary = reader.run().await?;
        if !args.quiet {
            eprintln!("teracron-agent: {}", summary_line(&summary));
        }
        Ok(())
    })
}

/// Above other programs, but below what the system itself needs.
const PRIORITY: libc::c_int = -10;

/// Prepares for the long run: the tables that were read are given back to the system, and the
/// reader is put before the programs that it watches, because what it does not read in time is lost.
fn settle() {
    // SAFETY: no pointers; both may fail without harm.
    unsafe {
        libc::malloc_trim(0);
        libc::setpriority(libc::PRIO_PROCESS, 0, PRIORITY);
    }
}

/// Says something about the run, on stderr.
fn note(args: &RunArgs, text: &str) {
    if !args.quiet {
        eprintln!("teracron-agent: {text}");
    }
}

fn attach(session: &mut Session, prepared: &Prepared, args: &RunArgs) -> Result<()> {
    let Scope::AllProcesses = prepared.scope else {
        // One process at a time, each with its own probes.
        for target in &prepared.targets {
            let scope = Scope::OneProcess(target.process.pid);
            for plan in prepared.plans_of(target) {
                session.attach(&plan.module, &plan.sites, scope)?;
            }
            for unwinder in prepared.unwinders_of(target) {
                session.attach(&unwinder.module, &unwinder.sites, scope)?;
            }
        }
        return arm(session, prepared, args);
    };
    for plan in &prepared.plans {
        session.attach(&plan.module, &plan.sites, prepared.scope)?;
    }
    for unwinder in &prepared.unwinders {
        session.attach(&unwinder.module, &unwinder.sites, prepared.scope)?;
    }
    arm(session, prepared, args)
}

/// Only now that every site is in place, calls count: one that is running already was not seen to
/// begin, and will not be seen to end.
fn arm(session: &mut Session, prepared: &Prepared, args: &RunArgs) -> Result<()> {
    for file in &prepared.executables {
        session.add_executable(*file)?;
    }
    let mut alive = 0;
    for target in &prepared.targets {
        session.add_target(target.process.pid)?;
        if target.process.is_alive() {
            alive += 1;
        }
    }
    if alive == 0 && prepared.executables.is_empty() {
        return Err(Error::NotFound(
            "the target ended while the probes were being attached".to_owned(),
        ));
    }
    note(
        args,
        &format!(
            "tracing {} with {} at {} sites; {}",
            prepared.describe_targets(),
            plural(prepared.table.functions(), "function"),
            prepared
                .plans
                .iter()
                .map(|plan| plan.sites.len())
                .sum::<usize>(),
            if session.uses_multi_links() {
                "Ctrl-C ends"
            } else {
                "Ctrl-C ends (one perf event per site: an older kernel)"
            }
        ),
    );
    Ok(())
}

/// `1 function`, `2 functions`.
pub fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn output(args: &RunArgs) -> Box<dyn Output> {
    let stdout = io::stdout();
    let terminal = stdout.is_terminal();
    let out = io::BufWriter::with_capacity(256 << 10, stdout);
    match args.output {
        OutputMode::Console => {
            let colors = match args.color {
                ColorMode::Auto => terminal && std::env::var_os("NO_COLOR").is_none(),
                ColorMode::Always => true,
                ColorMode::Never => false,
            };
            Box::new(Console::new(out, colors, terminal))
        }
        OutputMode::Json => Box::new(Json::new(out)),
        OutputMode::None => Box::new(Silent),
    }
}

/// Forwards the kernel side's debug log to ours.
fn start_kernel_log(session: &mut Session) -> std::result::Result<(), aya_log::Error> {
    let logger = aya_log::EbpfLogger::init(session.ebpf_mut())?;
    tokio::task::spawn(async move {
        let Ok(mut logger) = wait::readable(logger) else {
            return;
        };
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    });
    Ok(())
}

/// Whether an error means that nobody reads any more.
fn is_closed_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// Writes a line to stdout; a closed pipe is no failure.
pub fn print_line(text: &str) -> Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if !is_closed_pipe(&error) => {
            Err(Error::Failed(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}
