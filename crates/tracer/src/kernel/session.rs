//! A loaded kernel side, and what is attached of it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::Arc,
    thread,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, PerCpuArray, Queue, RingBuf},
    programs::{RawTracePoint, UProbe},
};
use rustix::process::{Resource, getrlimit, setrlimit};
use teracron_common::{
    Ahead, Control, Counter, Counters, KernelConfig, Sampling, SpanRecord,
    config::SPAN_MEMORY_TYPED, counters::COUNTERS, sampling,
};

use super::{
    Btf, Features,
    ahead::Drawer,
    background::detaching,
    links::{self, Attached, Releaser},
    multi::{self, MultiProgram},
    plans::{Plans, groups_of},
};
use crate::process::Layouts;
use image::{FileKey, Image};
use model::{
    Polls,
    error::{Context as _, Error, Result},
};
use planner::probe::{Group, ProbeTable, Program, Site};

/// The kernel side, built from `teracron-ebpf` by `cargo xtask build-ebpf`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../teracron-ebpf/teracron-ebpf.o");

/// Which processes a probe reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every process that maps the file, now or later; the kernel side ignores those that are not targets. Only where
    /// the user names the file: strangers get the breakpoints, too.
    AllProcesses,
    /// One process.
    OneProcess(u32),
}

/// Time that the kernel spent in a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelCost {
    /// Runs that were timed.
    pub runs: u64,
    /// Nanoseconds.
    pub nanoseconds: u64,
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
    pub(super) multi: Arc<HashMap<&'static str, MultiProgram>>,
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
    statistics: Option<OwnedFd>,
    span_memory: bool,
    /// Capture plans that the kernel side has.
    pub(super) plans: Arc<Plans>,
    /// Groups of programs that are loaded for perf events.
    perf_groups: Vec<Group>,
}

/// What the kernel side is told when it is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Children of a traced process are traced too.
    pub follow: bool,
    /// The kernel side writes a debug log.
    pub debug: bool,
    /// Spans carry what they did to the process's memory, where the kernel can tell.
    pub span_memory: bool,
    /// Share of traces that are kept.
    pub sample_rate: f64,
}

impl Session {
    /// Loads the kernel side and attaches what watches processes.
    ///
    /// # Errors
    /// Where the kernel lacks something, or the privileges are missing.
    pub fn load(features: Features, options: Options) -> Result<Self> {
        raise_file_limit();
        let offsets = Btf::from_kernel()
            .and_then(|btf| btf.kernel_config())
            .map_err(|error| Error::Missing(format!("{error}; run `teracron-agent doctor`")))?;
        let config = KernelConfig {
            follow_forks: u32::from(options.follow),
            debug: u32::from(options.debug),
            loops: u32::from(features.loops),
            span_memory: match (options.span_memory, features.typed_pointers) {
                (false, _) => 0,
                (true, false) => offsets.span_memory,
                (true, true) => offsets.span_memory * SPAN_MEMORY_TYPED,
            },
            ..offsets
        };
        let ebpf = EbpfLoader::new()
            .override_global("CONFIG", &config, true)
            .load(OBJECT)
            .map_err(|error| {
                Error::Missing(format!(
                    "the kernel refused the agent's eBPF maps: {}; run `teracron-agent doctor`",
                    chain(&error)
                ))
            })?;
        let plans = multi::descriptors(&ebpf)
            .map(|descriptors| Arc::new(Plans::new(descriptors)))
            .failed(|| "cannot keep the eBPF maps".to_owned())?;
        let mut session = Self {
            ebpf,
            multi: Arc::default(),
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
            plans,
            perf_groups: Vec::new(),
        };
        session.sample(options.sample_rate)?;
        session.watch_processes()?;
        if features.multi_link {
            let descriptors = session.plans.descriptors();
            match multi::load_programs(OBJECT, descriptors, |program| {
                program.group() == Group::Always
            }) {
                Ok(programs) => session.multi = Arc::new(programs),
                Err(error) => log::debug!("no multi links: {error}"),
            }
        }
        if session.multi.is_empty() || !features.multi_link_by_process {
            session.load_group(Group::Always)?;
        }
        Ok(session)
    }

