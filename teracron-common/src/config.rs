//! What user space tells the kernel side once, before the programs are loaded.

/// [`KernelConfig::span_memory`]: through pointers of which the verifier knows the type.
pub const SPAN_MEMORY_TYPED: u32 = 2;

/// Offsets into kernel structures (bytes), resolved from the running kernel's BTF by user space,
/// and switches. It sits in read-only memory, so the verifier knows its values and drops what is
/// switched off.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelConfig {
    /// `task_struct.tgid`: the process id.
    pub task_tgid: u32,
    /// `task_struct.exit_code`.
    pub task_exit_code: u32,
    /// `task_struct.signal`.
    pub task_signal: u32,
    /// `task_struct.mm`.
    pub task_mm: u32,
    /// `task_struct.sas_ss_sp`, followed directly by `sas_ss_size`: the alternate signal stack.
    pub task_sas_ss_sp: u32,
    /// `task_struct.thread.fsbase`: where a thread's control block lies.
    pub task_fsbase: u32,
    /// `signal_struct.live`: threads of the process that have not ended.
    pub signal_live: u32,
    /// `signal_struct.flags`.
    pub signal_flags: u32,
    /// `signal_struct.rlim[RLIMIT_STACK].rlim_cur`.
    pub signal_stack_limit: u32,
    /// `mm_struct.start_stack`: the top of the main thread's stack.
    pub mm_start_stack: u32,
    /// `mm_struct.exe_file`.
    pub mm_exe_file: u32,
    /// `file.f_inode`.
    pub file_inode: u32,
    /// `inode.i_ino`.
    pub inode_ino: u32,
    /// `inode.i_sb`.
    pub inode_sb: u32,
    /// `super_block.s_dev`.
    pub sb_dev: u32,
    /// `task_struct.min_flt`.
    pub task_min_flt: u32,
    /// `task_struct.maj_flt`.
    pub task_maj_flt: u32,
    /// The count of `mm_struct.rss_stat[0]`.
    pub mm_rss: u32,
    /// Distance to the next count.
    pub mm_rss_stride: u32,
    /// Spans carry what they did to the process's memory, read by helper (1) or through pointers that
    /// the verifier knows ([`SPAN_MEMORY_TYPED`]), or they don't (0).
    pub span_memory: u32,
    /// `k_sigaction.sa.sa_handler`.
    pub action_handler: u32,
    /// `kernel_siginfo.si_code`.
    pub siginfo_code: u32,
    /// `kernel_siginfo._sifields`.
    pub siginfo_fields: u32,
    /// `pt_regs.ip`.
    pub regs_ip: u32,
    /// Children that a traced process forks are traced too (1) or not (0).
    pub follow_forks: u32,
    /// The kernel has `bpf_loop` (5.17): the verifier looks at a loop's body once and not once for each turn.
    pub loops: u32,
    /// The kernel side writes a debug log (1) or has no code for it (0).
    pub debug: u32,
}

/// The identity of an executable file as the kernel knows it: key of the map of files whose every
/// process is traced (`--exe`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileId {
    /// `inode.i_ino`.
    pub ino: u64,
    /// `super_block.s_dev` in the kernel's own encoding, `major << 20 | minor`.
    pub dev: u64,
}

impl FileId {
    /// From what `stat` reports. `dev` is the C library's encoding of a device number
    /// (gnu_dev_makedev), which differs from the kernel's.
    pub const fn from_stat(dev: u64, ino: u64) -> Self {
        let major = ((dev >> 8) & 0xfff) | ((dev >> 32) & !0xfff);
        let minor = (dev & 0xff) | ((dev >> 12) & !0xff);
        Self {
            ino,
            dev: (major << 20) | (minor & 0xf_ffff),
        }
    }
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, integers only, no padding.
unsafe impl aya::Pod for FileId {}
#[cfg(feature = "user")]
// SAFETY: `repr(C)`, 32-bit integers only, no padding.
unsafe impl aya::Pod for KernelConfig {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_recoded() {
        // stat's encoding of 254:0 and of 259:3.
        assert_eq!(
            FileId::from_stat(0xfe00, 7),
            FileId {
                ino: 7,
                dev: 254 << 20
            }
        );
        let dev = (0x12 << 8) | 0x34 | (0x1_2300 << 12);
        assert_eq!(
            FileId::from_stat(dev, 1).dev,
            (0x12 << 20) | (0x1_2334 & 0xf_ffff)
        );
    }

    #[test]
    fn config_has_no_padding() {
        assert_eq!(size_of::<KernelConfig>(), 27 * 4);
    }
}
