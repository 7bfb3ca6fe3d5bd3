//! Offsets of fields in the running kernel's structures, from its BTF.
//!
//! The format is the kernel's (Documentation/bpf/btf.rst). Only what the kernel side needs is
//! kept: a parse of `/sys/kernel/btf/vmlinux` costs a few milliseconds and its bytes are dropped.

use std::{collections::HashMap, fs, path::Path};

use teracron_common::KernelConfig;

/// Where the running kernel keeps its BTF.
pub(super) const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why the kernel's BTF can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file can't be read.
    #[error("cannot read {VMLINUX}: {0}; the kernel must be built with CONFIG_DEBUG_INFO_BTF=y")]
    Read(#[from] std::io::Error),
    /// The bytes are not BTF.
    #[error("{VMLINUX} is not BTF: {0}")]
    Malformed(&'static str),
    /// A field that the agent needs is not there.
    #[error("this kernel's BTF has no field {0}; the agent does not know this kernel")]
    NoField(&'static str),
}

const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
/// Structures nested in structures that are followed.
const MAX_NESTING: usize = 8;

struct Member {
    name: u32,
    type_id: u32,
    bit_offset: u32,
}

/// The structures and unions of a BTF blob.
pub struct Btf {
    strings: Vec<u8>,
    /// Members of every structure and union, by type id.
    aggregates: HashMap<u32, Vec<Member>>,
    /// Type ids of structures by the place of their name.
    named: HashMap<u32, u32>,
    /// What typedefs, `const` and `volatile` stand for.
    aliases: HashMap<u32, u32>,
}

impl Btf {
    /// Reads the running kernel's BTF.
    pub fn from_kernel() -> Result<Self, BtfError> {
        Self::parse(&fs::read(Path::new(VMLINUX))?)
    }

    /// Parses a BTF blob.
    pub fn parse(data: &[u8]) -> Result<Self, BtfError> {
        let u32_at = |at: usize| -> Result<u32, BtfError> {
            data.get(at..at.wrapping_add(4))
                .and_then(|bytes| bytes.try_into().ok())
                .map(u32::from_le_bytes)
                .ok_or(BtfError::Malformed("it is cut off"))
        };
        if data.get(..2) != Some(&MAGIC.to_le_bytes()) {
            return Err(BtfError::Malformed("wrong magic number"));
        }
        let header = u32_at(4)? as usize;
        let section = |offset: u32, len: u32| -> Result<&[u8], BtfError> {
            let start = header
                .checked_add(offset as usize)
                .ok_or(BtfError::Malformed("absurd section"))?;
            let end = start
                .checked_add(len as usize)
                .ok_or(BtfError::Malformed("absurd section"))?;
            data.get(start..end)
                .ok_or(BtfError::Malformed("it is cut off"))
        };
        let types = section(u32_at(8)?, u32_at(12)?)?;
        let strings = section(u32_at(16)?, u32_at(20)?)?.to_vec();

        let word = |at: usize| -> Result<u32, BtfError> {
            types
                .get(at..at.wrapping_add(4))
                .and_then(|bytes| bytes.try_into().ok())
                .map(u32::from_le_bytes)
                .ok_or(BtfError::Malformed("a type is cut off"))
        };
        let mut btf = Self {
            strings,
            aggregates: HashMap::new(),
            named: HashMap::new(),
            aliases: HashMap::new(),
        };
        let (mut at, mut id) = (0usize, 0u32);
        while at < types.len() {
            id += 1;
            let (name, info, size_or_type) = (word(at)?, word(at + 4)?, word(at + 8)?);
            at += 12;
            let (count, kind, flag) = (
                (info & 0xffff) as usize,
                (info >> 24) & 0x1f,
                info >> 31 != 0,
            );
            match kind {
                KIND_STRUCT | KIND_UNION => {
                    let mut members = Vec::with_capacity(count);
                    for index in 0..count {
                        let place = at + index * 12;
                        let raw = word(place + 8)?;
                        members.push(Member {
                            name: word(place)?,
                            type_id: word(place + 4)?,
                            bit_offset: if flag { raw & 0xff_ffff } else { raw },
                        });
                    }
                    if name != 0 && kind == KIND_STRUCT && count > 0 {
                        btf.named.insert(name, id);
                    }
                    btf.aggregates.insert(id, members);
                    at += count * 12;
                }
                // typedef, volatile, const, restrict
                8..=11 => {
                    btf.aliases.insert(id, size_or_type);
                }
                // int, variable, declaration tag
                1 | 14 | 17 => at += 4,
                // array
                3 => at += 12,
                // enum, function prototype
                6 | 13 => at += count * 8,
                // data section, 64-bit enum
                15 | 19 => at += count * 12,
                // pointer, forward, function, float, type tag
                2 | 7 | 12 | 16 | 18 => {}
                _ => return Err(BtfError::Malformed("unknown kind of type")),
            }
        }
        Ok(btf)
    }

    fn name(&self, at: u32) -> &[u8] {
        let rest = self.strings.get(at as usize..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// Offset of `path` (`thread.fsbase`) in the structure `name`, in bytes; fields of unnamed
    /// structures and unions count as fields of the one around them.
    pub fn offset(&self, name: &str, path: &str) -> Option<u32> {
        let (_, id) = self
            .named
            .iter()
            .find(|(place, _)| self.name(**place) == name.as_bytes())?;
        let (mut id, mut bits) = (*id, 0u32);
        for field in path.split('.') {
            let (member_type, offset) = self.field(id, field.as_bytes(), 0)?;
            bits = bits.checked_add(offset)?;
            id = member_type;
        }
        Some(bits / 8)
    }

    fn field(&self, id: u32, field: &[u8], depth: usize) -> Option<(u32, u32)> {
        if depth > MAX_NESTING {
            return None;
        }
        let mut id = id;
        for _ in 0..MAX_NESTING {
            match self.aliases.get(&id) {
                Some(target) => id = *target,
                None => break,
            }
        }
        let members = self.aggregates.get(&id)?;
        for member in members {
            if self.name(member.name) == field {
                return Some((member.type_id, member.bit_offset));
            }
            if member.name == 0
                && let Some((found, offset)) = self.field(member.type_id, field, depth + 1)
            {
                return Some((found, member.bit_offset.checked_add(offset)?));
            }
        }
        None
    }

    /// Where the resident pages are counted: offset in `mm_struct`, and from one count to the next.
    /// Since 6.2 they are per-CPU counters, before an array of their own.
    fn rss_counts(&self) -> Option<(u32, u32)> {
        let array = self.offset("mm_struct", "rss_stat")?;
        if let Some(first) = self.offset("mm_rss_stat", "count") {
            return Some((array + first, 8));
        }
        let count = self.offset("percpu_counter", "count")?;
        // A pointer, the last field.
        let last = self.offset("percpu_counter", "counters")?;
        Some((array + count, last + 8))
    }

    /// The offsets that the kernel side needs.
    pub fn kernel_config(&self) -> Result<KernelConfig, BtfError> {
        let offset = |structure: &'static str, path: &'static str, what: &'static str| {
            self.offset(structure, path).ok_or(BtfError::NoField(what))
        };
        // struct rlimit { rlim_cur, rlim_max }; RLIMIT_STACK is 3.
        let rss = self.rss_counts();
        let limits = offset("signal_struct", "rlim", "signal_struct.rlim")?;
        Ok(KernelConfig {
            task_tgid: offset("task_struct", "tgid", "task_struct.tgid")?,
            task_exit_code: offset("task_struct", "exit_code", "task_struct.exit_code")?,
            task_signal: offset("task_struct", "signal", "task_struct.signal")?,
            task_mm: offset("task_struct", "mm", "task_struct.mm")?,
            task_sas_ss_sp: offset("task_struct", "sas_ss_sp", "task_struct.sas_ss_sp")?,
            task_fsbase: offset("task_struct", "thread.fsbase", "task_struct.thread.fsbase")?,
            signal_live: offset("signal_struct", "live", "signal_struct.live")?,
            signal_flags: offset("signal_struct", "flags", "signal_struct.flags")?,
            signal_stack_limit: limits + 3 * 16,
            mm_start_stack: offset("mm_struct", "start_stack", "mm_struct.start_stack")?,
            mm_exe_file: offset("mm_struct", "exe_file", "mm_struct.exe_file")?,
            file_inode: offset("file", "f_inode", "file.f_inode")?,
            inode_ino: offset("inode", "i_ino", "inode.i_ino")?,
            inode_sb: offset("inode", "i_sb", "inode.i_sb")?,
            sb_dev: offset("super_block", "s_dev", "super_block.s_dev")?,
            task_min_flt: offset("task_struct", "min_flt", "task_struct.min_flt")?,
            task_maj_flt: offset("task_struct", "maj_flt", "task_struct.maj_flt")?,
            mm_rss: rss.map_or(0, |(first, _)| first),
            mm_rss_stride: rss.map_or(0, |(_, stride)| stride),
            span_memory: u32::from(rss.is_some()),
            action_handler: offset("k_sigaction", "sa.sa_handler", "k_sigaction.sa.sa_handler")?,
            siginfo_code: offset("kernel_siginfo", "si_code", "kernel_siginfo.si_code")?,
            siginfo_fields: offset("kernel_siginfo", "_sifields", "kernel_siginfo._sifields")?,
            regs_ip: offset("pt_regs", "ip", "pt_regs.ip")?,
            ..KernelConfig::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_running_kernel() {
        let btf = Btf::from_kernel().unwrap();
        let config = btf.kernel_config().unwrap();
        assert_eq!(Some(config.task_tgid), btf.offset("task_struct", "tgid"));
        assert!(config.mm_rss > 0 && config.mm_rss_stride >= 8 && config.span_memory == 1);
        assert!(config.task_fsbase > config.task_mm);
        // These three are also the C library's.
        assert_eq!((config.siginfo_code, config.siginfo_fields), (8, 16));
        assert_eq!(config.regs_ip, 16 * 8);
        assert_eq!(btf.offset("list_head", "prev"), Some(8));
        assert_eq!(btf.offset("list_head", "nothing"), None);
        assert_eq!(btf.offset("no_such_struct", "x"), None);
    }

    #[test]
    fn refuses_what_is_not_btf() {
        assert!(Btf::parse(b"").is_err());
        assert!(Btf::parse(b"\x7fELF............................").is_err());
        let real = fs::read(VMLINUX).unwrap();
        for cut in [1, 2, 8, 23, 24, 100, real.len() / 2, real.len() - 1] {
            assert!(Btf::parse(&real[..cut]).is_err(), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Btf::parse(&bytes);
            if bytes.len() >= 24 {
                bytes[..2].copy_from_slice(&MAGIC.to_le_bytes());
                bytes[4..8].copy_from_slice(&24u32.to_le_bytes());
                bytes[8..24].fill(0);
                bytes[12] = 100;
                if let Ok(btf) = Btf::parse(&bytes) {
                    let _ = btf.kernel_config();
                }
            }
        }
    }
}
