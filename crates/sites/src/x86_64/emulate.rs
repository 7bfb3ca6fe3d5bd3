//! What the kernel does with the instruction under a uprobe on x86-64.
//!
//! Source: `branch_setup_xol_ops`, `push_setup_xol_ops` in arch/x86/kernel/uprobes.c. The encoded
//! bytes decide, not the meaning.

use serde::Serialize;

/// What a hit costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cost {
    /// One system call instead of a trap: a 5-byte nop that the kernel patches.
    Optimised,
    /// One trap: the kernel emulates the instruction.
    Emulated,
    /// One trap at the return address that the kernel has replaced.
    Return,
    /// Two traps: the kernel executes the instruction elsewhere and steps over it.
    SingleStep,
}

impl Cost {
    /// For comparing plans: about hundreds of nanoseconds on real hardware.
    pub fn weight(self) -> u32 {
        match self {
            Self::Optimised => 2,
            Self::Emulated => 3,
            Self::Return => 4,
            Self::SingleStep => 9,
        }
    }

    /// As shown to users.
    pub fn name(self) -> &'static str {
        match self {
            Self::Optimised => "optimised",
            Self::Emulated => "emulated",
            Self::Return => "return",
            Self::SingleStep => "single-step",
        }
    }
}

/// What the kernel does with a 5-byte nop under a probe.
///
/// Linux 6.18 replaces it after the first hit by a call of a page of its own (`arch_uprobe_optimize` in
/// arch/x86/kernel/uprobes.c), for return probes as for others; only `0f 1f 44 00 00`, the kernel's own nop of that
/// length. In a child that is forked then the call is there and the page is not. Kernels that were mended since
/// treat it in other ways, so it is tried out (`attach/nop5.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Nop5 {
    /// What it does with other instructions.
    Stepped,
    /// Replaces it, and forked children live.
    Optimised,
    /// Replaces it, and a forked child dies of it, or that could not be tried out: no place for a probe.
    Unsafe,
}

/// What differs between kernels, and what a target asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KernelRules {
    /// A call that replaces a nop pushes, which is only harmless where the red zone is not in use.
    pub nop5: Nop5,
    /// Sites must be where the caller's registers are as the function got them: at its first instruction, and where it is
    /// left. By these calls are known where stacks are copied.
    pub whole: bool,
}

impl KernelRules {
    /// The rules of a kernel version, as far as the version tells.
    pub fn of(major: u32, minor: u32) -> Self {
        Self {
            nop5: if (major, minor) >= (6, 18) {
                Nop5::Unsafe
            } else {
                Nop5::Stepped
            },
            whole: false,
        }
    }

    /// Whether a probe on the instruction with these bytes harms nobody.
    pub fn allows(self, bytes: &[u8]) -> bool {
        self.nop5 != Nop5::Unsafe || !is_nop5(bytes)
    }
}

const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];

/// Whether this is the nop that newer kernels patch.
pub fn is_nop5(bytes: &[u8]) -> bool {
    bytes == NOP5
}

/// What a probe on the instruction with these bytes costs.
pub fn cost(bytes: &[u8], rules: KernelRules) -> Cost {
    if is_nop5(bytes) && rules.nop5 == Nop5::Optimised {
        return Cost::Optimised;
    }
    let mut rest = bytes;
    let mut operand_size = false;
    let mut rex = None;
    while let Some((byte, tail)) = rest.split_first() {
        match byte {
            0x66 => operand_size = true,
            0x2e | 0x36 | 0x3e | 0x26 | 0x64 | 0x65 | 0xf2 | 0xf3 => {}
            // A lock or address-size prefix belongs to nothing that is emulated.
            0x67 | 0xf0 => return Cost::SingleStep,
            0x40..=0x4f => rex = Some(*byte),
            _ => break,
        }
        rest = tail;
    }
    let emulated = match rest {
        // nop, with any prefix; but not xchg r8, rax
        [0x90, ..] => rex.is_none_or(|rex| rex & 1 == 0),
        // jmp, call, jcc: relative
        [0xeb | 0xe9 | 0xe8 | 0x70..=0x7f, ..] => !operand_size,
        [0x0f, 0x80..=0x8f, ..] => !operand_size,
        // push: with no prefix but REX.B
        [0x50..=0x57] => bytes.len() == 1 || (bytes.len() == 2 && rex == Some(0x41)),
        _ => false,
    };
    if emulated {
        Cost::Emulated
    } else {
        Cost::SingleStep
    }
}