    /// Loads programs for perf events.
    fn load_perf(&mut self, wanted: impl Fn(Program) -> bool) -> Result<()> {
        for program in Program::ALL.into_iter().filter(|program| wanted(*program)) {
            self.uprobe(program)?
                .load()
                .map_err(|error| refused(program.name(), &error))?;
        }
        Ok(())
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
        self.plans.set_spawning(table, true)
    }

    /// Calls of probes' functions that were counted where they were inlined.
    ///
    /// # Errors
    /// Where the counts can't be read.
    pub fn inlined_calls(&self, probes: &BTreeSet<u32>) -> Result<Vec<(u32, u64)>> {
        self.plans.inlined_calls(probes)
    }

    /// Loads the programs that only some runs need, too: what a kernel can do.
    ///
    /// # Errors
    /// Where the kernel refuses one.
    pub fn load_all(&mut self) -> Result<()> {
        for group in [Group::Capture, Group::Go, Group::Spawn, Group::Future] {
            if self.multi.is_empty() {
                self.load_group(group)?;
            } else {
                self.plans.load_multi(group)?;
            }
        }
        self.load_group(Group::Hold)
    }

    /// Loads the programs that sites need, for perf events.
    pub(super) fn load_for(&mut self, sites: &[Site]) -> Result<()> {
        self.load_group(Group::Always)?;
        for group in groups_of(sites) {
            self.load_group(group)?;
        }
        Ok(())
    }

    /// Loads a group of programs for perf events, once.
    pub(super) fn load_group(&mut self, group: Group) -> Result<()> {
        if !self.perf_groups.contains(&group) {
            self.load_perf(|program| program.group() == group)?;
            self.perf_groups.push(group);
        }
        Ok(())
    }

    /// Whether multi links are in use.
    pub fn uses_multi_links(&self) -> bool {
        !self.multi.is_empty()
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
        let value = self.control;
        let mut control: Array<&mut MapData, Control> = self.map_mut("CONTROL")?;
        control
            .set(0, value, 0)
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
        let map = self
            .ebpf
            .map_mut("AHEAD")
            .ok_or_else(|| Error::Failed("the eBPF object has no map AHEAD".to_owned()))?;
        let mut queue: Queue<&mut MapData, Ahead> =
            map.try_into().failed(|| "the eBPF map AHEAD".to_owned())?;
        self.drawer
            .fill(Sampling { threshold, mode }, epoch, |ahead| {
                queue.push(ahead, 0).is_ok()
            });
        Ok(())
    }

    /// Features of the kernel.
    pub fn features(&self) -> Features {
        self.features
    }

    pub(super) fn uprobe(&mut self, program: Program) -> Result<&mut UProbe> {
        self.ebpf
            .program_mut(program.name())
            .and_then(|loaded| loaded.try_into().ok())
            .ok_or_else(|| Error::Failed(format!("the eBPF object has no {}", program.name())))
    }

    fn watch_processes(&mut self) -> Result<()> {
        for (name, tracepoint) in [
            ("process_fork", "sched_process_fork"),
            ("process_exec", "sched_process_exec"),
            ("process_exit", "sched_process_exit"),
        ] {
            let program: &mut RawTracePoint = self
                .ebpf
                .program_mut(name)
                .and_then(|loaded| loaded.try_into().ok())
                .ok_or_else(|| Error::Failed(format!("the eBPF object has no {name}")))?;
            program.load().map_err(|error| refused(name, &error))?;
            program.attach(tracepoint).map_err(|error| {
                Error::Missing(format!(
                    "cannot attach to the kernel's {tracepoint}: {}",
                    chain(&error)
                ))
            })?;
        }
        if let Err(error) = self.watch_deaths() {
            log::debug!("no addresses of deaths: {error}");
        }
        Ok(())
    }

