//! Many uprobes in one link (`BPF_TRACE_UPROBE_MULTI`, kernel 6.6 and newer).
//!
//! One perf event per probe is attached fast but detached slowly: the kernel waits for a grace
//! period for each (87 ms each on 6.18, so a minute and a half for 1,000 probes, also when the
//! agent is killed). A multi link waits once. aya 0.14 can't make one, because the program has to be
//! loaded for it; so the programs are relocated by `aya-obj` against the maps that aya made, and
//! only the system calls are our own (`sys::bpf`).

use std::{
    collections::{BTreeSet, HashMap},
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::OnceLock,
};

use aya_obj::{Function, generated::bpf_insn};

use super::{
    load::{OBJECT, refused},
    programs::{Group, KernelProgram},
};
use model::error::{Context as _, Result};
use sys::bpf::{FunctionTypes, link_multi, load_multi, load_types};

/// A program loaded for multi links.
pub struct MultiProgram {
    fd: OwnedFd,
}

/// One site of a multi link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MultiSite {
    /// Offset in the file.
    pub offset: u64,
    /// What the program reads with `bpf_get_attach_cookie`.
    pub cookie: u64,
}

impl MultiProgram {
    /// `types`: which of the object's functions are in it and what they are, for programs that pass one to the
    /// kernel.
    fn load(
        name: &str,
        instructions: &[bpf_insn],
        types: Option<(&OwnedFd, &Function)>,
    ) -> io::Result<Self> {
        let described = types.map(|(_, function)| function.func_info.func_info_bytes());
        let functions = match (types, &described) {
            (Some((btf, function)), Some(records)) => Some(FunctionTypes {
                types: btf.as_fd(),
                records,
                record_size: function.func_info_rec_size as u32,
            }),
            _ => None,
        };
        Ok(Self {
            fd: load_multi(name, instructions, functions)?,
        })
    }

    /// A program that does nothing: what a probe costs at the least, for benches.
    ///
    /// # Errors
    /// Where the kernel has no multi links.
    pub fn empty() -> io::Result<Self> {
        let instruction = |code: u8| bpf_insn {
            code,
            _bitfield_align_1: [],
            _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
            off: 0,
            imm: 0,
        };
        // r0 = 0; exit
        Self::load("empty", &[instruction(0xb7), instruction(0x95)], None)
    }

    /// Attaches the program to all `sites` of the file at `path`.
    ///
    /// `pid` 0 means every process. With `on_return` the program runs when the function that a
    /// site is the entry of returns.
    pub fn attach(
        &self,
        path: &str,
        sites: &[MultiSite],
        pid: u32,
        on_return: bool,
    ) -> io::Result<OwnedFd> {
        let offsets: Vec<u64> = sites.iter().map(|site| site.offset).collect();
        let cookies: Vec<u64> = sites.iter().map(|site| site.cookie).collect();
        link_multi(self.fd.as_fd(), path, (&offsets, &cookies), pid, on_return)
    }

    /// The program's descriptor.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }
}

/// Programs that are loaded for multi links, group by group, from whatever thread needs them first.
pub(super) struct MultiPrograms {
    descriptors: Descriptors,
    /// By group.
    loaded: [OnceLock<Loaded>; Group::ALL.len()],
}

/// The maps of a loaded object, by name: relocating a program asks for them by their names in the object.
type Descriptors = HashMap<String, OwnedFd>;
/// Loaded programs, by name.
type Loaded = HashMap<&'static str, MultiProgram>;

impl MultiPrograms {
    /// None is loaded yet.
    ///
    /// # Errors
    /// Where the process has too many files open.
    pub(super) fn new(ebpf: &aya::Ebpf) -> Result<Self> {
        let descriptors = ebpf
            .maps()
            .filter_map(|(name, map)| Some((name.to_owned(), map_fd(map)?)))
            .map(|(name, fd)| Ok((name, fd.try_clone_to_owned()?)))
            .collect::<io::Result<Descriptors>>()
            .failed(|| "cannot keep the eBPF maps".to_owned())?;
        Ok(Self {
            descriptors,
            loaded: Default::default(),
        })
    }

    /// Whether a group is loaded.
    pub(super) fn has(&self, group: Group) -> bool {
        self.loaded_of(group)
            .is_some_and(|cell| cell.get().is_some())
    }

