//! A loaded kernel side, and what is attached of it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    os::fd::OwnedFd,
    sync::Arc,
    thread,
};

use aya::Ebpf;
use teracron_common::{
    Control, Counter, Counters, ProbeId, Sampling, SpanRecord, counters::COUNTERS, sampling,
};

use super::{
    Features, Options, Rings,
    ahead::Drawer,
    background::detaching,
    links::{self, Attached, Releaser},
    load,
    maps::{self, Maps},
    multi::MultiPrograms,
    plans::Plans,
    programs::Group,
};
use crate::process::Layouts;
use image::{FileKey, Image};
use model::{
    Polls,
    error::{Context as _, Result},
};
use planner::probe::{ProbeTable, Site};

/// Which processes a probe reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every process that maps the file, now or later; the kernel side ignores those that are not targets. Only where
    /// the user names the file: strangers get the breakpoints, too.
    AllProcesses,
    /// One process.
    OneProcess(u32),
}

/// A call that was still open when the agent stopped.
pub struct OpenFrame {
    /// Its record so far.
    pub record: SpanRecord,
    /// How it was polled, for a future that waits.
    pub polls: Option<Polls>,
}

/// A loaded kernel side. Dropping it detaches everything.
pub struct Session {
    pub(super) ebpf: Ebpf,
    pub(super) maps: Maps,
    /// Until somebody takes them.
    rings: Option<Rings>,
    /// Programs that are loaded for multi links.
    pub(super) multi: Arc<MultiPrograms>,
    features: Features,
    pub(super) links: Vec<Attached>,
    /// Ends of earlier sets of probes: they stay until no call is open that one of these began.
    pub(super) retired: Vec<(u8, Vec<Attached>)>,
    /// Files that no probe is put into any more.
    pub(super) removed: HashSet<FileKey>,
    pub(super) releaser: Releaser,
    /// Detaches the beginnings of the set of probes before.
    pub(super) releasing: Option<thread::JoinHandle<()>>,
    pub(super) control: Control,
    /// By process, the thread that its probes are tied to, where they are perf events.
    pub(super) tied: HashMap<u32, u32>,
    /// Processes whose stacks are copied away and back.
    pub(super) copying: HashSet<u32>,
    pub(super) layouts: Layouts,
    drawer: Drawer,
    pub(super) statistics: Option<OwnedFd>,
    span_memory: bool,
    /// Capture plans that the kernel side has.
    pub(super) plans: Arc<Plans>,
    /// Groups of programs that are loaded for perf events.
    pub(super) perf_groups: Vec<Group>,
}

impl Session {
    /// Loads the kernel side and attaches what watches processes.
    ///
    /// # Errors
    /// Where the kernel lacks something, or the privileges are missing.
    pub fn load(features: Features, options: Options) -> Result<Self> {
        let config = load::configuration(features, options)?;
        let mut ebpf = load::object(&config)?;
        let multi = Arc::new(MultiPrograms::new(&ebpf)?);
        let (maps, plans, rings) = maps::open(&mut ebpf)?;
        let mut session = Self {
            ebpf,
            maps,
            rings: Some(rings),
            multi,
            features,
            links: Vec::new(),
            retired: Vec::new(),
            removed: HashSet::new(),
            releaser: Releaser::default(),
            releasing: None,
            control: Control::default(),
            tied: HashMap::new(),
            copying: HashSet::new(),
            layouts: Layouts::default(),
            drawer: Drawer::new(),
            statistics: None,
            span_memory: config.span_memory != 0,
            plans: Arc::new(Plans::new(plans)),
            perf_groups: Vec::new(),
        };
        session.sample(options.sample_rate)?;
        session.watch_processes()?;
        if features.multi_link
            && let Err(error) = session.multi.load(Group::Always)
        {
            log::debug!("no multi links: {error}");
        }
        if !session.uses_multi_links() || !features.multi_link_by_process {
            session.load_group(Group::Always)?;
        }
        Ok(session)
    }

    /// Gives the kernel side the capture plans that it does not have yet.
    ///
    /// # Errors
    /// Where the kernel has no room for a plan.
    pub fn add_plans(&mut self, table: &ProbeTable) -> Result<()> {
        self.plans.add(table)
    }

