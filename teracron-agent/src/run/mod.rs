//! `teracron-agent run`: puts the stages together.

mod attaching;
mod coverage;
mod covering;
mod deaths;
mod doubts;
mod events;
mod exchange;
mod family;
mod fates;
mod following;
mod gone;
mod life;
mod moving;
mod placed;
mod prepare;
mod processes;
mod reader;
mod reload;
mod removed;
mod shipping;
mod sides;
mod signals;
mod silence;
mod sinks;
mod targets;
mod verify;
mod vigil;
mod warm;
mod watch;

use std::{
    io::{self, IsTerminal as _},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::config::Settings;
use image::copies_stacks;
use model::{
    error::{Context as _, Error, Result},
    notes::{self, Notes},
    signal_name,
    text::counted,
};
use pipeline::output::{
    ColorMode, Console, Json, OutputMode, Queue, Sink, StatusLine, summary_line,
};
use planner::probe::ProbeTable;
use sys::capabilities::{Capability, keep_only};
use tracer::{
    assemble::Assembler,
    kernel::{Features, Options, Scope, Session, detached},
    process::Process,
};

use coverage::Coverage;
pub use prepare::{Prepared, explain, prepare};
use processes::Processes;
use reader::{Reader, Traced};
pub use shipping::Shipping;
use sides::Sides;
use signals::{Hangups, Stage, Starting, StopSignals};
use sinks::Sinks;

/// Reads the settings anew, at SIGHUP.
pub type Again = Arc<dyn Fn() -> Result<Settings> + Send + Sync>;

/// Runs until the targets end, the time is over, or a signal comes.
///
/// # Errors
/// See [`Error`]; the exit code says which kind.
pub fn run(settings: Settings, again: Again) -> Result<()> {
    notes::start();
    for warning in &settings.warnings {
        say(&settings, &model::text::shown(warning));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .failed(|| "cannot start the event loop".to_owned())?;
    let result = start(&runtime, settings, again);
    // A stop that was cut short leaves a thread that still sends.
    runtime.shutdown_background();
    result
}

fn start(runtime: &tokio::runtime::Runtime, settings: Settings, again: Again) -> Result<()> {
    if settings.targets.probes.is_empty() {
        // Without an account and without output there would be nothing to do.
        let useful = settings.account.account.is_some() || settings.output == OutputMode::Json;
        if useful && !settings.targets.names_nothing() {
            return runtime.block_on(watch::watch(settings, again));
        }
    }
    runtime.block_on(trace(settings, again))
}

/// Traces functions.
async fn trace(mut settings: Settings, again: Again) -> Result<()> {
    let starting = Starting::begin(Notes {
        quiet: settings.quiet,
    })?;
    // What comes from now on waits for the reader.
    let signals = StopSignals::listen(Hangups::listen()?)?;
    let features = Features::detect();
    if !rustix::process::geteuid().is_root() {
        return Err(Error::Missing(
            "only root can load eBPF programs and probe other processes: use sudo; `teracron-agent doctor` tells more".to_owned(),
        ));
    }
    let prepared = prepare(&settings.targets, features, ProbeTable::default())?;
    for line in prepared.notes.iter().chain(&prepared.refused) {
        say(&settings, line);
        starting.has_said();
    }
    starting.stage(Stage::Loading);
    // Before the verifier's seconds: what an earlier run left is on its way meanwhile.
    let mut sides = Sides::start(&mut settings)?;
    let mut session = Session::load(
        features,
        Options {
            follow: settings.targets.follow,
            debug: settings.debug,
            span_memory: settings.targets.span_memory,
            sample_rate: settings.targets.sample_rate,
        },
    )?;
    if settings.debug
        && let Err(error) = start_kernel_log(&mut session)
    {
        say(
            &settings,
            &format!("no debug log from the kernel side: {error}"),
        );
    }
    // Before anything counts, so that a step of the wall clock after the first call is noticed.
    let mut assembler = Assembler::default();
    assembler.clock.update();
    assembler.page_size = session.has_span_memory().then(procfs::page_size);
    session.draw_ahead()?;
    let coverage = match attach(&mut session, &prepared, &settings, &starting)? {
        Attached::Armed(coverage) => coverage,
        Attached::Stopped(signal) => {
            drop(session);
            detached();
            signals::end(signal);
        }
    };
    // What asked to stop since then is heard by the reader, too.
    starting.over();
    let sinks = Sinks::new(shown(&settings)?, sides.intake());
    let processes = Processes::start(
        prepared.targets.iter().map(|target| target.process.pid),
        !prepared.executables.is_empty(),
    )?;
    sides.sample(&settings, processes.alive())?;
    settle();
    give_up(&settings);
    let status = StatusLine::new(settings.quiet || settings.output == OutputMode::Json);
    let quiet = settings.quiet;
    let reader = Reader::new(
        Traced {
            session,
            prepared,
            coverage,
            processes,
            assembler,
        },
        sinks,
        status,
        signals,
        sides,
        reload::Reloading::new(settings, again),
    )?;
    let (summary, sides, signals) = reader.run().await;
    let summary = match summary {
        Ok(summary) => summary,
        Err(error) => {
            stop(sides, signals).await?;
            return Err(error);
        }
    };
    if !quiet {
        notes::say(&summary_line(&summary));
    }
    stop(sides, signals).await?;
    match summary.killed_by {
        Some(signal) => Err(Error::Failed(format!(
            "no target is left: the last one was killed by {}",
            signal_name(signal)
        ))),
        None => Ok(()),
    }
}

/// Signals that follow each other so closely are one.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// Gives what is to be sent some time; another signal ends that.
async fn stop(sides: Sides, mut signals: StopSignals) -> Result<()> {
    let mut finishing = tokio::task::spawn_blocking(move || sides.finish());
    let began = Instant::now();
    loop {
        tokio::select! {
            finished = &mut finishing => return finished.failed(|| "stopping".to_owned()),
            () = signals.received() => {
                // Some supervisors send the same signal to the process and to its group.
                if began.elapsed() > SAME_SIGNAL {
                    // What is sealed waits in the spool; nobody waits for the rest any more.
                    return Err(Error::Failed("stopped before everything was sent".to_owned()));
                }
            }
        }
    }
}

/// Above other programs, but below what the system itself needs.
const PRIORITY: i32 = -10;

/// Prepares for the long run: the tables that were read are given back to the system, and the
/// reader is put before the programs that it watches, because what it does not read in time is lost.
fn settle() {
    sys::give_back();
    // It may fail without harm.
    let _ = rustix::process::setpriority_process(None, PRIORITY);
}

/// What the rest of the run may still need, as `docs/install.md` lists it by feature: attaching to what comes later, and
/// starting and ending the processes that plan and deliver.
const KEPT: [Capability; 10] = [
    Capability::Chown,
    Capability::Bpf,
    Capability::Perfmon,
    Capability::SysPtrace,
    Capability::DacReadSearch,
    Capability::CheckpointRestore,
    Capability::SysAdmin,
    Capability::SetUid,
    Capability::SetGid,
    Capability::Kill,
];

/// Gives up the privileges that only the start needed.
fn give_up(settings: &Settings) {
    if let Err(error) = keep_only(&KEPT) {
        say(
            settings,
            &format!("capabilities that are not needed any more could not be given up: {error}"),
        );
    }
}

/// Says something about the run, on stderr.
fn say(settings: &Settings, text: &str) {
    if !settings.quiet {
        notes::say(text);
    }
}

/// How attaching ended.
enum Attached {
    /// All is in place and counts: which process has what.
    Armed(Coverage),
    /// This signal asked to stop; nothing counts.
    Stopped(i32),
}

/// Attaches everything.
fn attach(
    session: &mut Session,
    prepared: &Prepared,
    settings: &Settings,
    starting: &Starting,
) -> Result<Attached> {
    session.add_plans(&prepared.table)?;
    let (mut coverage, places) = prepared.coverage();
    starting.stage(Stage::Attaching);
    for (attachment, scope) in places {
        if let Some(signal) = starting.asked() {
            return Ok(Attached::Stopped(signal));
        }
        match session.attach(&attachment.module, &attachment.sites, scope) {
            Ok(()) => {}
            // One of many has ended meanwhile: the others are traced all the same.
            Err(_) if has_ended(scope) => forget(&mut coverage, scope),
            Err(error) => return Err(error),
        }
    }
    arm(session, prepared, settings)?;
    Ok(Attached::Armed(coverage))
}

fn has_ended(scope: Scope) -> bool {
    matches!(scope, Scope::OneProcess(pid) if Process::find(pid).is_err())
}

fn forget(coverage: &mut Coverage, scope: Scope) {
    if let Scope::OneProcess(pid) = scope {
        coverage.forget(pid);
    }
}

/// Only now that every site is in place, calls count: one that is running already was not seen to
/// begin, and will not be seen to end.
fn arm(session: &mut Session, prepared: &Prepared, settings: &Settings) -> Result<()> {
    for executable in &prepared.executables {
        session.add_executable(executable.id)?;
    }
    let mut alive = 0;
    for target in &prepared.targets {
        let Process { pid, comm, .. } = &target.process;
        session.add_target_with(*pid, target.layout.clone())?;
        if copies_stacks(target.images()) && session.copies_stacks(*pid)? {
            say(settings, &covering::copied_stacks(*pid, comm));
        }
        if target.process.is_alive() {
            alive += 1;
        }
    }
    if alive == 0 && prepared.executables.is_empty() {
        return Err(Error::NotFound(
            "the target ended while the probes were being attached".to_owned(),
        ));
    }
    say(
        settings,
        &format!(
            "tracing {} with {} at {}; {}",
            prepared.describe_targets(),
            plural(prepared.table.functions(), "function"),
            plural(prepared.plans().map(|plan| plan.sites.len()).sum(), "site"),
            if session.uses_multi_links() {
                "Ctrl-C ends"
            } else {
                "Ctrl-C ends (one perf event per site: an older kernel)"
            }
        ),
    );
    Ok(())
}

/// `1 function`, `2 functions`, `1,200 batches`.
pub fn plural(count: usize, what: &str) -> String {
    counted(count as u64, what)
}

/// What shows spans, where they are to be shown.
fn shown(settings: &Settings) -> Result<Option<Box<dyn Sink>>> {
    if settings.output == OutputMode::None {
        return Ok(None);
    }
    let stdout = io::stdout();
    let terminal = stdout.is_terminal();
    let out = Queue::new(stdout).failed(|| "cannot start a thread".to_owned())?;
    let sink: Box<dyn Sink> = if settings.output == OutputMode::Console {
        let colors = match settings.color {
            ColorMode::Auto => terminal && std::env::var_os("NO_COLOR").is_none(),
            ColorMode::Always => true,
            ColorMode::Never => false,
        };
        Box::new(Console::new(out, colors, terminal))
    } else {
        Box::new(Json::new(out))
    };
    Ok(Some(sink))
}

/// Forwards the kernel side's debug log to ours.
fn start_kernel_log(session: &mut Session) -> std::result::Result<(), aya_log::Error> {
    let logger = aya_log::EbpfLogger::init(session.ebpf_mut())?;
    tokio::task::spawn(async move {
        let Ok(mut logger) = sys::readable(logger) else {
            return;
        };
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    });
    Ok(())
}
