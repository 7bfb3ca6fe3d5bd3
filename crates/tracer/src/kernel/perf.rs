//! Attaching by perf events: one for a site, and to a process by one of its threads.

use std::num::NonZeroU32;

use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeScope};

use super::{
    Scope, Session,
    links::{self, Attached, Link},
    load::chain,
    multi::MultiSite,
    programs::KernelProgram,
};
use image::Image;
use model::error::{Error, Result};
use planner::probe::Program;

impl Session {
    /// Attaches loaded programs to sites of a file. A process is reached by the thread `tid`, and is tied to it from then
    /// on.
    ///
    /// # Errors
    /// Where the kernel refuses one; what was attached by then is detached again.
    pub(super) fn attach_perf(
        &mut self,
        module: &Image,
        sites: impl Iterator<Item = (Program, MultiSite)>,
        scope: Scope,
        tid: u32,
    ) -> Result<Vec<Attached>> {
        let reached = match scope {
            Scope::AllProcesses => UProbeScope::AllProcesses,
            Scope::OneProcess(pid) => {
                self.tie(pid, tid);
                UProbeScope::OneProcess(
                    NonZeroU32::new(tid)
                        .ok_or_else(|| Error::Usage("0 is not a process id".to_owned()))?,
                )
            }
        };
        let path = module.kernel_path();
        let mut attached = Vec::new();
        for (program, site) in sites {
            let program = KernelProgram::of(program);
            let uprobe = self.uprobe(program)?;
            let point = UProbeAttachPoint {
                location: UProbeAttachLocation::AbsoluteOffset(site.offset),
                cookie: Some(site.cookie),
            };
            let link = uprobe
                .attach(point, &path, reached)
                .and_then(|id| uprobe.take_link(id));
            match link {
                Ok(link) => attached.push(Attached {
                    program,
                    key: module.key,
                    scope,
                    link: Link::Perf(link),
                }),
                Err(error) => {
                    links::detach(attached);
                    return Err(links::refused(module, &chain(&error)));
                }
            }
        }
        Ok(attached)
    }
}
