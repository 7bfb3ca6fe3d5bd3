//! The system call `bpf`, as far as aya 0.14 does not make it: programs for many uprobes in one link
//! (`BPF_TRACE_UPROBE_MULTI`, kernel 6.6 and newer), and their links.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use aya_obj::generated::bpf_insn;

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

/// What a program's functions are, for programs that pass one to the kernel.
#[derive(Clone, Copy)]
pub struct FunctionTypes<'a> {
    /// The types, as [`load_types`] made them.
    pub types: BorrowedFd<'a>,
    /// `bpf_func_info` records.
    pub records: &'a [u8],
    /// Bytes of a record.
    pub record_size: u32,
}

/// Loads types (BTF).
///
/// # Errors
/// Where the kernel refuses them.
pub fn load_types(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut attr = BtfLoad {
        btf: bytes.as_ptr() as u64,
        btf_size: bytes.len() as u32,
        ..BtfLoad::default()
    };
    bpf(BPF_BTF_LOAD, &mut attr)
}

/// Loads a program for multi links; of its name the first 15 bytes count.
///
/// # Errors
/// Where the kernel refuses it: with the end of what the verifier says.
pub fn load_multi(
    name: &str,
    instructions: &[bpf_insn],
    functions: Option<FunctionTypes<'_>>,
) -> io::Result<OwnedFd> {
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
    if let Some(functions) = functions
        && functions.record_size > 0
    {
        attr.prog_btf_fd = functions.types.as_raw_fd() as u32;
        attr.func_info_rec_size = functions.record_size;
        attr.func_info = functions.records.as_ptr() as u64;
        attr.func_info_cnt = functions.records.len() as u32 / functions.record_size;
    }
    bpf(BPF_PROG_LOAD, &mut attr).map_err(|error| {
        let mut log = vec![0u8; LOG_BYTES];
        attr.log_level = 1;
        attr.log_size = log.len() as u32;
        attr.log_buf = log.as_mut_ptr() as u64;
        let _ = bpf(BPF_PROG_LOAD, &mut attr);
        let text = String::from_utf8_lossy(&log);
        let text = text.trim_end_matches(['\0', '\n', ' ']);
        let tail = text.len().saturating_sub(2000);
        let tail = text.get(tail..).unwrap_or_default();
        io::Error::new(error.kind(), format!("{name}: {error}\n{tail}"))
    })
}

/// Links a program to places in the file at `path`: offsets, each with what the program reads there with
/// `bpf_get_attach_cookie`. `pid` 0 means every process; with `on_return` the program runs when the function that
/// begins at a place returns.
///
/// # Errors
/// Where the kernel refuses it, or there are not as many cookies as offsets.
pub fn link_multi(
    program: BorrowedFd<'_>,
    path: &str,
    (offsets, cookies): (&[u64], &[u64]),
    pid: u32,
    on_return: bool,
) -> io::Result<OwnedFd> {
    if offsets.len() != cookies.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let path = CString::new(path)?;
    let mut attr = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        attach_type: BPF_TRACE_UPROBE_MULTI,
        path: path.as_ptr() as u64,
        offsets: offsets.as_ptr() as u64,
        cookies: cookies.as_ptr() as u64,
        cnt: offsets.len() as u32,
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
