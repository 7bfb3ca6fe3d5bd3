//! Sites of a block of source lines: a call of it begins at its first statement and ends with whatever
//! leaves its code.

use std::collections::HashSet;

use teracron_common::CfaBase;

use super::{
    Code, EntrySite, ExitPlan, ExitSite, Flow, KernelRules, Refusal, SitePlan,
    emulate::{self, is_nop5},
};

/// A block of code within a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Address of its first statement.
    pub entry: u64,
    /// Its code: first address and end.
    pub ranges: Vec<(u64, u64)>,
    /// Where the frame address lies: from, to, register, distance.
    pub frames: Vec<(u64, u64, CfaBase, i32)>,
    /// How deep it lies in other blocks of the function, from 1: tells their frames apart.
    pub depth: i32,
}

impl Block {
    /// Whether an address is in it.
    pub fn contains(&self, address: u64) -> bool {
        self.ranges
            .iter()
            .any(|(start, end)| (*start..*end).contains(&address))
    }

    /// The block's frame address at an instruction: below the function's own, above what it calls.
    fn frame_at(&self, address: u64) -> Option<(CfaBase, i32)> {
        self.frames
            .iter()
            .find(|(start, end, _, _)| (*start..*end).contains(&address))
            .and_then(|(_, _, base, offset)| Some((*base, offset.checked_sub(self.depth)?)))
    }
}

/// Plans the sites of a block.
///
/// # Errors
/// Where the function's code is not understood, or the block's edges can't be watched.
pub fn plan(
    code: &Code,
    flow: &Flow,
    block: &Block,
    rules: KernelRules,
) -> Result<SitePlan, Refusal> {
    let site = |index: usize| -> Result<(u64, CfaBase, i32, emulate::Cost), Refusal> {
        let address = code.instructions()[index].ip();
        let bytes = code.bytes(index);
        // Newer kernels make a call of it, which writes below the stack pointer.
        if is_nop5(bytes) {
            return Err(Refusal::LongNop(address));
        }
        let (base, offset) = block.frame_at(address).ok_or(Refusal::NoFrame(address))?;
        Ok((address, base, offset, emulate::cost(bytes, rules)))
    };
    let start = code
        .at(block.entry)
        .ok_or(Refusal::Overlapping(block.entry))?;
    let (address, base, cfa_offset, cost) = site(start)?;
    let entry = EntrySite {
        address,
        base,
        cfa_offset,
        cost,
    };
    let mut exits = Vec::new();
    let mut seen = HashSet::new();
    for (index, instruction) in code.instructions().iter().enumerate() {
        if !block.contains(instruction.ip()) {
            continue;
        }
        for leave in flow.leaves.iter().filter(|leave| leave.index == index) {
            let (address, base, cfa_offset, cost) = site(index)?;
            exits.push(ExitSite {
                address,
                base,
                cfa_offset,
                condition: leave.condition,
                returns: false,
                cost,
            });
        }
        for next in flow.successors(code, index)? {
            let outside = !block.contains(code.instructions()[next].ip());
            if outside && seen.insert(next) {
                let (address, base, cfa_offset, cost) = site(next)?;
                exits.push(ExitSite {
                    address,
                    base,
                    cfa_offset,
                    condition: None,
                    returns: false,
                    cost,
                });
            }
        }
    }
    SitePlan {
        entry,
        exit: ExitPlan::Sites(exits),
        tail_calls: false,
        leaf: false,
    }
    .taken(code, rules)
}
