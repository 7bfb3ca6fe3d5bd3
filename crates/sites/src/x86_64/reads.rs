//! Which arguments does a function look at? A compiler that knows a function passes it nothing that it does not use
//! (LLVM's "deadargelim", also of functions that others may call; GCC's IPA-SRA, and the memory behind a pointer by its
//! "modref"), and debug information says where the argument would lie. What the code never reads may be anything.

use std::collections::HashMap;

use iced_x86::{
    FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};

use super::{
    Code,
    callers::touched,
    flow::is_immediate,
    prologue::{dwarf_number, is_written},
};

/// Instructions that are looked at, on all ways together.
const MAX_STEPS: usize = 50_000;
/// Calls that are noted.
const MAX_PASSED: usize = 64;

/// What a function reads of what it is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Registers that are read before they are written, by DWARF number, bit by bit.
    pub registers: u16,
    /// Parts of the caller's stack that are read: distance from the frame address (CFA) and bytes.
    pub stack: Vec<(i64, i64)>,
    /// All of the stack may be read: its address is taken, or nobody can tell.
    pub any_stack: bool,
    /// Registers that are handed on as they were: to the function that begins there, or to an unknown one.
    pub passed: Vec<(Option<u64>, u16)>,
}

/// What is known on a way: registers with their first values, and the pointers, from the frame address.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    held: u16,
    rsp: Option<i64>,
    rbp: Option<i64>,
}

impl State {
    /// What two ways have in common, where both may be taken: what one of them still holds is read if it is read.
    fn with(self, other: Self) -> Self {
        Self {
            held: self.held | other.held,
            rsp: self.rsp.filter(|_| self.rsp == other.rsp),
            rbp: self.rbp.filter(|_| self.rbp == other.rbp),
        }
    }
}

/// What a function reads of what it is given, by its own code.
pub fn reads(code: &Code) -> Reads {
    let mut found = Reads::default();
    let mut info = InstructionInfoFactory::new();
    let mut states: HashMap<usize, State> = HashMap::new();
    let start = State {
        held: u16::MAX,
        rsp: Some(-8),
        rbp: None,
    };
    let mut work: Vec<(usize, State)> = code
        .at(code.entry())
        .map(|at| (at, start))
        .into_iter()
        .collect();
    // Where exceptions land, what was given is gone from registers; the stack is not.
    let landed = State {
        held: 0,
        rsp: None,
        rbp: None,
    };
    work.extend(code.pads().iter().map(|pad| (*pad, landed)));
    let mut steps = 0;
    while let Some((index, state)) = work.pop() {
        steps += 1;
        if steps > MAX_STEPS {
            found.registers = u16::MAX;
            found.any_stack = true;
            return found;
        }
        let Some(instruction) = code.instructions().get(index) else {
            continue;
        };
        let mut state = match states.get(&index) {
            Some(known) => {
                let merged = known.with(state);
                if merged == *known {
                    continue;
                }
                merged
            }
            None => state,
        };
        states.insert(index, state);
        found.look(instruction, &state, &mut info);
        let flow = instruction.flow_control();
        let target = instruction.near_branch_target();
        match flow {
            FlowControl::Call | FlowControl::IndirectCall => {
                found.pass((flow == FlowControl::Call).then_some(target), state.held);
                // What a callee leaves as it was are no arguments.
                state.held = 0;
                work.push((index + 1, state));
            }
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
                match code.at(target) {
                    Some(to) => work.push((to, state)),
                    None => found.pass(Some(target), state.held),
                }
                if flow == FlowControl::ConditionalBranch {
                    work.push((index + 1, state));
                }
            }
            FlowControl::IndirectBranch => {
                found.pass(None, state.held);
                // A table of places in this function: any of them.
                found.any_stack = true;
            }
            FlowControl::Next => {
                step(&mut state, instruction, &mut info);
                work.push((index + 1, state));
            }
            _ => {}
        }
    }
    found
}

impl Reads {
    fn pass(&mut self, to: Option<u64>, held: u16) {
        if held == 0 || self.passed.contains(&(to, held)) {
            return;
        }
        if self.passed.len() < MAX_PASSED {
            self.passed.push((to, held));
        } else {
            self.registers |= held;
        }
    }

    /// Notes what an instruction reads.
    fn look(
        &mut self,
        instruction: &Instruction,
        state: &State,
        info: &mut InstructionInfoFactory,
    ) {
        self.registers |= state.held & touched(instruction, info).0;
        if instruction.mnemonic() == Mnemonic::Push
            && instruction.op0_kind() == OpKind::Register
            && instruction.op0_register() != Register::RAX
            && let Some(number) = dwarf_number(instruction.op0_register())
        {
            self.registers |= state.held & 1 << number;
        }
        let base = match instruction.memory_base() {
            Register::RSP => state.rsp,
            Register::RBP => state.rbp,
            _ => return,
        };
        let is_frame = instruction.memory_base() == Register::RSP || state.rbp.is_some();
        let Some(base) = base else {
            self.any_stack |= is_frame;
            return;
        };
        let at = base.wrapping_add(instruction.memory_displacement64() as i64);
        if instruction.mnemonic() == Mnemonic::Lea {
            // To what stands below, nobody counts up.
            self.any_stack |= at >= 0;
            return;
        }
        if instruction.memory_index() != Register::None {
            self.any_stack = true;
            return;
        }
        let size = instruction.memory_size().size().max(1) as i64;
        let is_read = info.info(instruction).used_memory().iter().any(|used| {
            matches!(
                used.access(),
                OpAccess::Read | OpAccess::ReadWrite | OpAccess::CondRead | OpAccess::ReadCondWrite
            )
        });
        if is_read && at.saturating_add(size) > 0 && !self.stack.contains(&(at, size)) {
            self.stack.push((at, size));
        }
    }

