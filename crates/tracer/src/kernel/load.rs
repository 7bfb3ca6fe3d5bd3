//! Loading the kernel side: the object with its maps, and programs by group.

use aya::{
    Ebpf, EbpfLoader,
    programs::{RawTracePoint, UProbe},
};
use rustix::process::{Resource, getrlimit, setrlimit};
use teracron_common::{KernelConfig, config::SPAN_MEMORY_TYPED};

use super::{
    Btf, Features, Session,
    programs::{Attach, Group, KernelProgram, PROGRAMS},
};
use model::error::{Error, Result};
use planner::probe::Site;

/// The kernel side, built from `teracron-ebpf` by `cargo xtask build-ebpf`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../teracron-ebpf/teracron-ebpf.o");

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

/// What the kernel side of a run is told of this kernel.
///
/// # Errors
/// Where the kernel does not say how its structures lie.
pub(super) fn configuration(features: Features, options: Options) -> Result<KernelConfig> {
    let offsets = Btf::from_kernel()
        .and_then(|btf| btf.kernel_config())
        .map_err(|error| Error::Missing(format!("{error}; run `teracron-agent doctor`")))?;
    Ok(KernelConfig {
        follow_forks: u32::from(options.follow),
        debug: u32::from(options.debug),
        loops: u32::from(features.loops),
        span_memory: match (options.span_memory, features.typed_pointers) {
            (false, _) => 0,
            (true, false) => offsets.span_memory,
            (true, true) => offsets.span_memory * SPAN_MEMORY_TYPED,
        },
        ..offsets
    })
}

/// Makes the object's maps; no program is loaded yet.
///
/// # Errors
/// Where the kernel refuses a map.
pub(super) fn object(config: &KernelConfig) -> Result<Ebpf> {
    raise_file_limit();
    EbpfLoader::new()
        .override_global("CONFIG", config, true)
        .load(OBJECT)
        .map_err(|error| refused("the agent's eBPF maps", &error))
}

impl Session {
    /// Loads and attaches what watches processes.
    pub(super) fn watch_processes(&mut self) -> Result<()> {
        for program in PROGRAMS {
            let Attach::Tracepoint { name, needed } = program.attach else {
                continue;
            };
            match self.watch(program, name) {
                Err(error) if needed => return Err(error),
                Err(error) => log::debug!("no {}: {error}", program.name),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn watch(&mut self, program: &KernelProgram, tracepoint: &str) -> Result<()> {
        let loaded: &mut RawTracePoint = self
            .ebpf
            .program_mut(program.name)
            .and_then(|loaded| loaded.try_into().ok())
            .ok_or_else(|| missing(program))?;
        loaded
            .load()
            .map_err(|error| refused(&format!("the program {}", program.name), &error))?;
        loaded.attach(tracepoint).map(drop).map_err(|error| {
            Error::Missing(format!(
                "cannot attach to the kernel's {tracepoint}: {}",
                chain(&error)
            ))
        })
    }

    /// Loads the programs that only some runs need, too: what a kernel can do.
    ///
    /// # Errors
    /// Where the kernel refuses one.
    pub fn load_all(&mut self) -> Result<()> {
        for group in Group::ALL {
            if self.uses_multi_links() {
                self.multi.load(group)?;
            } else {
                self.load_group(group)?;
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
        if self.perf_groups.contains(&group) {
            return Ok(());
        }
        let on_sites = |program: &&KernelProgram| matches!(program.attach, Attach::Site(..));
        for program in group.programs().filter(on_sites) {
            self.uprobe(program)?
                .load()
                .map_err(|error| refused(&format!("the program {}", program.name), &error))?;
        }
        self.perf_groups.push(group);
        Ok(())
    }

    /// A program of the object, for perf events.
    pub(super) fn uprobe(&mut self, program: &KernelProgram) -> Result<&mut UProbe> {
        self.ebpf
            .program_mut(program.name)
            .and_then(|loaded| loaded.try_into().ok())
            .ok_or_else(|| missing(program))
    }
}

fn missing(program: &KernelProgram) -> Error {
    Error::Failed(format!("the eBPF object has no {}", program.name))
}

/// The groups of programs that sites need.
pub(super) fn groups_of(sites: &[Site]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for site in sites {
        let group = KernelProgram::of(site.program).group;
        if group != Group::Always && !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups
}

/// The kernel does not take what the agent brings.
pub(super) fn refused(what: &str, error: &dyn std::error::Error) -> Error {
    Error::Missing(format!(
        "the kernel refused {what}: {}; run `teracron-agent doctor`",
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
