//! SIGHUP: probes, rates and rules change while the agent runs, and no span is lost. The same where the
//! processes map other files.
//!
//! The new set of probes is prepared and attached beside the old one, in a thread; it counts from one
//! write to a map on (`Session::change_over`), and the old one goes when nothing needs it any more.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    thread,
};

use tokio::sync::oneshot;

use super::{Again, Prepared, coverage::Coverage, forget, has_ended, life::Why, prepare};
use crate::config::{Settings, Shown, Targets, is_reloadable};
use image::FileKey;
use model::{
    error::{Error, Result},
    text,
};
use planner::probe::{ProbeTable, Program};
use tracer::{
    kernel::{Attacher, Features, NextSet, Scope, is_stopping},
    process::Process,
};

/// A new set of probes.
pub(super) struct Probes {
    /// Its sites and names.
    pub prepared: Prepared,
    /// What is attached already, and to which processes; `None` where the reader has to do it (older kernels).
    pub attached: Option<(Coverage, NextSet)>,
}

/// New settings, with everything that takes long done.
pub(super) struct Ready {
    /// The settings, where they were read.
    pub settings: Option<Settings>,
    /// The probes, where they changed; none at all is a set, too.
    pub probes: Option<Option<Probes>>,
    /// What to say of files that cost too much to be read.
    pub refused: Vec<String>,
}

/// What a thread needs to prepare a new set of probes.
pub(super) struct Basis {
    /// Processes that are traced now.
    pub pids: Vec<u32>,
    /// Names, which keep their indexes.
    pub table: ProbeTable,
    /// What the kernel has.
    pub features: Features,
    /// Attaches from another thread.
    pub attacher: Option<Attacher>,
    /// Runtimes that are watched already: the file, and the process (0: all).
    pub watched: HashSet<(FileKey, u32)>,
    /// What is attached now.
    pub footprint: Footprint,
    /// Files that no probe is put into any more.
    pub removed: HashSet<FileKey>,
}

/// Settings in force, and new ones on the way.
pub(super) struct Reloading {
    /// In force.
    pub settings: Settings,
    again: Again,
    pending: Option<oneshot::Receiver<Result<Ready>>>,
    /// It is asked for again while an earlier time was still being worked on.
    once_more: Option<Why>,
}

impl Reloading {
    /// With the settings of the start.
    pub(super) fn new(settings: Settings, again: Again) -> Self {
        Self {
            settings,
            again,
            pending: None,
            once_more: None,
        }
    }

    /// Starts to plan anew, where the user asks for it with settings that are read again; `basis` is asked
    /// for only where that can begin now.
    pub(super) fn begin(&mut self, why: Why, basis: impl FnOnce() -> Option<Basis>) {
        if self.pending.is_some() {
            self.once_more = self.once_more.max(Some(why));
            return;
        }
        let (done, pending) = oneshot::channel();
        let (again, basis) = (self.again.clone(), basis());
        let targets = self.settings.targets.clone();
        let spawned = thread::Builder::new()
            .name("teracron-reload".to_owned())
            .spawn(move || {
                let ready = if why != Why::Asked {
                    follow(targets, basis, why)
                } else {
                    again().and_then(|settings| {
                        let changed = settings.targets.probes != targets.probes
                            || settings.targets.return_probe != targets.return_probe;
                        let mut refused = Vec::new();
                        let probes = match basis {
                            Some(basis) if changed => Some(probes(
                                &settings.targets,
                                targets,
                                basis,
                                None,
                                &mut refused,
                            )?),
                            _ => None,
                        };
                        Ok(Ready {
                            settings: Some(settings),
                            probes,
                            refused,
                        })
                    })
                };
                // Whoever waited for it has stopped.
                let _ = done.send(ready);
            });
        if spawned.is_ok() {
            self.pending = Some(pending);
        }
    }

    /// Waits for new settings; for ever where none are on the way.
    pub(super) async fn ready(&mut self) -> Result<Ready> {
        match &mut self.pending {
            Some(pending) => {
                let ready = pending.await;
                self.pending = None;
                ready.unwrap_or_else(|_| {
                    Err(Error::Failed("the thread that read them died".to_owned()))
                })
            }
            None => std::future::pending().await,
        }
    }

    /// Whether it was asked for meanwhile.
    pub(super) fn take_once_more(&mut self) -> Option<Why> {
        self.once_more.take()
    }

    /// Puts new settings in force, as far as they can be; answers what the user should know.
    pub(super) fn take(&mut self, new: Settings) -> Vec<String> {
        let notes = compare(&self.settings.shown, &new.shown);
        let old = std::mem::replace(&mut self.settings, new);
        // What needs a new start stays as it was.
        let settings = &mut self.settings;
        (settings.account, settings.output) = (old.account, old.output);
        (settings.spool_dir, settings.spool_max) = (old.spool_dir, old.spool_max);
        settings.targets.pids = old.targets.pids;
        settings.targets.executables = old.targets.executables;
        settings.targets.follow = old.targets.follow;
        let unchanged: Vec<Shown> = old
            .shown
            .into_iter()
            .filter(|shown| !is_reloadable(shown.name))
            .collect();
        settings.shown.retain(|shown| is_reloadable(shown.name));
        settings.shown.extend(unchanged);
        notes
    }
}

