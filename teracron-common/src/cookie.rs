//! The attach cookie: everything that a program needs to know about the site that fired, so that
//! a hit costs no map look-up for its plan.
//!
//! Entry and exit sites share the layout:
//!
//! | bits | meaning |
//! | --- | --- |
//! | 0–19 | index of the probe; at a site that captures, of its plan |
//! | 20 | the frame address is computed from the frame pointer instead of the stack pointer |
//! | 21 | entry of a part that the compiler split off (`.part.0`) |
//! | 22 | entry of a function that may end by a jump to another probed function |
//! | 23 | Go: the index is that of a capture plan |
//! | 24–28 | entry of a Go function: where `g.goid` lies in a goroutine's `g`, in steps of eight bytes |
//! | 31 | entry of a block of lines |
//! | 29–30 | entry: generation of the set of probes, see [`Age`](crate::Age) |
//! | 24–28 | exit: 0 always, else 1 + the x86 condition code under which the jump leaves |
//! | 32–63 | signed distance from the base register to the frame address (CFA) |
//!
//! The CFA (canonical frame address, DWARF's word) is the stack pointer before the call pushed the
//! return address: the return address lies at `CFA - 8`.

use crate::SiteId;

/// Probes of one run: 20 bits of cookie.
pub const MAX_PROBES: u32 = 1 << 20;

const PROBE_MASK: u64 = (1 << 20) - 1;
const BASE_RBP: u64 = 1 << 20;
const PART: u64 = 1 << 21;
const TAIL_CALLS: u64 = 1 << 22;
const READS: u64 = 1 << 23;
const BLOCK: u64 = 1 << 31;
const GENERATION_SHIFT: u64 = 29;
const CONDITION_SHIFT: u64 = 24;
const CONDITION_MASK: u64 = 0x1f;

/// Which register a site's frame address is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CfaBase {
    /// The stack pointer.
    StackPointer,
    /// The frame pointer.
    FramePointer,
}

/// Cookie of an entry site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnterCookie {
    /// The probe, the capture plan or the async function, as the site's program wants it.
    pub id: SiteId,
    /// Which register the CFA is counted from.
    pub base: CfaBase,
    /// That register at the site plus this is the CFA.
    pub cfa_offset: i32,
    /// It is a block of lines: its first statement may be passed again before it is left.
    pub block: bool,
    /// The function is a split-off part of the probe's function.
    pub part: bool,
    /// The function may end by a jump to another probed function, without an exit site there.
    pub tail_calls: bool,
    /// Which set of probes the site belongs to, modulo 4.
    pub generation: u8,
    /// Go: `id` is that of a capture plan.
    pub reads: bool,
    /// Go: offset of `goid` in `runtime.g`, divided by eight; below 32.
    pub goid: u8,
}

impl EnterCookie {
    /// A site at which nothing but this is wanted.
    pub const fn of(id: SiteId) -> Self {
        Self {
            id,
            base: CfaBase::StackPointer,
            cfa_offset: 0,
            block: false,
            part: false,
            tail_calls: false,
            generation: 0,
            reads: false,
            goid: 0,
        }
    }

    /// Packs the cookie.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        let mut bits = self.id.0 as u64 & PROBE_MASK;
        if matches!(self.base, CfaBase::FramePointer) {
            bits |= BASE_RBP;
        }
        if self.block {
            bits |= BLOCK;
        }
        if self.part {
            bits |= PART;
        }
        if self.tail_calls {
            bits |= TAIL_CALLS;
        }
        if self.reads {
            bits |= READS;
        }
        bits |= (self.goid as u64 & CONDITION_MASK) << CONDITION_SHIFT;
        bits |= (self.generation as u64 & 3) << GENERATION_SHIFT;
        bits | ((self.cfa_offset as u32 as u64) << 32)
    }

    /// Reads the cookie.
    #[inline(always)]
    pub const fn unpack(bits: u64) -> Self {
        Self {
            id: SiteId((bits & PROBE_MASK) as u32),
            base: if bits & BASE_RBP != 0 {
                CfaBase::FramePointer
            } else {
                CfaBase::StackPointer
            },
            block: bits & BLOCK != 0,
            generation: (bits >> GENERATION_SHIFT) as u8 & 3,
            cfa_offset: (bits >> 32) as u32 as i32,
            part: bits & PART != 0,
            tail_calls: bits & TAIL_CALLS != 0,
            reads: bits & READS != 0,
            goid: ((bits >> CONDITION_SHIFT) & CONDITION_MASK) as u8,
        }
    }
}

/// Cookie of an exit site, or of a return probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitCookie {
    /// The probe, the capture plan or the async function, as the site's program wants it.
    pub id: SiteId,
    /// Which register the CFA is counted from.
    pub base: CfaBase,
    /// The base register at the site plus this is the CFA.
    pub cfa_offset: i32,
    /// The function is left only where this x86 condition code (0–15) holds; always where `None`.
    pub condition: Option<u8>,
    /// Go: `id` is that of a capture plan.
    pub reads: bool,
}