    /// What tells where a process dies; without it that it died is still known.
    fn watch_deaths(&mut self) -> std::result::Result<(), String> {
        let program: &mut RawTracePoint = self
            .ebpf
            .program_mut("process_signal")
            .and_then(|loaded| loaded.try_into().ok())
            .ok_or("the eBPF object has no process_signal")?;
        program.load().map_err(|error| chain(&error))?;
        program
            .attach("signal_deliver")
            .map(drop)
            .map_err(|error| chain(&error))
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

    pub(super) fn map_mut<'a, M>(&'a mut self, name: &str) -> Result<M>
    where
        M: TryFrom<&'a mut aya::maps::Map>,
        M::Error: std::fmt::Display,
    {
        self.ebpf
            .map_mut(name)
            .ok_or_else(|| Error::Failed(format!("the eBPF object has no map {name}")))?
            .try_into()
            .failed(|| format!("the eBPF map {name}"))
    }

    /// Takes a ring buffer to read from: `SPANS` or `EVENTS`.
    pub fn take_ring(&mut self, name: &str) -> Result<RingBuf<MapData>> {
        let map = self
            .ebpf
            .take_map(name)
            .ok_or_else(|| Error::Failed(format!("the eBPF object has no ring buffer {name}")))?;
        RingBuf::try_from(map).failed(|| format!("the ring buffer {name}"))
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
        let map = self
            .ebpf
            .map("COUNTERS")
            .ok_or_else(|| Error::Failed("the eBPF object has no map COUNTERS".to_owned()))?;
        let counters: PerCpuArray<&MapData, u64> = map
            .try_into()
            .failed(|| "the eBPF map COUNTERS".to_owned())?;
        let values = counters
            .get(&index, 0)
            .failed(|| "cannot read the kernel's counters".to_owned())?;
        Ok(values.iter().sum())
    }

    /// Starts or stops the kernel's own timing of programs, which costs some itself.
    pub fn time_programs(&mut self, on: bool) {
        self.statistics = if on {
            aya::sys::enable_stats(aya::sys::Stats::RunTime).ok()
        } else {
            None
        };
    }

    /// Time spent in a program so far while timing was on.
    pub fn cost(&self, program: Program) -> KernelCost {
        let name = program.multi_name();
        let fd = match self.multi.get(name).or_else(|| self.plans.program(name)) {
            Some(loaded) => Some(loaded.fd().as_raw_fd()),
            None => self
                .ebpf
                .program(program.name())
                .and_then(|loaded| loaded.fd().ok())
                .map(|fd| {
                    use std::os::fd::AsFd as _;
                    fd.as_fd().as_raw_fd()
                }),
        };
        let Some(text) =
            fd.and_then(|fd| std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok())
        else {
            return KernelCost::default();
        };
        let value = |name: &str| {
            text.lines()
                .find_map(|line| {
                    line.strip_prefix(name)?
                        .strip_prefix(':')?
                        .trim()
                        .parse()
                        .ok()
                })
                .unwrap_or(0)
        };
        KernelCost {
            runs: value("run_cnt"),
            nanoseconds: value("run_time_ns"),
        }
    }

    /// Detaches everything, the beginnings first, so that every call that was seen can still end.
    pub fn detach(&mut self) {
        links::detach(self.take_links());
        let _ = self.clear_targets();
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

fn refused(name: &str, error: &dyn std::error::Error) -> Error {
    Error::Missing(format!(
        "the kernel refused the program {name}: {}; run `teracron-agent doctor`",
        chain(error)
    ))
}

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    // Of the verifier's output the first words say what it is, the last ones what is wrong.
    const HEAD: usize = 300;
    const TAIL: usize = 2000;
    if text.len() > HEAD + TAIL {
        let head = text.floor_char_boundary(HEAD);
        let tail = text.ceil_char_boundary(text.len() - TAIL);
        text = format!("{} [...] {}", &text[..head], &text[tail..]);
    }
    text
}

/// A perf event per site may need more descriptors than the usual limit.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(MOST_FILES).clamp(1024, MOST_FILES);
    limit.current = Some(most);
    limit.maximum = limit.maximum.map(|maximum| maximum.max(most));
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Descriptors that are asked for.
const MOST_FILES: u64 = 262_144;
