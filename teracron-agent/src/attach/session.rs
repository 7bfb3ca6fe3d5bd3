//! A loaded kernel side, and what is attached of it.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    os::fd::{AsRawFd as _, OwnedFd},
    thread,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap as EbpfHashMap, MapData, PerCpuArray, RingBuf},
    programs::{
        RawTracePoint, UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope},
    },
};
use teracron_common::{
    Counters, KernelConfig, Sampling, SpanRecord, ThreadState,
    config::{FileId, SPAN_MEMORY_TYPED},
    counters::COUNTERS,
    thread::FRAME_OPEN,
};

use super::{
    Btf, Features,
    multi::{self, MultiProgram, MultiSite},
};
use crate::{
    error::{Context as _, Error, Result},
    probe::{Program, Site},
    target::Module,
};

/// The kernel side, built from `teracron-ebpf` by `cargo xtask build-ebpf`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../teracron-ebpf/teracron-ebpf.o");

/// Threads that detach perf events side by side: each waits for the kernel, none computes.
const DETACHERS: usize = 64;

/// Which processes a probe reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every process that maps the file; the kernel side ignores those that are not targets. It is
    /// the only way to see a forked child's first call.
    AllProcesses,
    /// One process.
    OneProcess(u32),
}

enum Link {
    Multi(OwnedFd),
    Perf(UProbeLink),
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
pub struct OpenFrame(pub SpanRecord);

/// A loaded kernel side. Dropping it detaches everything.
pub struct Session {
    ebpf: Ebpf,
    multi: HashMap<&'static str, MultiProgram>,
    features: Features,
    links: Vec<(Program, Link)>,
    statistics: Option<OwnedFd>,
    span_memory: bool,
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
    pub fn load(features: Features, scope: Scope, options: Options) -> Result<Self> {
        raise_file_limit();
        let offsets = Btf::from_kernel()
            .and_then(|btf| btf.kernel_config())
            .map_err(|error| Error::Missing(format!("{error}; run `teracron-agent doctor`")))?;
        let config = KernelConfig {
            follow_forks: u32::from(options.follow),
            debug: u32::from(options.debug),
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
        let use_multi = match scope {
            Scope::AllProcesses => features.multi_link,
            Scope::OneProcess(_) => features.multi_link_by_process,
        };
        let mut session = Self {
            ebpf,
            multi: HashMap::new(),
            features,
            links: Vec::new(),
            statistics: None,
            span_memory: config.span_memory != 0,
        };
        session.sample(options.sample_rate)?;
        session.watch_processes()?;
        if use_multi {
            let names: Vec<&'static str> = Program::ALL.map(Program::name).to_vec();
            match multi::load_programs(OBJECT, &session.ebpf, &names) {
                Ok(programs) => session.multi = programs,
                Err(error) => log::debug!("no multi links: {error}"),
            }
        }
        if session.multi.is_empty() {
            for program in Program::ALL {
                session
                    .uprobe(program)?
                    .load()
                    .map_err(|error| refused(program.name(), &error))?;
            }
        }
        Ok(session)
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
        let mut sampling: Array<&mut MapData, Sampling> = self.map_mut("SAMPLING")?;
        sampling
            .set(0, Sampling::of(rate), 0)
            .failed(|| "cannot set the sampling rate".to_owned())
    }

    /// Features of the kernel.
    pub fn features(&self) -> Features {
        self.features
    }

    fn uprobe(&mut self, program: Program) -> Result<&mut UProbe> {
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
        Ok(())
    }

    /// Attaches the sites of a file, the ends before the beginnings.
    ///
    /// # Errors
    /// Where the kernel refuses one; what was attached of the file by then is detached again.
    pub fn attach(&mut self, module: &Module, sites: &[Site], scope: Scope) -> Result<()> {
        let before = self.links.len();
        let result = self.attach_all(module, sites, scope);
        if result.is_err() {
            let links = self.links.split_off(before);
            release(links);
        }
        result
    }

    fn attach_all(&mut self, module: &Module, sites: &[Site], scope: Scope) -> Result<()> {
        let path = module.kernel_path();
        let what = |error: &dyn std::fmt::Display| {
            format!(
                "the kernel refused a probe in {}: {error}",
                crate::text::shown(&module.path)
            )
        };
        for program in Program::ALL {
            let of_program: Vec<MultiSite> = sites
                .iter()
                .filter(|site| site.program == program)
                .map(|site| MultiSite {
                    offset: site.offset,
                    cookie: site.cookie,
                })
                .collect();
            if of_program.is_empty() {
                continue;
            }
            if let Some(loaded) = self.multi.get(program.name()) {
                let pid = match scope {
                    Scope::AllProcesses => 0,
                    Scope::OneProcess(pid) => pid,
                };
                let on_return = program == Program::SpanReturn;
                let link = loaded
                    .attach(&path, &of_program, pid, on_return)
                    .map_err(|error| Error::Failed(what(&error)))?;
                self.links.push((program, Link::Multi(link)));
                continue;
            }
            let scope = match scope {
                Scope::AllProcesses => UProbeScope::AllProcesses,
                Scope::OneProcess(pid) => UProbeScope::OneProcess(
                    NonZeroU32::new(pid)
                        .ok_or_else(|| Error::Usage("0 is not a process id".to_owned()))?,
                ),
            };
            for site in of_program {
                let uprobe = self.uprobe(program)?;
                let point = UProbeAttachPoint {
                    location: UProbeAttachLocation::AbsoluteOffset(site.offset),
                    cookie: Some(site.cookie),
                };
                let link = uprobe
                    .attach(point, &path, scope)
                    .and_then(|id| uprobe.take_link(id))
                    .map_err(|error| Error::Failed(what(&chain(&error))))?;
                self.links.push((program, Link::Perf(link)));
            }
        }
        Ok(())
    }

    /// Traces a process from now on.
    pub fn add_target(&mut self, pid: u32) -> Result<()> {
        let mut targets: EbpfHashMap<&mut MapData, u32, u32> = self.map_mut("TARGETS")?;
        targets
            .insert(pid, 1, 0)
            .failed(|| format!("cannot trace process {pid}"))
    }

    /// Traces no more processes.
    fn clear_targets(&mut self) -> Result<()> {
        let mut targets: EbpfHashMap<&mut MapData, u32, u32> = self.map_mut("TARGETS")?;
        let pids: Vec<u32> = targets.keys().flatten().collect();
        for pid in pids {
            let _ = targets.remove(&pid);
        }
        Ok(())
    }

    /// Traces every process that runs this file from now on.
    pub fn add_executable(&mut self, file: FileId) -> Result<()> {
        let mut executables: EbpfHashMap<&mut MapData, FileId, u32> =
            self.map_mut("EXECUTABLES")?;
        executables
            .insert(file, 1, 0)
            .failed(|| "cannot watch for new processes of an executable".to_owned())
    }

    fn map_mut<'a, M>(&'a mut self, name: &str) -> Result<M>
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
        let map = self
            .ebpf
            .map("COUNTERS")
            .ok_or_else(|| Error::Failed("the eBPF object has no map COUNTERS".to_owned()))?;
        let counters: PerCpuArray<&MapData, u64> = map
            .try_into()
            .failed(|| "the eBPF map COUNTERS".to_owned())?;
        let mut total = Counters::default();
        for index in 0..COUNTERS {
            let values = counters
                .get(&index, 0)
                .failed(|| "cannot read the kernel's counters".to_owned())?;
            if let Some(place) = total.0.get_mut(index as usize) {
                *place = values.iter().sum();
            }
        }
        Ok(total)
    }

