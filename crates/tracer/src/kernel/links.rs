//! Programs on sites: attaching, and detaching in an order that loses nothing.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, mpsc},
    thread,
};

use aya::programs::uprobe::UProbeLink;
use teracron_common::EnterCookie;

use super::{
    Scope,
    background::{self, AtWork},
    load::groups_of,
    multi::{MultiPrograms, MultiSite},
    plans::Plans,
    programs::KernelProgram,
};
use image::{FileKey, Image};
use model::error::{Error, Result};
use planner::probe::{ProbeTable, Program, Site};

/// Threads that detach perf events side by side: each waits for the kernel, none computes.
const DETACHERS: usize = 64;

/// What holds a program on its sites.
pub enum Link {
    /// Many sites of a file.
    Multi(OwnedFd),
    /// One site, on kernels before 6.6.
    Perf(UProbeLink),
}

/// A program on sites; dropping it detaches, without regard to the order.
pub struct Attached {
    /// The program.
    pub program: &'static KernelProgram,
    /// The file that the sites lie in.
    pub key: FileKey,
    /// Which processes it reaches.
    pub scope: Scope,
    /// What holds it.
    pub link: Link,
}

impl Attached {
    /// Whether it belongs to a set of probes, and to this process alone.
    pub(crate) fn is_of_set_of(&self, pid: u32) -> bool {
        self.scope == Scope::OneProcess(pid) && self.program.is_of_set()
    }
}

/// Puts programs on sites through multi links, from any thread.
#[derive(Clone)]
pub struct Attacher {
    /// Loaded programs.
    pub(super) programs: Arc<MultiPrograms>,
    /// Capture plans.
    pub(super) plans: Arc<Plans>,
    /// Of the set of probes that is being attached.
    pub generation: u8,
}

impl Attacher {
    /// Gives the kernel side the capture plans that it does not have yet.
    ///
    /// # Errors
    /// Where the kernel refuses a program or has no room for a plan.
    pub fn add_plans(&self, table: &ProbeTable) -> Result<()> {
        self.plans.add(table)
    }

    /// Attaches the sites of a file, the ends before the beginnings.
    ///
    /// # Errors
    /// Where the kernel refuses one; what was attached of the file by then is detached again.
    pub fn attach(&self, module: &Image, sites: &[Site], scope: Scope) -> Result<Vec<Attached>> {
        let _at_work = AtWork::begin();
        for group in groups_of(sites) {
            self.programs.load(group)?;
        }
        let mut attached = Vec::new();
        let pid = match scope {
            Scope::AllProcesses => 0,
            Scope::OneProcess(pid) => pid,
        };
        for (on_site, program) in KernelProgram::on_sites() {
            let sites = sites_of(on_site, sites, self.generation);
            if sites.is_empty() {
                continue;
            }
            let in_multi_link = program.in_multi_link();
            let Some(loaded) = in_multi_link.and_then(|program| self.programs.get(program)) else {
                return Err(refused(module, &"its program is not loaded"));
            };
            let on_return = program.is_return_probe();
            match loaded.attach(&module.kernel_path(), &sites, pid, on_return) {
                Ok(link) => attached.push(Attached {
                    program,
                    key: module.key,
                    scope,
                    link: Link::Multi(link),
                }),
                Err(error) => {
                    detach(attached);
                    return Err(refused(module, &error));
                }
            }
        }
        Ok(attached)
    }
}

/// A set of probes that is on its way: it is detached where nobody takes it.
pub struct NextSet {
    links: Vec<Attached>,
    _at_work: AtWork,
}

impl NextSet {
    /// Nothing is attached yet.
    pub fn begin() -> Self {
        Self {
            links: Vec::new(),
            _at_work: AtWork::begin(),
        }
    }

    /// With these, too.
    pub fn add(&mut self, links: Vec<Attached>) {
        self.links.extend(links);
    }

    /// Takes what is attached.
    pub fn take(mut self) -> Vec<Attached> {
        std::mem::take(&mut self.links)
    }
}

impl Drop for NextSet {
    fn drop(&mut self) {
        detach(std::mem::take(&mut self.links));
    }
}

/// The sites of one program, as those of a set of probes.
pub(super) fn sites_of(program: Program, sites: &[Site], generation: u8) -> Vec<MultiSite> {
    sites
        .iter()
        .filter(|site| site.program == program)
        .map(|site| MultiSite {
            offset: site.offset,
            cookie: if KernelProgram::of(program).is_entry() {
                let cookie = EnterCookie::unpack(site.cookie);
                EnterCookie {
                    generation,
                    ..cookie
                }
                .pack()
            } else {
                site.cookie
            },
        })
        .collect()
}

/// The kernel did not take a probe.
pub(super) fn refused(module: &Image, error: &dyn std::fmt::Display) -> Error {
    Error::Failed(format!(
        "the kernel refused a probe in {}: {error}",
        model::text::shown(&module.path)
    ))
}

/// Detaches in a thread of its own, one batch after the other: the kernel takes 2 to 40 ms for a link, and the reader
/// must not wait for it.
#[derive(Default)]
pub(super) struct Releaser(Option<mpsc::Sender<Vec<Attached>>>);

impl Releaser {
    /// Detaches soon, the beginnings first.
    pub(super) fn release(&mut self, links: Vec<Attached>) {
        if links.is_empty() {
            return;
        }
        let queue = self.0.get_or_insert_with(start_releasing);
        // No thread was to be had: then it is done here.
        if let Err(mpsc::SendError(links)) = queue.send(links) {
            self.0 = None;
            detach(links);
        }
    }
}

fn start_releasing() -> mpsc::Sender<Vec<Attached>> {
    let (sender, receiver) = mpsc::channel::<Vec<Attached>>();
    background::detaching("teracron-detach", move || {
        while let Ok(mut links) = receiver.recv() {
            // What came meanwhile shares the wait.
            links.extend(receiver.try_iter().flatten());
            detach(links);
        }
    });
    sender
}

/// Detaches, the beginnings first, so that every call that was seen can still end.
pub(super) fn detach(links: Vec<Attached>) {
    let (enters, others): (Vec<_>, Vec<_>) = links
        .into_iter()
        .partition(|attached| attached.program.is_entry());
    release(enters);
    release(others);
}

/// Detaches. The kernel waits for each link alone, so many are released at a time.
pub(super) fn release(links: Vec<Attached>) {
    let mut piles: Vec<Vec<Link>> = (0..DETACHERS).map(|_| Vec::new()).collect();
    for (place, attached) in links.into_iter().enumerate() {
        if let Some(pile) = piles.get_mut(place % DETACHERS) {
            pile.push(attached.link);
        }
    }
    thread::scope(|scope| {
        for pile in piles.into_iter().filter(|pile| !pile.is_empty()) {
            // Where the system gives no thread, the pile is dropped here.
            let _ = thread::Builder::new().spawn_scoped(scope, move || drop(pile));
        }
    });
}
