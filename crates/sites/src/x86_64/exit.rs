//! The exit sites: one on every way out, each at the cheapest instruction of the straight line
//! that leads there.

use iced_x86::{
    FlowControl, Instruction, InstructionInfo, InstructionInfoFactory, Mnemonic, OpKind, Register,
};
use teracron_common::CfaBase;

use super::{
    Code, Context, ExitSite, Flow,
    emulate::{self, Cost},
    flow::{self, Leave, LeaveTo, is_immediate},
    prologue::{dwarf_number, is_written},
};

/// How far a site may move up from the way out, in instructions.
const MAX_MOVE: usize = 24;

/// Chooses the exit sites. Also answers whether there are jumps to other probed functions, which
/// get none.
pub(super) fn choose(
    code: &Code,
    flow: &Flow,
    context: &Context<'_>,
    entry: u64,
) -> (Vec<ExitSite>, bool) {
    let mut sites = Vec::with_capacity(flow.leaves.len());
    let mut to_probed = false;
    for leave in &flow.leaves {
        if let LeaveTo::Function(target) = leave.to
            && (context.is_probed)(target)
        {
            to_probed = true;
            continue;
        }
        sites.push(site(code, flow, context, entry, leave));
    }
    merge(&mut sites);
    (sites, to_probed)
}

/// A conditional jump out whose other side runs into a return leaves the function either way: one
/// site without a condition does for both.
fn merge(sites: &mut Vec<ExitSite>) {
    let mut merged: Vec<ExitSite> = Vec::with_capacity(sites.len());
    for site in sites.drain(..) {
        let twin = merged.iter_mut().rev().take(2).find(|other| {
            other.address == site.address
                && (other.base, other.cfa_offset) == (site.base, site.cfa_offset)
                && matches!((other.condition, site.condition), (Some(a), Some(b)) if a == b ^ 1)
        });
        match twin {
            Some(other) => {
                other.condition = None;
                other.returns &= site.returns;
            }
            None => merged.push(site),
        }
    }
    *sites = merged;
}

fn site(code: &Code, flow: &Flow, context: &Context<'_>, entry: u64, leave: &Leave) -> ExitSite {
    let rules = context.rules;
    let mut info = InstructionInfoFactory::new();
    let instruction = &code.instructions()[leave.index];
    let last = ExitSite {
        address: instruction.ip(),
        base: CfaBase::StackPointer,
        cfa_offset: 8,
        condition: leave.condition,
        returns: leave.to == LeaveTo::Caller,
        cost: emulate::cost(code.bytes(leave.index), rules),
    };
    if rules.whole
        || leave.condition.is_some()
        || last.cost <= Cost::Emulated && instruction.ip() != entry
    {
        return last;
    }
    // Up the straight line, as long as nothing joins it and the frame address can be told.
    let (mut base, mut offset) = (CfaBase::StackPointer, 8i32);
    let mut index = leave.index;
    for _ in 0..MAX_MOVE {
        let below = &code.instructions()[index];
        if flow.is_target(below.ip()) || code.starts_part(index) || below.ip() == entry {
            break;
        }
        index -= 1;
        let above = &code.instructions()[index];
        if above.ip() == entry {
            break;
        }
        if context.results != 0 && writes_any(info.info(above), context.results) {
            break;
        }
        let cost = emulate::cost(code.bytes(index), rules);
        match above.flow_control() {
            FlowControl::Next => {
                // Only one-byte nops and their kin: a 5-byte nop may be made a call, which writes
                // below the stack pointer.
                if cost == Cost::Emulated && above.mnemonic() == Mnemonic::Nop {
                    return ExitSite {
                        address: above.ip(),
                        base,
                        cfa_offset: offset,
                        condition: None,
                        returns: last.returns,
                        cost,
                    };
                }
                match undo(above, base, offset) {
                    Some(before) => (base, offset) = before,
                    None => break,
                }
            }
            FlowControl::ConditionalBranch => {
                // The way out is taken where the jump is not.
                if cost == Cost::Emulated
                    && let Some(condition) = flow::condition(above)
                {
                    return ExitSite {
                        address: above.ip(),
                        base,
                        cfa_offset: offset,
                        condition: Some(condition ^ 1),
                        returns: last.returns,
                        cost,
                    };
                }
                break;
            }
            _ => break,
        }
    }
    last
}

/// Whether an instruction writes one of these registers, or memory, where a large result lies.
fn writes_any(used: &InstructionInfo, registers: u16) -> bool {
    let memory = used.used_memory().iter();
    memory.into_iter().any(|memory| is_written(memory.access()))
        || used.used_registers().iter().any(|used| {
            is_written(used.access())
                && dwarf_number(used.register()).is_some_and(|number| registers >> number & 1 == 1)
        })
}

/// Where the frame address lies before `instruction`, if it lies at `base + offset` after it.
fn undo(instruction: &Instruction, base: CfaBase, offset: i32) -> Option<(CfaBase, i32)> {
    let writes = |register| {
        instruction.op_count() > 0
            && instruction.op0_kind() == OpKind::Register
            && instruction.op0_register().full_register() == register
            && !matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test)
    };
    if base == CfaBase::FramePointer {
        let touches = writes(Register::RBP)
            || matches!(
                instruction.mnemonic(),
                Mnemonic::Leave | Mnemonic::Enter | Mnemonic::Xchg
            );
        return (!touches).then_some((base, offset));
    }
    match instruction.mnemonic() {
        Mnemonic::Pop if !writes(Register::RSP) => Some((
            base,
            offset.checked_add(instruction.stack_pointer_increment())?,
        )),
        Mnemonic::Leave => Some((CfaBase::FramePointer, offset.checked_add(8)?)),
        Mnemonic::Mov
            if writes(Register::RSP)
                && instruction.op1_kind() == OpKind::Register
                && instruction.op1_register() == Register::RBP =>
        {
            Some((CfaBase::FramePointer, offset))
        }
        Mnemonic::Lea if writes(Register::RSP) => {
            if instruction.memory_index() != Register::None {
                return None;
            }
            let displacement = i32::try_from(instruction.memory_displacement64() as i64).ok()?;
            let base = match instruction.memory_base() {
                Register::RSP => CfaBase::StackPointer,
                Register::RBP => CfaBase::FramePointer,
                _ => return None,
            };
            Some((base, offset.checked_add(displacement)?))
        }
        Mnemonic::Add | Mnemonic::Sub if writes(Register::RSP) => {
            if !is_immediate(instruction) {
                return None;
            }
            let amount = i32::try_from(instruction.immediate(1) as i64).ok()?;
            let offset = if instruction.mnemonic() == Mnemonic::Add {
                offset.checked_add(amount)?
            } else {
                offset.checked_sub(amount)?
            };
            Some((base, offset))
        }
        Mnemonic::Push | Mnemonic::Pushfq | Mnemonic::Popfq | Mnemonic::Enter | Mnemonic::Xchg => {
            None
        }
        _ => (!writes(Register::RSP)).then_some((base, offset)),
    }
}