    /// Calls that are open now.
    pub fn open_frames(&self) -> Result<Vec<OpenFrame>> {
        let map = self
            .ebpf
            .map("THREADS")
            .ok_or_else(|| Error::Failed("the eBPF object has no map THREADS".to_owned()))?;
        let threads: EbpfHashMap<&MapData, u64, ThreadState> = map
            .try_into()
            .failed(|| "the eBPF map THREADS".to_owned())?;
        let mut open = Vec::new();
        for key in threads.keys().flatten() {
            let Ok(state) = threads.get(&key, 0) else {
                continue;
            };
            let depth = state.depth as usize;
            open.extend(
                state
                    .frames
                    .iter()
                    .take(depth)
                    .filter(|frame| frame.state == FRAME_OPEN && frame.unsampled == 0)
                    .map(|frame| OpenFrame(frame.record)),
            );
        }
        Ok(open)
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
        let fd = match self.multi.get(program.name()) {
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
        detach_links(std::mem::take(&mut self.links));
        let _ = self.clear_targets();
    }

    /// The same in a thread of its own: the kernel takes a while, and records come meanwhile.
    pub fn detach_in_background(&mut self) -> thread::JoinHandle<()> {
        let links = std::mem::take(&mut self.links);
        thread::spawn(move || detach_links(links))
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

fn detach_links(links: Vec<(Program, Link)>) {
    let (enters, others): (Vec<_>, Vec<_>) = links
        .into_iter()
        .partition(|(program, _)| *program == Program::SpanEnter);
    release(enters);
    release(others);
}

/// Detaches. The kernel waits for each perf event alone, so many are released at a time.
fn release(links: Vec<(Program, Link)>) {
    let mut piles: Vec<Vec<UProbeLink>> = (0..DETACHERS).map(|_| Vec::new()).collect();
    for (place, (_, link)) in links.into_iter().enumerate() {
        match link {
            Link::Multi(fd) => drop(fd),
            Link::Perf(link) => piles[place % DETACHERS].push(link),
        }
    }
    thread::scope(|scope| {
        for pile in piles.into_iter().filter(|pile| !pile.is_empty()) {
            scope.spawn(move || drop(pile));
        }
    });
}

fn refused(name: &str, error: &dyn std::error::Error) -> Error {
    Error::Missing(format!(
        "the kernel refused the program {name}: {}; run `teracron-agent doctor`",
        chain(error)
    ))
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
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
    if text.len() > 4000 {
        let end = (0..=4000).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
    }
    text
}

/// A perf event per site may need more descriptors than the usual limit.
fn raise_file_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a valid pointer to a local.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0 {
        limit.rlim_cur = limit.rlim_max.clamp(1024, 262_144);
        limit.rlim_max = limit.rlim_max.max(limit.rlim_cur);
        // SAFETY: as above.
        let _ = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    }
}
