//! Many uprobes in one link (`BPF_TRACE_UPROBE_MULTI`, kernel 6.6 and newer).
//!
//! One perf event per probe is attached fast but detached slowly: the kernel waits for a grace
//! period for each (87 ms each on 6.18, so a minute and a half for 1,000 probes, also when the
//! agent is killed). A multi link waits once. aya 0.14 can't make one, because the program has to be
//! loaded for it; so the programs are relocated by `aya-obj` against the maps that aya made, and
//! only the two system calls are here.

use std::{
    collections::HashMap,
    ffi::CString,
    io,
    os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use aya_obj::{Function, generated::bpf_insn};

use planner::probe::Program;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_BTF_LOAD: libc::c_long = 18;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_KPROBE: u32 = 2;
const BPF_TRACE_UPROBE_MULTI: u32 = 48;
const BPF_F_UPROBE_MULTI_RETURN: u32 = 1;
/// Bytes of verifier log that are asked for when a program is refused.
const LOG_BYTES: usize = 1 << 20;

/// Head of `union bpf_attr` for `BPF_PROG_LOAD` (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
}

/// Head of `union bpf_attr` for `BPF_BTF_LOAD`.
#[repr(C)]
#[derive(Default)]
struct BtfLoad {
    btf: u64,
    btf_log_buf: u64,
    btf_size: u32,
    btf_log_size: u32,
    btf_log_level: u32,
    pad: u32,
}

/// Head of `union bpf_attr` for `BPF_LINK_CREATE` with `uprobe_multi`.
#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    path: u64,
    offsets: u64,
    ref_ctr_offsets: u64,
    cookies: u64,
    cnt: u32,
    multi_flags: u32,
    pid: u32,
    pad: u32,
}

fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: `attr` is a prefix of `union bpf_attr` for this command, and every pointer in it
    // lives until the call returns.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

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
        let license = c"Dual MIT/GPL";
        let mut prog_name = [0u8; 16];
        for (place, byte) in prog_name.iter_mut().zip(name.bytes().take(15)) {
            *place = byte;
        }
        let mut attr = ProgLoad {
            prog_type: BPF_PROG_TYPE_KPROBE,
            insn_cnt: instructions.len() as u32,
            insns: instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            prog_name,
            expected_attach_type: BPF_TRACE_UPROBE_MULTI,
            ..ProgLoad::default()
        };
        let described = types.map(|(_, function)| function.func_info.func_info_bytes());
        if let (Some((btf, function)), Some(described)) = (types, &described) {
            attr.prog_btf_fd = btf.as_raw_fd() as u32;
            attr.func_info_rec_size = function.func_info_rec_size as u32;
            attr.func_info = described.as_ptr() as u64;
            attr.func_info_cnt = function.func_info.len() as u32;
        }
        match bpf(BPF_PROG_LOAD, &mut attr) {
            Ok(fd) => Ok(Self { fd }),
            Err(error) => {
                let mut log = vec![0u8; LOG_BYTES];
                attr.log_level = 1;
                attr.log_size = log.len() as u32;
                attr.log_buf = log.as_mut_ptr() as u64;
                let _ = bpf(BPF_PROG_LOAD, &mut attr);
                let text = String::from_utf8_lossy(&log);
                let text = text.trim_end_matches(['\0', '\n', ' ']);
                let tail = text.len().saturating_sub(2000);
                let tail = text.get(tail..).unwrap_or_default();
                Err(io::Error::new(
                    error.kind(),
                    format!("{name}: {error}\n{tail}"),
                ))
            }
        }
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
        let path = CString::new(path)?;
        let offsets: Vec<u64> = sites.iter().map(|site| site.offset).collect();
        let cookies: Vec<u64> = sites.iter().map(|site| site.cookie).collect();
        let mut attr = LinkCreate {
            prog_fd: self.fd.as_raw_fd() as u32,
            attach_type: BPF_TRACE_UPROBE_MULTI,
            path: path.as_ptr() as u64,
            offsets: offsets.as_ptr() as u64,
            cookies: cookies.as_ptr() as u64,
            cnt: sites.len() as u32,
            multi_flags: if on_return {
                BPF_F_UPROBE_MULTI_RETURN
            } else {
                0
            },
            pid,
            ..LinkCreate::default()
        };
        bpf(BPF_LINK_CREATE, &mut attr)
    }

    /// The program's descriptor.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }
}

/// The maps of a loaded object, by name.
pub type Descriptors = HashMap<String, OwnedFd>;

/// Descriptors of the maps that programs use.
///
/// # Errors
/// Where the process has too many open.
pub fn descriptors(ebpf: &aya::Ebpf) -> io::Result<Descriptors> {
    ebpf.maps()
        .filter_map(|(name, map)| Some((name.to_owned(), map_fd(map)?)))
        .map(|(name, fd)| Ok((name, fd.try_clone_to_owned()?)))
        .collect()
}

/// Loads those programs of `object` for multi links that are `wanted`, against these maps.
///
/// # Errors
/// Where the kernel refuses one.
pub fn load_programs(
    object: &[u8],
    descriptors: &Descriptors,
    wanted: impl Fn(Program) -> bool,
) -> Result<HashMap<&'static str, MultiProgram>, MultiError> {
    let mut names: Vec<&'static str> = Program::ALL
        .into_iter()
        .filter(|program| wanted(*program))
        .map(Program::multi_name)
        .collect();
    names.sort_unstable();
    names.dedup();
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
fn types_of(parsed: &mut aya_obj::Object) -> Result<Option<OwnedFd>, MultiError> {
    let Some(features) = aya::features().btf() else {
        return Ok(None);
    };
    let bytes = match parsed.fixup_and_sanitize_btf(features) {
        Ok(Some(btf)) => btf.to_bytes(),
        Ok(None) => return Ok(None),
        Err(error) => return Err(MultiError::Object(error.to_string())),
    };
    let mut attr = BtfLoad {
        btf: bytes.as_ptr() as u64,
        btf_size: bytes.len() as u32,
        ..BtfLoad::default()
    };
    bpf(BPF_BTF_LOAD, &mut attr)
        .map(Some)
        .map_err(MultiError::Types)
}

/// Why multi programs could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MultiError {
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