impl ExitCookie {
    /// Packs the cookie.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        let mut bits = self.id.0 as u64 & PROBE_MASK;
        if matches!(self.base, CfaBase::FramePointer) {
            bits |= BASE_RBP;
        }
        if self.reads {
            bits |= READS;
        }
        if let Some(condition) = self.condition {
            bits |= ((condition as u64 & 0xf) + 1) << CONDITION_SHIFT;
        }
        bits | ((self.cfa_offset as u32 as u64) << 32)
    }

    /// Reads the cookie.
    #[inline(always)]
    pub const fn unpack(bits: u64) -> Self {
        let condition = (bits >> CONDITION_SHIFT) & CONDITION_MASK;
        Self {
            id: SiteId((bits & PROBE_MASK) as u32),
            base: if bits & BASE_RBP != 0 {
                CfaBase::FramePointer
            } else {
                CfaBase::StackPointer
            },
            cfa_offset: (bits >> 32) as u32 as i32,
            reads: bits & READS != 0,
            condition: if condition == 0 {
                None
            } else {
                Some((condition - 1) as u8)
            },
        }
    }
}

/// Cookie of the probe in Go's `runtime.recovery`: where the stack pointer of the frame that goes on is
/// found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoverCookie {
    /// In the panic (`g._panic`), which also has the value (Go 1.22 and newer); else in the goroutine.
    pub in_panic: bool,
    /// Offset of the field.
    pub offset: u16,
    /// Offset of the panic's value in it.
    pub value: u8,
}

impl RecoverCookie {
    /// Packs the cookie.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        self.offset as u64 | (self.in_panic as u64) << 16 | (self.value as u64) << 24
    }

    /// Reads the cookie.
    #[inline(always)]
    pub const fn unpack(bits: u64) -> Self {
        Self {
            in_panic: bits & 1 << 16 != 0,
            offset: bits as u16,
            value: (bits >> 24) as u8,
        }
    }
}

/// Cookie of a probe in the unwinder: what kind of unwinding starts there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum RaiseKind {
    /// `_Unwind_RaiseException` and `_Unwind_Resume_or_Rethrow`: an exception is in flight.
    Exception = 0,
    /// `_Unwind_ForcedUnwind`: the thread is being ended (`pthread_exit`, `pthread_cancel`).
    Forced = 1,
    /// `_Unwind_Resume`: a cleanup is done, and either of them goes on. The cleanup may have thrown
    /// and caught something of its own meanwhile.
    Resume = 2,
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::x86_64::condition_holds;
    use std::vec::Vec;

    #[test]
    fn enter_round_trip() {
        for probe in [0, 1, 77, MAX_PROBES - 1] {
            for cfa_offset in [0, 8, -8, i32::MAX, i32::MIN] {
                for bits in 0..32u8 {
                    let cookie = EnterCookie {
                        id: SiteId(probe),
                        base: CfaBase::FramePointer,
                        block: bits & 8 != 0,
                        cfa_offset,
                        part: bits & 1 != 0,
                        tail_calls: bits & 2 != 0,
                        generation: bits >> 2 & 3,
                        reads: bits & 16 != 0,
                        goid: bits,
                    };
                    assert_eq!(EnterCookie::unpack(cookie.pack()), cookie);
                }
            }
        }
    }

    #[test]
    fn exit_round_trip() {
        for condition in (0..16u8).map(Some).chain([None]) {
            for (base, probe_reads) in [
                (CfaBase::StackPointer, true),
                (CfaBase::FramePointer, false),
            ] {
                let cookie = ExitCookie {
                    id: SiteId(12345),
                    base,
                    cfa_offset: -40,
                    condition,
                    reads: probe_reads,
                };
                assert_eq!(ExitCookie::unpack(cookie.pack()), cookie);
            }
        }
    }

    /// The reference: `jcc` itself, executed by the processor with the flags loaded.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn conditions_are_the_processors() {
        macro_rules! taken {
            ($flags:expr, $($jcc:literal),*) => {{
                let mut out = Vec::new();
                $({
                    let taken: u64;
                    // SAFETY: pushes and pops the flags register only, and jumps over one move.
                    unsafe {
                        std::arch::asm!(
                            "push {f}", "popfq", "mov {t}, 1", concat!($jcc, " 2f"), "mov {t}, 0", "2:",
                            f = in(reg) $flags, t = out(reg) taken);
                    }
                    out.push(taken == 1);
                })*
                out
            }};
        }
        for combination in 0..32u64 {
            let mut flags = 0x202u64;
            for (bit, mask) in [1u64, 4, 0x40, 0x80, 0x800].into_iter().enumerate() {
                if combination >> bit & 1 == 1 {
                    flags |= mask;
                }
            }
            let real = taken!(
                flags, "jo", "jno", "jb", "jnb", "je", "jne", "jbe", "ja", "js", "jns", "jp",
                "jnp", "jl", "jge", "jle", "jg"
            );
            for (condition, taken) in real.into_iter().enumerate() {
                assert_eq!(
                    condition_holds(condition as u8, flags),
                    taken,
                    "{condition} {flags:#x}"
                );
            }
        }
    }
}
