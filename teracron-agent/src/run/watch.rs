//! Memory samples alone: no probes, no eBPF, no root where the targets are one's own.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval};

use super::{
    Again,
    life::Why,
    processes::Processes,
    reload::Reloading,
    say, shown,
    sides::Sides,
    signals::{Hangups, Starting, StopSignals},
    sinks::Sinks,
    stop,
};
use crate::{config::Settings, status::Traced};
use image::Image;
use model::notes::Notes;
use model::{
    ProcessIdentity,
    error::{Context as _, Error, Result},
    text,
};
use tracer::process::{Process, identity, runs_file};

/// Samples the targets' memory until they end, the time is over, or a signal comes.
///
/// # Errors
/// See [`Error`].
pub(super) async fn watch(mut settings: Settings, again: Again) -> Result<()> {
    let starting = Starting::begin(Notes {
        quiet: settings.quiet,
    })?;
    let mut signals = StopSignals::listen(Hangups::listen()?)?;
    let mut pids = settings.targets.pids.clone();
    for pid in &pids {
        Process::find(*pid)?;
    }
    let mut files = Vec::new();
    for path in &settings.targets.executables {
        let shown = text::shown(&path.to_string_lossy());
        let module = Image::open(path, true).not_found(|| shown)?;
        pids.extend(runs_file(&module));
        files.push(module);
    }
    let mut processes = Processes::start(pids.iter().copied(), !files.is_empty())?;
    let mut sides = Sides::start(&mut settings)?;
    let mut sinks = Sinks::new(shown(&settings)?, None);
    sides.sample(&settings, processes.alive())?;
    starting.over();
    say(
        &settings,
        &format!(
            "watching the memory of {}; no probes: Ctrl-C ends",
            super::plural(pids.len(), "process")
        ),
    );
    let until = settings.duration.map(|duration| Instant::now() + duration);
    let mut reloading = Reloading::new(settings, again);
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    super::give_up(&reloading.settings);
    let mut looked = Instant::now();
    let result = loop {
        tokio::select! {
            ends = signals.stop_or_reload() => {
                if ends {
                    break Ok(());
                }
                reloading.begin(Why::Asked, || None);
            }
            ready = reloading.ready() => {
                let settings = ready.and_then(|mut ready| {
                    ready.settings.as_mut().map_or(Ok(()), |new| sides.change(new))?;
                    Ok(ready.settings)
                });
                match settings {
                    Ok(None) => {}
                    Ok(Some(settings)) => {
                        if !settings.targets.probes.is_empty() {
                            sides.notes.say("probes take effect at the next start: this agent began without any");
                        }
                        for note in reloading.take(settings) {
                            sides.notes.say(&note);
                        }
                    }
                    Err(error) => sides.notes.say(&format!("nothing changed: {error}")),
                }
                if reloading.take_once_more().is_some() {
                    reloading.begin(Why::Asked, || None);
                }
            }
            () = processes.ended() => processes.after_end()?,
            _ = tick.tick() => {}
        }
        // New processes of an executable: nothing tells of them.
        if !files.is_empty() && looked.elapsed() >= reloading.settings.interval {
            looked = Instant::now();
            for pid in files.iter().flat_map(runs_file) {
                processes.add(pid);
            }
        }
        if processes.take_changed() {
            sides.processes(processes.alive());
        }
        sides.report(Traced {
            processes: identities(&processes.alive()),
            ..Traced::default()
        });
        let written = sinks.memory(&sides.samples()).and_then(|()| sinks.flush());
        if let Err(error) = written {
            break if pipeline::output::is_closed_pipe(&error) {
                Ok(())
            } else {
                Err(Error::Failed(format!("cannot write samples: {error}")))
            };
        }
        if processes.is_over() || until.is_some_and(|until| Instant::now() >= until) {
            break Ok(());
        }
    };
    stop(sides, signals).await.and(result)
}

/// Who these processes are.
fn identities(pids: &[u32]) -> Vec<Arc<ProcessIdentity>> {
    let known = |pid: &u32| identity(*pid).map(Arc::new);
    pids.iter()
        .map(|pid| known(pid).unwrap_or_else(|| ProcessIdentity::only(*pid)))
        .collect()
}