    fn loaded_of(&self, group: Group) -> Option<&OnceLock<Loaded>> {
        self.loaded.get(group as usize)
    }

    /// A program, where it is loaded.
    pub(super) fn get(&self, program: &KernelProgram) -> Option<&MultiProgram> {
        self.loaded_of(program.group)?.get()?.get(program.name)
    }

    /// Loads the programs of a group, where they are not loaded yet.
    ///
    /// # Errors
    /// Where the kernel refuses one.
    pub(super) fn load(&self, group: Group) -> Result<()> {
        if let Some(cell) = self.loaded_of(group)
            && cell.get().is_none()
        {
            let loaded = load_programs(OBJECT, &self.descriptors, group)
                .map_err(|error| refused("the agent's programs", &error))?;
            let _ = cell.set(loaded);
        }
        Ok(())
    }
}

/// Loads a group of `object`'s programs against these maps.
fn load_programs(
    object: &[u8],
    descriptors: &Descriptors,
    group: Group,
) -> std::result::Result<Loaded, MultiError> {
    let names: BTreeSet<&'static str> = group
        .programs()
        .filter_map(KernelProgram::in_multi_link)
        .map(|program| program.name)
        .collect();
    let mut parsed =
        aya_obj::Object::parse(object).map_err(|error| MultiError::Object(error.to_string()))?;
    let types = types_of(&mut parsed)?;
    let maps = std::mem::take(&mut parsed.maps);
    let sections = parsed
        .functions
        .keys()
        .map(|(section, _)| *section)
        .collect();
    parsed
        .relocate_maps(
            maps.iter().filter_map(|(name, map)| {
                Some((name.as_str(), descriptors.get(name)?.as_raw_fd(), map))
            }),
            &sections,
        )
        .map_err(|error| MultiError::Object(error.to_string()))?;
    parsed
        .relocate_calls(&sections)
        .map_err(|error| MultiError::Object(error.to_string()))?;
    let mut functions = Vec::new();
    for name in &names {
        let function = parsed
            .programs
            .get(*name)
            .and_then(|program| parsed.functions.get(&program.function_key()))
            .ok_or_else(|| MultiError::Object(format!("no program {name}")))?;
        functions.push((*name, function));
    }
    // The verifier takes up to a second for each, and holds no lock.
    std::thread::scope(|scope| {
        let loading: Vec<_> = functions
            .into_iter()
            .map(|(name, function)| {
                let types = types.as_ref().map(|btf| (btf, function));
                let load = move || MultiProgram::load(name, &function.instructions, types);
                (name, scope.spawn(load))
            })
            .collect();
        loading
            .into_iter()
            .map(|(name, thread)| {
                let loaded = thread
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("the loading thread panicked")));
                Ok((name, loaded.map_err(MultiError::Load)?))
            })
            .collect()
    })
}

/// Loads the types of the object's functions: the kernel asks for them where a function is passed to
/// `bpf_loop`. `None` where the object or the kernel has none.
fn types_of(parsed: &mut aya_obj::Object) -> std::result::Result<Option<OwnedFd>, MultiError> {
    let Some(features) = aya::features().btf() else {
        return Ok(None);
    };
    let bytes = match parsed.fixup_and_sanitize_btf(features) {
        Ok(Some(btf)) => btf.to_bytes(),
        Ok(None) => return Ok(None),
        Err(error) => return Err(MultiError::Object(error.to_string())),
    };
    load_types(&bytes).map(Some).map_err(MultiError::Types)
}

/// Why multi programs could not be made.
#[derive(Debug, thiserror::Error)]
enum MultiError {
    /// The object itself.
    #[error("the built-in eBPF object can't be prepared: {0}")]
    Object(String),
    /// The kernel refused the types of its functions.
    #[error("the kernel refused the types of the built-in eBPF object: {0}")]
    Types(io::Error),
    /// The kernel refused a program.
    #[error("the kernel refused a program: {0}")]
    Load(io::Error),
}

fn map_fd(map: &aya::maps::Map) -> Option<BorrowedFd<'_>> {
    use aya::maps::Map;
    let data = match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data)
        | Map::PerCpuHashMap(data)
        | Map::Queue(data) => data,
        _ => return None,
    };
    Some(data.fd().as_fd())
}