/// Whether the kernel puts a probe on the instruction with these bytes: one that it won't take makes it refuse
/// all that are attached together.
///
/// Source: `uprobe_init_insn` and its tables in arch/x86/kernel/uprobes.c, tried out on 6.18. Instructions
/// with vector prefixes are judged by the table for those of one byte.
pub fn is_taken(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let mut operand_size = false;
    while let Some((byte, tail)) = rest.split_first() {
        match byte {
            0x26 | 0x2e | 0x36 | 0x3e | 0xf0 => return false,
            0x66 => operand_size = true,
            0x64 | 0x65 | 0x67 | 0xf2 | 0xf3 | 0x40..=0x4f => {}
            _ => break,
        }
        rest = tail;
    }
    let opcode = match rest {
        // VEX of two and three bytes, EVEX.
        [0xc5, _, opcode, ..] | [0xc4, _, _, opcode, ..] | [0x62, _, _, _, opcode, ..] => *opcode,
        // Branches whose size the two makers of processors see differently.
        [0xe8 | 0xe9 | 0xeb | 0x70..=0x7f, ..] | [0x0f, 0x80..=0x8f, ..] if operand_size => {
            return false;
        }
        // mov ss: it holds back the trap behind it.
        [0x8e, modrm, ..] if modrm >> 3 & 7 == 2 => return false,
        [opcode, ..] => *opcode,
        [] => return false,
    };
    !matches!(
        opcode,
        0x06 | 0x07 | 0x0e | 0x16 | 0x17 | 0x1e | 0x1f | 0x27 | 0x2f | 0x37 | 0x3f
            | 0x60..=0x62
            | 0x6c..=0x6f
            | 0x82
            | 0x9a
            | 0xcc..=0xcf
            | 0xd4..=0xd6
            | 0xe4..=0xe7
            | 0xea
            | 0xec..=0xef
            | 0xf0
            | 0xf1
            | 0xf4
            | 0xfa
            | 0xfb
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What kernel 6.18 said of each.
    #[test]
    fn what_the_kernel_takes() {
        for (bytes, taken) in [
            (&[0xf0, 0xff, 0x05, 1, 2, 3, 4][..], false),
            (&[0x2e, 0x0f, 0x1f, 0], false),
            (&[0x3e, 0xff, 0xe0], false),
            (&[0x66, 0xe9, 0, 0, 0, 0], false),
            (&[0x8e, 0xd0], false),
            (&[0xcc], false),
            (&[0xf4], false),
            (&[0xc5, 0xfd, 0x6f, 0xc8], false),
            (&[0xc5, 0xf9, 0x6e, 0xc8], false),
            (&[0xc5, 0xf1, 0xef, 0xd0], false),
            (&[0x62, 0xf1, 0xfe, 0x48, 0x6f, 0xc8], false),
            (&[0xc5, 0xf8, 0x77], true),
            (&[0xc5, 0xf8, 0x28, 0xd1], true),
            (&[0xc4, 0xe2, 0x79, 0x30, 0xc8], true),
            (&[0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0], true),
            (&[0x67, 0x8b, 0x03], true),
            (&[0xf3, 0xa4], true),
            (&[0xf2, 0xc3], true),
            (&[0x0f, 0x05], true),
            (&[0x0f, 0xae, 0xf0], true),
            (&[0x66, 0x0f, 0x38, 0, 0xc8], true),
            (&[0x55], true),
            (&[0x41, 0x57], true),
            (&[], false),
        ] {
            assert_eq!(is_taken(bytes), taken, "{bytes:x?}");
        }
    }

    const OLD: KernelRules = KernelRules {
        nop5: Nop5::Stepped,
        whole: false,
    };

    #[test]
    fn the_kernels_list() {
        for (bytes, expected) in [
            (&[0x55][..], Cost::Emulated),
            (&[0x41, 0x57], Cost::Emulated),
            (&[0x48, 0x55], Cost::SingleStep),
            (&[0x90], Cost::Emulated),
            (&[0x66, 0x90], Cost::Emulated),
            (&[0x41, 0x90], Cost::SingleStep),
            (&[0xe8, 1, 2, 3, 4], Cost::Emulated),
            (&[0xe9, 1, 2, 3, 4], Cost::Emulated),
            (&[0xf2, 0xe9, 1, 2, 3, 4], Cost::Emulated),
            (&[0x66, 0xe9, 1, 2, 3, 4], Cost::SingleStep),
            (&[0xeb, 1], Cost::Emulated),
            (&[0x74, 1], Cost::Emulated),
            (&[0x0f, 0x85, 1, 2, 3, 4], Cost::Emulated),
            (&[0xf3, 0x0f, 0x1e, 0xfa], Cost::SingleStep),
            (&[0x0f, 0x1f, 0x44, 0, 0], Cost::SingleStep),
            (&[0xc3], Cost::SingleStep),
            (&[0xc9], Cost::SingleStep),
            (&[0x5d], Cost::SingleStep),
            (&[0x48, 0x83, 0xec, 0x18], Cost::SingleStep),
            (&[0xff, 0xe0], Cost::SingleStep),
            (&[], Cost::SingleStep),
        ] {
            assert_eq!(cost(bytes, OLD), expected, "{bytes:x?}");
        }
        let optimised = KernelRules {
            nop5: Nop5::Optimised,
            whole: false,
        };
        assert_eq!(cost(&NOP5, optimised), Cost::Optimised);
        assert_eq!(cost(&NOP5, KernelRules::of(6, 18)), Cost::SingleStep);
        assert_eq!(cost(&NOP5, KernelRules::of(6, 12)), Cost::SingleStep);
    }
}