    /// Goroutines belong to the spans of this table's probes only.
    ///
    /// # Errors
    /// Where the kernel side can't be told.
    pub fn keep_spawning(&self, table: &ProbeTable) -> Result<()> {
        self.plans.keep_spawning(table)
    }

    /// Calls of probes' functions that were counted where they were inlined.
    pub fn inlined_calls(&self, probes: &BTreeSet<ProbeId>) -> Vec<(ProbeId, u64)> {
        self.plans.inlined_calls(probes)
    }

    /// Whether multi links are in use.
    pub fn uses_multi_links(&self) -> bool {
        self.multi.has(Group::Always)
    }

    /// Whether records say what spans did to the process's memory.
    pub fn has_span_memory(&self) -> bool {
        self.span_memory
    }

    /// Changes the share of traces that are kept; traces that are open keep their verdict.
    pub fn sample(&mut self, rate: f64) -> Result<()> {
        self.control.sample(Sampling::of(rate));
        self.tell()
    }

    /// Tells the kernel side what counts.
    pub(super) fn tell(&mut self) -> Result<()> {
        self.maps
            .control
            .set(0, self.control, 0)
            .failed(|| "cannot tell the kernel side what counts".to_owned())
    }

    /// Decides about traces to come, where only some are kept.
    pub fn draw_ahead(&mut self) -> Result<()> {
        if self.control.mode != sampling::SOME {
            return Ok(());
        }
        let taken = self.counter(Counter::AheadTaken as u32)?;
        self.drawer.took(taken);
        let Control {
            threshold,
            mode,
            epoch,
            ..
        } = self.control;
        self.drawer
            .fill(Sampling { threshold, mode }, epoch, |ahead| {
                self.maps.ahead.push(ahead, 0).is_ok()
            });
        Ok(())
    }

    /// Features of the kernel.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Attaches the sites of a file, the ends before the beginnings.
    ///
    /// # Errors
    /// Where the kernel refuses one; what was attached of the file by then is detached again.
    pub fn attach(&mut self, module: &Image, sites: &[Site], scope: Scope) -> Result<()> {
        let attached = self.attach_present(module, sites, scope)?;
        self.links.extend(attached);
        Ok(())
    }

    /// The same for [`keep`](Self::keep) to take.
    ///
    /// # Errors
    /// As for [`attach`](Self::attach).
    pub fn attach_present(
        &mut self,
        module: &Image,
        sites: &[Site],
        scope: Scope,
    ) -> Result<Vec<Attached>> {
        self.attach_as(self.generation(), module, sites, scope)
    }

    /// Takes the ring buffers to read from; once.
    pub fn take_rings(&mut self) -> Option<Rings> {
        self.rings.take()
    }

    /// The kernel side's counters, added up.
    pub fn counters(&self) -> Result<Counters> {
        let mut total = Counters::default();
        for index in 0..COUNTERS {
            if let Some(place) = total.0.get_mut(index as usize) {
                *place = self.counter(index)?;
            }
        }
        Ok(total)
    }

    /// One of them.
    fn counter(&self, index: u32) -> Result<u64> {
        let values = self
            .maps
            .counters
            .get(&index, 0)
            .failed(|| "cannot read the kernel's counters".to_owned())?;
        Ok(values.iter().sum())
    }

    /// Detaches everything, the beginnings first, so that every call that was seen can still end.
    pub fn detach(&mut self) {
        links::detach(self.take_links());
        self.clear_targets();
    }

    /// The same in a thread of its own: the kernel takes a while, and records come meanwhile.
    /// `None` where the system gave no thread: then it is done.
    pub fn detach_in_background(&mut self) -> Option<thread::JoinHandle<()>> {
        let links = self.take_links();
        detaching("teracron-detach", move || links::detach(links))
    }

    fn take_links(&mut self) -> Vec<Attached> {
        let mut links = std::mem::take(&mut self.links);
        links.extend(self.retired.drain(..).flat_map(|(_, ends)| ends));
        links
    }

    /// The eBPF object, for the logger.
    pub fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.detach();
    }
}