    /// Whether a part of the caller's stack is read, at least in part.
    pub fn is_stack_read(&self, at: i64, size: i64) -> bool {
        self.any_stack
            || self.stack.iter().any(|(from, len)| {
                *from < at.saturating_add(size) && at < from.saturating_add(*len)
            })
    }
}

/// What an instruction does to what is known.
fn step(state: &mut State, instruction: &Instruction, info: &mut InstructionInfoFactory) {
    let (rsp, rbp) = (state.rsp, state.rbp);
    let of = |register| match register {
        Register::RSP => rsp,
        Register::RBP => rbp,
        _ => None,
    };
    let op0 = instruction.op0_register();
    let value = match instruction.mnemonic() {
        Mnemonic::Push | Mnemonic::Pop => None,
        Mnemonic::Sub | Mnemonic::Add if op0 == Register::RSP && is_immediate(instruction) => {
            let amount = instruction.immediate(1) as i64;
            rsp.and_then(|rsp| match instruction.mnemonic() {
                Mnemonic::Sub => rsp.checked_sub(amount),
                _ => rsp.checked_add(amount),
            })
        }
        Mnemonic::Mov if instruction.op1_kind() == OpKind::Register => {
            of(instruction.op1_register())
        }
        Mnemonic::Lea if instruction.memory_index() == Register::None => {
            of(instruction.memory_base())
                .and_then(|base| base.checked_add(instruction.memory_displacement64() as i64))
        }
        _ => None,
    };
    let stack_moves = matches!(instruction.mnemonic(), Mnemonic::Push | Mnemonic::Pop);
    for used in info.info(instruction).used_registers() {
        if !is_written(used.access()) {
            continue;
        }
        match used.register().full_register() {
            Register::RSP if stack_moves && op0.full_register() != Register::RSP => {
                state.rsp = rsp.map(|rsp| rsp + i64::from(instruction.stack_pointer_increment()));
            }
            Register::RSP => state.rsp = value,
            Register::RBP => state.rbp = value,
            _ => {}
        }
        // A part of it that is written leaves no argument.
        if let Some(number) = dwarf_number(used.register())
            && matches!(used.access(), OpAccess::Write | OpAccess::ReadWrite)
        {
            state.held &= !(1 << number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CodePart;

    fn of(bytes: &[u8]) -> Reads {
        reads(
            &Code::decode(&[CodePart {
                address: 0x1000,
                bytes: bytes.to_vec(),
            }])
            .unwrap(),
        )
    }

    const RDI: u16 = 1 << 5;
    const RSI: u16 = 1 << 4;

    #[test]
    fn registers_that_are_looked_at() {
        // mov eax,edi; xor esi,esi; add eax,esi; ret
        let found = of(&[0x89, 0xf8, 0x31, 0xf6, 0x01, 0xf0, 0xc3]);
        assert_eq!(found.registers & (RDI | RSI), RDI);
        // test edi,edi; je +2; mov eax,esi; ret
        let found = of(&[0x85, 0xff, 0x74, 0x02, 0x89, 0xf0, 0xc3]);
        assert_eq!(found.registers & (RDI | RSI), RDI | RSI);
        // xor edi,edi; call 0x2000; mov eax,esi; ret: behind the call it is another's
        let found = of(&[0x31, 0xff, 0xe8, 0xf9, 0x0f, 0, 0, 0x89, 0xf0, 0xc3]);
        assert_eq!(found.registers & (RDI | RSI), 0);
        let [(to, held)] = found.passed.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!((*to, held & (RDI | RSI)), (Some(0x2000), RSI));
    }

    #[test]
    fn the_callers_stack() {
        // push rbx; sub rsp,16; mov eax,[rsp+0x28]; add rsp,16; pop rbx; ret
        let found = of(&[
            0x53, 0x48, 0x83, 0xec, 0x10, 0x8b, 0x44, 0x24, 0x28, 0x48, 0x83, 0xc4, 0x10, 0x5b,
            0xc3,
        ]);
        assert_eq!(found.stack, [(8, 4)]);
        assert!(
            found.is_stack_read(8, 8) && found.is_stack_read(0, 9) && !found.is_stack_read(0, 8)
        );
        // push rbp; mov rbp,rsp; mov rax,[rbp+16]; pop rbp; ret
        let found = of(&[0x55, 0x48, 0x89, 0xe5, 0x48, 0x8b, 0x45, 0x10, 0x5d, 0xc3]);
        assert_eq!(
            (found.stack.as_slice(), found.any_stack),
            (&[(0, 8)][..], false)
        );
        // lea rdi,[rsp+8]; jmp 0x2000
        assert!(of(&[0x48, 0x8d, 0x7c, 0x24, 0x08, 0xe9, 0, 0, 0, 0]).any_stack);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 1..200)) {
            if let Ok(code) = Code::decode(&[CodePart { address: 0, bytes }]) {
                let found = reads(&code);
                let _ = found.is_stack_read(i64::MAX, i64::MAX);
            }
        }
    }
}
