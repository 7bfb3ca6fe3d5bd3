//! The entry site: the first cheap instruction that every call passes exactly once before anything
//! that matters has changed.

use iced_x86::{FlowControl, InstructionInfoFactory, Mnemonic, OpKind, Register};

use super::{
    CfaBase, Code, EntrySite, Flow, KernelRules,
    emulate::{self, Cost},
    flow::is_immediate,
    prologue::is_written,
};

/// How far the site may move from the start, in instructions.
const MAX_MOVE: usize = 24;

/// Chooses the entry site; the stack pointer may have moved by a known amount.
pub(super) fn choose(code: &Code, flow: &Flow, rules: KernelRules) -> EntrySite {
    search(code, flow, rules, false)
}

/// Chooses an entry site at which the stack pointer is still that of the entry, as a return probe
/// needs it.
pub(super) fn choose_unmoved(code: &Code, flow: &Flow, rules: KernelRules) -> EntrySite {
    search(code, flow, rules, true)
}

/// The function's first instruction.
pub(super) fn first(code: &Code, rules: KernelRules) -> EntrySite {
    EntrySite {
        address: code.entry(),
        base: CfaBase::StackPointer,
        cfa_offset: 8,
        cost: code.at(code.entry()).map_or(Cost::SingleStep, |index| {
            emulate::cost(code.bytes(index), rules)
        }),
    }
}

/// Chooses the entry site of a Go function: behind the check whether the stack is large enough, because
/// where it is not, the function begins once more. `None` where something else jumps to its start.
pub(super) fn after_stack_check(code: &Code, flow: &Flow, rules: KernelRules) -> Option<EntrySite> {
    if !flow.is_target(code.entry()) {
        return Some(search(code, flow, rules, true));
    }
    let start = code.at(code.entry())?;
    let mut info = InstructionInfoFactory::new();
    for index in start..start.saturating_add(MAX_CHECK) {
        let instruction = code.instructions().get(index)?;
        match instruction.flow_control() {
            FlowControl::Next => {
                // It computes with registers of its own.
                if stack_change(instruction) != Some(0)
                    || info.info(instruction).used_registers().iter().any(|used| {
                        is_written(used.access())
                            && !matches!(
                                used.register().full_register(),
                                Register::R12 | Register::R13
                            )
                    })
                {
                    return None;
                }
            }
            FlowControl::ConditionalBranch => {
                let next = code.instructions().get(index + 1)?;
                if flow.is_target(next.ip()) || !comes_back(code, instruction.near_branch_target())
                {
                    return None;
                }
                return Some(EntrySite {
                    address: next.ip(),
                    base: CfaBase::StackPointer,
                    cfa_offset: 8,
                    cost: emulate::cost(code.bytes(index + 1), rules),
                });
            }
            _ => return None,
        }
    }
    None
}

/// How long the check of the stack is at most, in instructions.
const MAX_CHECK: usize = 8;
/// How long the way to the runtime and back is: arguments are stored and loaded.
const MAX_DETOUR: usize = 64;

/// Whether the code at `address` calls something and then jumps to the function's start.
fn comes_back(code: &Code, address: u64) -> bool {
    let Some(start) = code.at(address) else {
        return false;
    };
    let mut calls = 0;
    for index in start..start.saturating_add(MAX_DETOUR) {
        let Some(instruction) = code.instructions().get(index) else {
            return false;
        };
        match instruction.flow_control() {
            FlowControl::Next => {}
            FlowControl::Call => calls += 1,
            FlowControl::UnconditionalBranch => {
                return calls == 1 && instruction.near_branch_target() == code.entry();
            }
            _ => return false,
        }
    }
    false
}

fn search(code: &Code, flow: &Flow, rules: KernelRules, unmoved: bool) -> EntrySite {
    let first = first(code, rules);
    // A start that is jumped to is passed more than once; nothing behind it is better.
    if rules.whole || first.cost <= Cost::Emulated || flow.is_target(code.entry()) {
        return first;
    }
    let Some(start) = code.at(code.entry()) else {
        return first;
    };
    let mut info = InstructionInfoFactory::new();
    let mut cfa_offset: i32 = 8;
    let mut red_zone_used = false;
    // The first that the kernel takes a probe on, where it does not on the function's first.
    let mut next_best = None;
    for index in start..start.saturating_add(MAX_MOVE) {
        let Some(instruction) = code.instructions().get(index) else {
            break;
        };
        if index != start && (flow.is_target(instruction.ip()) || code.starts_part(index)) {
            break;
        }
        let bytes = code.bytes(index);
        let cost = emulate::cost(bytes, rules);
        // The call that replaces a 5-byte nop pushes into the red zone.
        let hazard = emulate::is_nop5(bytes) && red_zone_used;
        let site = EntrySite {
            address: instruction.ip(),
            base: CfaBase::StackPointer,
            cfa_offset,
            cost,
        };
        if cost <= Cost::Emulated && !hazard {
            return site;
        }
        if !hazard && emulate::is_taken(bytes) && rules.allows(bytes) {
            next_best.get_or_insert(site);
        }
        if instruction.flow_control() != FlowControl::Next {
            break;
        }
        let Some(moved) = stack_change(instruction) else {
            break;
        };
        if unmoved && moved != 0 {
            break;
        }
        let Some(offset) = cfa_offset.checked_add(moved) else {
            break;
        };
        let used = info.info(instruction);
        if used
            .used_registers()
            .iter()
            .any(|used| is_written(used.access()) && is_argument(used.register()))
        {
            break;
        }
        red_zone_used |= used.used_memory().iter().any(|memory| {
            is_written(memory.access())
                && memory.base() == Register::RSP
                && (memory.displacement() as i64) < 0
        });
        cfa_offset = offset;
    }
    // Which is the first itself, nearly always.
    next_best.unwrap_or(first)
}

/// Registers that carry arguments (System V ABI), or what else a caller passes: `al` for variable
/// arguments, `r10` for a static chain.
fn is_argument(register: Register) -> bool {
    let full = register.full_register();
    matches!(
        full,
        Register::RDI
            | Register::RSI
            | Register::RDX
            | Register::RCX
            | Register::R8
            | Register::R9
            | Register::R10
            | Register::RAX
    ) || (register.is_vector_register() && register.number() < 8)
}

/// By how much the instruction moves the frame address away from the stack pointer; `None` where
/// that is not known.
fn stack_change(instruction: &iced_x86::Instruction) -> Option<i32> {
    match instruction.mnemonic() {
        Mnemonic::Push => Some(-instruction.stack_pointer_increment()),
        Mnemonic::Pop | Mnemonic::Leave | Mnemonic::Enter | Mnemonic::Popfq | Mnemonic::Pushfq => {
            None
        }
        Mnemonic::Sub | Mnemonic::Add
            if instruction.op0_kind() == OpKind::Register
                && instruction.op0_register() == Register::RSP =>
        {
            if !is_immediate(instruction) {
                return None;
            }
            let amount = i32::try_from(instruction.immediate(1) as i64).ok()?;
            if instruction.mnemonic() == Mnemonic::Sub {
                Some(amount)
            } else {
                amount.checked_neg()
            }
        }
        _ => {
            let writes_rsp = instruction.op_count() > 0
                && instruction.op0_kind() == OpKind::Register
                && instruction.op0_register().full_register() == Register::RSP
                && !matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test);
            (!writes_rsp && instruction.mnemonic() != Mnemonic::Xchg).then_some(0)
        }
    }
}
