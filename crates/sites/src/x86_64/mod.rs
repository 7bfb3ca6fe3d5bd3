//! What knows the instructions of x86-64, its registers and what the kernel does with each under a probe.
//!
//! Another architecture is a folder beside this one with the same face.

mod accessor;
mod block;
mod boundaries;
mod callers;
mod data;
mod decode;
mod emulate;
mod entry;
mod errno;
mod exit;
mod flow;
mod future;
mod own_return;
mod plan;
mod prologue;
mod reads;
mod remaps;
mod runtime;
mod stack;
mod tables;

use crate::{
    CfaBase, Context, EntrySite, ExitPlan, ExitSite, ReadData, Refusal, ReturnProbe, SitePlan,
};

pub use accessor::{Accessed, accessed};
pub use block::{Block, plan as plan_block};
pub use boundaries::{WholeCode, begins_one, is_nops, whole_code};
pub use callers::{Changes, MENTION, Mention, Use, changes, mentions};
pub(crate) use decode::MAX_CODE_BYTES;
pub use decode::{Code, CodePart};
pub use emulate::{Cost, KernelRules, Nop5, cost, is_nop5, is_taken};
pub use errno::{ErrnoPlace, errno_place};
use flow::is_immediate;
pub use flow::{Flow, Leave};
pub use future::{Poll, poll};
pub use own_return::{OwnReturn, own_return};
pub use plan::plan;
pub use prologue::{Origin, Prologue, Spill};
pub use reads::{Reads, reads};
pub use remaps::{BEFORE_SYSTEM_CALL, maps_over_code};
pub use runtime::{first_go_load, passes_minus_one_second, returned_field};
pub use stack::{StackUse, stack_use};

/// The register that a frame address is counted from.
pub(crate) fn name_of(base: CfaBase) -> &'static str {
    match base {
        CfaBase::StackPointer => "rsp",
        CfaBase::FramePointer => "rbp",
    }
}
