//! Sets of probes that follow each other while the session runs, so that no call is lost or counted
//! twice.

use std::{num::NonZeroU32, thread};

use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeScope};

use super::{
    Scope, Session,
    links::{self, Attached, Attacher, Link},
    session::chain,
};
use crate::{
    error::{Error, Result},
    probe::{Program, Site},
    target::Module,
};

impl Session {
    /// What attaches the next set of probes from another thread; `None` on kernels without multi links.
    pub fn next_attacher(&self) -> Option<Attacher> {
        (!self.multi.is_empty()).then(|| Attacher {
            programs: self.multi.clone(),
            plans: self.plans.clone(),
            generation: self.control.next_generation(),
        })
    }

    /// Attaches a file's sites of the next set of probes, which does not count yet.
    ///
    /// # Errors
    /// As for [`attach`](Self::attach).
    pub fn attach_next(
        &mut self,
        module: &Module,
        sites: &[Site],
        scope: Scope,
    ) -> Result<Vec<Attached>> {
        self.attach_as(self.control.next_generation(), module, sites, scope)
    }

    pub(super) fn attach_as(
        &mut self,
        generation: u8,
        module: &Module,
        sites: &[Site],
        scope: Scope,
    ) -> Result<Vec<Attached>> {
        if !self.multi.is_empty() {
            let programs = self.multi.clone();
            return Attacher {
                programs,
                plans: self.plans.clone(),
                generation,
            }
            .attach(module, sites, scope);
        }
        self.load_for(sites)?;
        let scope = match scope {
            Scope::AllProcesses => UProbeScope::AllProcesses,
            Scope::OneProcess(pid) => UProbeScope::OneProcess(
                NonZeroU32::new(pid)
                    .ok_or_else(|| Error::Usage("0 is not a process id".to_owned()))?,
            ),
        };
        let path = module.kernel_path();
        let mut attached = Vec::new();
        for program in Program::ALL {
            for site in links::sites_of(program, sites, generation) {
                let uprobe = self.uprobe(program)?;
                let point = UProbeAttachPoint {
                    location: UProbeAttachLocation::AbsoluteOffset(site.offset),
                    cookie: Some(site.cookie),
                };
                let link = uprobe
                    .attach(point, &path, scope)
                    .and_then(|id| uprobe.take_link(id));
                match link {
                    Ok(link) => attached.push(Attached {
                        program,
                        link: Link::Perf(link),
                        key: module.key,
                    }),
                    Err(error) => {
                        links::detach(attached);
                        return Err(links::refused(module, &chain(&error)));
                    }
                }
            }
        }
        Ok(attached)
    }

    /// From now on the set of probes counts that `next` is; the one before is detached: its beginnings
    /// in the background, its ends when [`settle_retired`](Self::settle_retired) finds no call open.
    ///
    /// # Errors
    /// Where the kernel side can't be told; then everything is as before.
    pub fn change_over(&mut self, next: Vec<Attached>) -> Result<()> {
        // Generations are counted modulo 4: of old beginnings there may be one set at most.
        if let Some(releasing) = self.releasing.take() {
            let _ = releasing.join();
        }
        let before = self.control.generation;
        self.control.generation = self.control.next_generation().into();
        if let Err(error) = self.tell() {
            self.control.generation = before;
            thread::spawn(move || links::detach(next));
            return Err(error);
        }
        let next = self.without_removed(next);
        let old = std::mem::replace(&mut self.links, next);
        // What watches the unwinder belongs to no set.
        let (of_spans, unwinders): (Vec<_>, Vec<_>) = old
            .into_iter()
            .partition(|attached| attached.program.is_of_set());
        self.links.extend(unwinders);
        let (enters, ends): (Vec<_>, Vec<_>) = of_spans
            .into_iter()
            .partition(|attached| attached.program.is_entry());
        self.releasing = Some(thread::spawn(move || links::release(enters)));
        self.retired.push((before as u8, ends));
        Ok(())
    }

    /// Detaches the ends of earlier sets of probes that no open call needs any more.
    pub fn settle_retired(&mut self) {
        if self.retired.is_empty() {
            return;
        }
        let mut open = [false; 4];
        let read = self.for_each_open(|frame| {
            if let Some(place) = open.get_mut(usize::from(frame.generation)) {
                *place = true;
            }
        });
        if read.is_err() {
            return;
        }
        let (keep, done): (Vec<_>, Vec<_>) = std::mem::take(&mut self.retired)
            .into_iter()
            .partition(|(generation, _)| open.get(usize::from(*generation)) == Some(&true));
        self.retired = keep;
        if !done.is_empty() {
            thread::spawn(move || {
                links::release(done.into_iter().flat_map(|(_, ends)| ends).collect())
            });
        }
    }
}
