//! Keeping the breakpoints of a process whose main thread has ended.
//!
//! A multi link for a process knows it by its main thread, whose memory is gone when that has ended: the programs still run,
//! but when anybody lets go of a probe on the same instruction, for whatever process, the kernel finds nobody who wants
//! the breakpoint there and takes it out. Perf events that see nothing, by a thread that lives, want it.

use std::collections::BTreeSet;

use super::{
    Scope, Session,
    links::{Attached, Link},
    multi::MultiSite,
    programs::{Group, KernelProgram},
};
use image::Image;
use model::error::Result;
use planner::probe::{Program, Site};

impl Session {
    /// Whether what is attached to a process is tied to one of its threads, so that it can't be held by another.
    pub fn is_tied(&self, pid: u32) -> bool {
        let holder = KernelProgram::of(Program::Hold);
        !self.features().multi_link_by_process
            || self.links.iter().any(|attached| {
                attached.scope == Scope::OneProcess(pid)
                    && attached.program != holder
                    && matches!(attached.link, Link::Perf(_))
            })
    }

    /// Takes what holds a process's breakpoints.
    pub fn take_holders(&mut self, pid: u32) -> Vec<Attached> {
        let holder = KernelProgram::of(Program::Hold);
        self.take_where(|attached| {
            attached.program == holder && attached.scope == Scope::OneProcess(pid)
        })
    }

    /// Lets go of them, when others are there.
    pub fn let_go(&mut self, links: Vec<Attached>) {
        self.releaser.release(links);
    }

    /// Holds a process's breakpoints in a file by one of its threads.
    ///
    /// # Errors
    /// Where the kernel refuses it; then there is nothing more there than before.
    pub fn hold(&mut self, pid: u32, tid: u32, module: &Image, sites: &[Site]) -> Result<()> {
        self.load_group(Group::Hold)?;
        let offsets: BTreeSet<u64> = sites.iter().map(|site| site.offset).collect();
        let sites = offsets
            .into_iter()
            .map(|offset| (Program::Hold, MultiSite { offset, cookie: 0 }));
        let held = self.attach_perf(module, sites, Scope::OneProcess(pid), tid)?;
        self.links.extend(held);
        Ok(())
    }
}
