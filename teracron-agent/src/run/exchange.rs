//! A new set of probes, or new settings, take over from what was.

use std::io;

use teracron_common::End;

use super::{
    coverage::Coverage,
    life::{Event, Why},
    plural,
    reader::Reader,
    reload::{Basis, Probes, Ready, footprint, place},
    veil::Veil,
};
use model::error::Result;
use tracer::process::face;

/// Seconds for which futures of probes that were taken away are looked for.
const REMOVING: u32 = 5;

impl Reader {
    /// Plans the probes anew, in a thread.
    pub(super) fn reload(&mut self, why: Why) {
        let Self {
            session,
            table,
            processes,
            life,
            footprint,
            ..
        } = self;
        self.reloading.begin(why, || {
            let pids = processes.alive();
            // Where a main thread has ended, only the session has a way.
            let attacher = session
                .next_attacher()
                .filter(|_| pids.iter().all(|pid| face(*pid) == *pid));
            Some(Basis {
                pids,
                table: table.next(),
                features: session.features(),
                attacher,
                watched: life.coverage().watched(),
                footprint: footprint.clone(),
                removed: session.removed().clone(),
            })
        });
    }

    /// Puts new settings in force, or says why not.
    pub(super) fn reloaded(&mut self, ready: Result<Ready>) {
        let result = ready.and_then(|ready| self.take(ready));
        // A closed pipe is noticed again with the next span.
        let _ = self.end_removed();
        self.status.clear();
        match result {
            Ok(notes) => {
                for note in notes {
                    self.sides.notes.say(&note);
                }
            }
            // A process that has become another program may have none of what is looked for.
            Err(error) => self.sides.notes.say(&format!("nothing changed: {error}")),
        }
        if let Some(why) = self.reloading.take_once_more() {
            self.reload(why);
        }
    }

    pub(super) fn take(&mut self, ready: Ready) -> Result<Vec<String>> {
        let Ready {
            settings,
            probes,
            refused,
        } = ready;
        let mut notes = refused;
        let Some(mut settings) = settings else {
            if let Some(Some(probes)) = probes {
                // The rest was said at the start.
                notes.extend(self.take_probes(probes)?.pop());
            }
            return Ok(notes);
        };
        let veil = Veil::new(&settings)?;
        self.sides.change(&mut settings)?;
        notes.extend(self.sinks.change(veil).map(str::to_owned));
        if settings.targets.sample_rate != self.reloading.settings.targets.sample_rate {
            self.session.sample(settings.targets.sample_rate)?;
        }
        match probes {
            None => {}
            Some(None) => {
                self.session.change_over(Vec::new())?;
                self.change_over(Coverage::default());
                self.table = self.table.next();
                self.fates.placed.untraced();
                self.removing = REMOVING;
                notes.push("no function is traced now".to_owned());
            }
            Some(Some(probes)) => notes.extend(self.take_probes(probes)?),
        }
        notes.extend(self.reloading.take(settings));
        Ok(notes)
    }

    pub(super) fn take_probes(&mut self, probes: Probes) -> Result<Vec<String>> {
        let Probes { prepared, attached } = probes;
        let (coverage, attached) = match attached {
            Some((coverage, attached)) => (coverage, attached.take()),
            None => {
                self.session.add_plans(&prepared.table)?;
                let watched = self.life.coverage().watched();
                let mut attached = Vec::new();
                let (coverage, places) = prepared.coverage();
                for (it, scope) in places {
                    if it.of_set || !watched.contains(&place(it.module.key, scope)) {
                        attached.extend(self.session.attach_next(&it.module, &it.sites, scope)?);
                    }
                    // It takes its time, and records come meanwhile.
                    let _ = self.read_once();
                }
                (coverage, attached)
            }
        };
        self.session.change_over(attached)?;
        self.session.keep_spawning(&prepared.table)?;
        for executable in &prepared.executables {
            self.session.add_executable(executable.id)?;
        }
        for target in &prepared.targets {
            self.session
                .add_target_with(target.process.pid, target.layout.clone())?;
            self.processes.add(target.process.pid);
        }
        self.footprint = footprint(&prepared);
        self.fates.placed.plan(&prepared, self.session.removed());
        self.executables = prepared.executables;
        self.layouts = prepared.layouts;
        self.change_over(coverage);
        // What came meanwhile has nothing of it yet.
        self.following.changed();
        let mut notes = prepared.notes;
        notes.push(format!(
            "tracing {} now",
            plural(prepared.table.functions(), "function")
        ));
        self.table = prepared.table;
        self.removing = REMOVING;
        Ok(notes)
    }

    /// Another set of probes counts from now on.
    pub(super) fn change_over(&mut self, next: Coverage) {
        let alive = self.processes.alive();
        self.live(Event::ChangedOver { next, alive });
    }

    /// Futures of probes that were taken away are polled unseen from then on: their spans stay as they are.
    pub(super) fn end_removed(&mut self) -> io::Result<()> {
        if self.removing == 0 || self.table.futures().is_empty() {
            return Ok(());
        }
        self.removing -= 1;
        let in_force = self.table.in_force();
        let left = self
            .session
            .take_waiting(|key| !in_force.contains(&key.probe));
        self.show_left(left, End::Open)
    }
}