/// What sits where, whatever it is told there.
pub(super) type Footprint = BTreeSet<(FileKey, u64, Program)>;

/// What a set of probes attaches.
pub(super) fn footprint(prepared: &Prepared) -> Footprint {
    let attachments = prepared.attachments.iter();
    attachments
        .flat_map(|attachment| {
            let sites = attachment.sites.iter();
            sites.map(|site| (attachment.module.key, site.offset, site.program))
        })
        .collect()
}

/// A set of probes for what is mapped now, where it is another one.
fn follow(targets: Targets, basis: Option<Basis>, why: Why) -> Result<Ready> {
    let mut ready = Ready {
        settings: None,
        probes: None,
        refused: Vec::new(),
    };
    if let Some(basis) = basis {
        let current = (why == Why::Files).then(|| basis.footprint.clone());
        let new = targets.clone();
        let found = probes(&new, targets, basis, current.as_ref(), &mut ready.refused)?;
        ready.probes = found.map(Some);
    }
    Ok(ready)
}

/// Prepares and, where that is possible, attaches a new set of probes; `None`: it is empty, or the same as
/// `current`.
fn probes(
    new: &Targets,
    old: Targets,
    basis: Basis,
    current: Option<&Footprint>,
    refused: &mut Vec<String>,
) -> Result<Option<Probes>> {
    if new.probes.is_empty() {
        return Ok(None);
    }
    let mut wanted = Targets {
        probes: new.probes.clone(),
        return_probe: new.return_probe,
        pids: alive(&basis.pids),
        // Descendants are among them already.
        follow: false,
        ..old
    };
    let mut prepared = loop {
        match prepare(&wanted, basis.features, basis.table.next()) {
            // A process that ends meanwhile is no reason to leave the others as they are.
            Err(_) if alive(&wanted.pids) != wanted.pids => wanted.pids = alive(&wanted.pids),
            prepared => break prepared?,
        }
    };
    refused.append(&mut prepared.refused);
    prepared
        .attachments
        .retain(|attachment| !basis.removed.contains(&attachment.module.key));
    if current == Some(&footprint(&prepared)) {
        return Ok(None);
    }
    let Some(attacher) = basis.attacher else {
        return Ok(Some(Probes {
            prepared,
            attached: None,
        }));
    };
    attacher.add_plans(&prepared.table)?;
    let mut attached = NextSet::begin();
    let (mut coverage, places) = prepared.coverage();
    for (attachment, scope) in places {
        if !attachment.of_set && basis.watched.contains(&place(attachment.module.key, scope)) {
            continue;
        }
        if is_stopping() {
            return Err(Error::Failed("the run is over".to_owned()));
        }
        match attacher.attach(&attachment.module, &attachment.sites, scope) {
            Ok(links) => attached.add(links),
            Err(_) if has_ended(scope) => forget(&mut coverage, scope),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(Probes {
        prepared,
        attached: Some((coverage, attached)),
    }))
}

/// Those of some processes that have not ended.
fn alive(pids: &[u32]) -> Vec<u32> {
    let there = |pid: &&u32| Process::find(**pid).is_ok();
    pids.iter().filter(there).copied().collect()
}

/// Where a runtime is watched.
pub(super) fn place(key: FileKey, scope: Scope) -> (FileKey, u32) {
    match scope {
        Scope::AllProcesses => (key, 0),
        Scope::OneProcess(pid) => (key, pid),
    }
}

/// Says what is different.
fn compare(old: &[Shown], new: &[Shown]) -> Vec<String> {
    fn by_name(shown: &[Shown]) -> BTreeMap<&'static str, Vec<&str>> {
        let mut names: BTreeMap<&'static str, Vec<&str>> = BTreeMap::new();
        for shown in shown {
            names.entry(shown.name).or_default().push(&shown.value);
        }
        names
    }
    let (old, new) = (by_name(old), by_name(new));
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let mut notes = Vec::new();
    for name in names {
        let (before, after) = (old.get(*name), new.get(*name));
        if before == after {
            continue;
        }
        if is_reloadable(name) {
            let value = after.map_or_else(|| "none".to_owned(), |values| values.join(", "));
            notes.push(format!("{name} is {} now", text::escape(&value, 400)));
        } else {
            notes.push(format!(
                "{name} can't change while the agent runs: it takes effect at the next start"
            ));
        }
    }
    if notes.is_empty() {
        notes.push("nothing changed".to_owned());
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_and_what_could_not() {
        let shown = |name, value: &str| Shown {
            name,
            value: value.to_owned(),
            source: "file".to_owned(),
        };
        let old = [
            shown("interval", "10"),
            shown("domain", "www.teracron.com"),
            shown("probe", "a:f"),
        ];
        let new = [
            shown("interval", "10"),
            shown("domain", "eu.teracron.com"),
            shown("probe", "a:f"),
            shown("probe", "a:g"),
        ];
        assert_eq!(
            compare(&old, &new),
            [
                "domain can't change while the agent runs: it takes effect at the next start",
                "probe is a:f, a:g now"
            ]
        );
        assert_eq!(compare(&old, &old), ["nothing changed"]);
    }
}
