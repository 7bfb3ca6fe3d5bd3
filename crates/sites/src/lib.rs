//! Where a probe sits: from a function's bytes to a plan of sites.
//!
//! The position of a probe decides its cost: the kernel emulates some instructions and
//! single-steps the others, which costs a second trap (`emulate`). And it decides what is seen:
//! the entry site must be passed exactly once per call before an argument changes (`entry`), the
//! exit sites exactly once on every way out (`exit`). What can't be proven is refused.
//!
//! **Invariant**: everything here takes bytes and gives a plan; nothing knows a process or a file.

#![forbid(unsafe_code)]

mod x86_64;

use serde::Serialize;

pub use teracron_common::CfaBase;
pub use x86_64::*;

/// Reads `len` bytes of the module's initialised data at a virtual address.
pub type ReadData<'a> = dyn Fn(u64, usize) -> Option<Vec<u8>> + 'a;

/// What the planner needs to know beside the bytes.
pub struct Context<'a> {
    /// What the kernel emulates.
    pub rules: KernelRules,
    /// The module's data, for jump tables.
    pub read_data: &'a ReadData<'a>,
    /// Whether the function that begins at a virtual address is probed too: then a jump there
    /// needs no exit site, both calls end at the other's.
    pub is_probed: &'a dyn Fn(u64) -> bool,
    /// Return probes are allowed for this function.
    pub return_probe: ReturnProbe,
    /// The function may begin with Go's check of the stack, from which it may begin anew.
    pub go: bool,
    /// Registers that must be final at an exit site, by DWARF number: bit by bit. Those of the result,
    /// where it is asked for.
    pub results: u16,
}

/// Whether the end of a function may be seen by a return probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnProbe {
    /// No: something could unwind through the function.
    Never,
    /// Where it is cheaper.
    IfCheaper,
    /// Always: asked for by the user.
    Always,
}

/// Why a function can't be probed safely.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// There is no code.
    #[error("it has no code")]
    Empty,
    /// Too large to analyse.
    #[error("its code is larger than {} MiB", MAX_CODE_BYTES >> 20)]
    TooLarge,
    /// Bytes that are no instruction.
    #[error("the bytes at {0:#x} are no instruction")]
    Undecodable(u64),
    /// A jump into the middle of an instruction.
    #[error("the jump at {0:#x} goes into the middle of an instruction")]
    Overlapping(u64),
    /// A switch whose table was not found.
    #[error("the destinations of the jump at {0:#x} are not known")]
    UnresolvedJump(u64),
    /// Data between the instructions.
    #[error("there is data in its code, at {0:#x}")]
    DataInCode(u64),
    /// A kind of jump out of the function that can't be watched.
    #[error("the instruction at {0:#x} leaves the function in a way that can't be watched")]
    UnwatchableJump(u64),
    /// The end of the bytes is no end of the function.
    #[error("its code runs on past its end at {0:#x}")]
    RunsOn(u64),
    /// A nop of five bytes that no other place can stand for: at an edge of a block of lines, or where a forked
    /// child would die of it.
    #[error("the instruction at {0:#x} is a long nop, which the kernel may replace by a call")]
    LongNop(u64),
    /// A site that no other place can stand for.
    #[error("the kernel can't put a probe on the instruction at {0:#x} (its prefix or its kind)")]
    NotTaken(u64),
    /// The frame is not described.
    #[error("where its frame lies at {0:#x} is not known (no call frame information)")]
    NoFrame(u64),
    /// A Go function that begins in an unknown way.
    #[error("the check of the stack at its beginning was not recognised")]
    StackCheck,
}

/// The site at which a call is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EntrySite {
    /// Virtual address.
    pub address: u64,
    /// Which register the frame address is counted from.
    #[serde(serialize_with = "base_name")]
    pub base: CfaBase,
    /// That register plus this is the frame address (CFA).
    pub cfa_offset: i32,
    /// What a hit costs.
    pub cost: Cost,
}

/// A site at which the end of a call is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ExitSite {
    /// Virtual address.
    pub address: u64,
    /// Which register the frame address is counted from.
    #[serde(serialize_with = "base_name")]
    pub base: CfaBase,
    /// That register plus this is the frame address (CFA).
    pub cfa_offset: i32,
    /// The call ends only where this condition code holds at the site.
    pub condition: Option<u8>,
    /// It leads back to the caller, not to another function.
    pub returns: bool,
    /// What a hit costs.
    pub cost: Cost,
}

fn base_name<S: serde::Serializer>(base: &CfaBase, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(x86_64::name_of(*base))
}

/// How the end of a call is seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitPlan {
    /// A probe on every way out.
    Sites(Vec<ExitSite>),
    /// A return probe, set at the entry site.
    ReturnProbe,
}

/// All sites of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SitePlan {
    /// Where a call is seen to begin.
    pub entry: EntrySite,
    /// How it is seen to end.
    pub exit: ExitPlan,
    /// The function may end by a jump to another probed function (or to its own start), without
    /// an exit site there.
    pub tail_calls: bool,
    /// The function calls nothing.
    pub leaf: bool,
}

impl SitePlan {
    /// Exit sites that lead to another function.
    pub fn jumps_out(&self) -> usize {
        match &self.exit {
            ExitPlan::ReturnProbe => 0,
            ExitPlan::Sites(sites) => sites.iter().filter(|site| !site.returns).count(),
        }
    }

    /// The most expensive exit.
    pub fn exit_cost(&self) -> Cost {
        match &self.exit {
            ExitPlan::ReturnProbe => Cost::Return,
            ExitPlan::Sites(sites) => sites
                .iter()
                .map(|site| site.cost)
                .max()
                .unwrap_or(Cost::Emulated),
        }
    }
}
