//! How a Rust future is polled, read off its code: which argument is its address, and where in it the byte
//! lies that says where the state machine stands. It is the first byte that a poll reads of the future,
//! and what it does next depends on it.

use std::collections::HashMap;

use iced_x86::{
    FlowControl, Instruction, InstructionInfoFactory, MemorySize, Mnemonic, OpKind, Register,
};

use super::{Code, prologue::is_written};

/// How far a poll is followed to its first look at the state, in instructions.
const MAX_INSTRUCTIONS: usize = 96;
/// How soon after that look it must matter.
const MAX_LOOK: usize = 10;

/// How a future is polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poll {
    /// Its address is the second argument, not the first.
    pub is_second: bool,
    /// Offset of the state byte.
    pub state_offset: u32,
    /// The code tells more states apart than a flag has.
    pub is_machine: bool,
}

/// Reads a poll's code; `known`: the state's offset, where the debug information has it.
pub fn poll(code: &Code, known: Option<u64>) -> Option<Poll> {
    let mut held = HashMap::from([(Register::RDI, false), (Register::RSI, true)]);
    let mut stored: HashMap<(Register, u64), bool> = HashMap::new();
    let mut info = InstructionInfoFactory::new();
    let start = code.at(code.entry())?;
    for index in start..start + MAX_INSTRUCTIONS {
        let instruction = code.instructions().get(index)?;
        match instruction.flow_control() {
            FlowControl::Next => {}
            // Large frames touch each of their pages first.
            FlowControl::ConditionalBranch
                if instruction.near_branch_target() < instruction.ip() => {}
            _ => return None,
        }
        if let Some((base, offset)) = byte_read(instruction)
            && let Some(is_second) = held.get(&base)
            && known.is_none_or(|known| known == offset)
        {
            return Some(Poll {
                is_second: *is_second,
                state_offset: u32::try_from(offset).ok()?,
                is_machine: is_machine(code, index),
            });
        }
        let moved = moved(instruction, &held, &stored);
        if let Some(place) = store(instruction) {
            match held.get(&instruction.op1_register()) {
                Some(argument) => stored.insert(place, *argument),
                None => stored.remove(&place),
            };
        }
        for used in info.info(instruction).used_registers() {
            let register = used.register().full_register();
            if is_written(used.access()) {
                held.remove(&register);
                if matches!(register, Register::RSP | Register::RBP) {
                    stored.retain(|(base, _), _| *base != register);
                }
            }
        }
        if let Some((register, argument)) = moved {
            held.insert(register, argument);
        }
    }
    None
}

/// Base and offset of the byte that an instruction reads.
fn byte_read(instruction: &Instruction) -> Option<(Register, u64)> {
    let operand = match instruction.mnemonic() {
        Mnemonic::Movzx | Mnemonic::Mov => 1,
        Mnemonic::Cmp | Mnemonic::Test => 0,
        _ => return None,
    };
    (instruction.op_count() > operand
        && instruction.op_kind(operand) == OpKind::Memory
        && matches!(
            instruction.memory_size(),
            MemorySize::UInt8 | MemorySize::Int8
        )
        && instruction.memory_index() == Register::None)
        .then(|| {
            (
                instruction.memory_base(),
                instruction.memory_displacement64(),
            )
        })
}

/// A whole register's place on the stack that an instruction writes.
fn store(instruction: &Instruction) -> Option<(Register, u64)> {
    (instruction.mnemonic() == Mnemonic::Mov
        && instruction.op0_kind() == OpKind::Memory
        && instruction.op1_kind() == OpKind::Register
        && instruction.memory_index() == Register::None
        && matches!(instruction.memory_base(), Register::RSP | Register::RBP))
    .then(|| {
        (
            instruction.memory_base(),
            instruction.memory_displacement64(),
        )
    })
}

/// The register that has an argument after an instruction.
fn moved(
    instruction: &Instruction,
    held: &HashMap<Register, bool>,
    stored: &HashMap<(Register, u64), bool>,
) -> Option<(Register, bool)> {
    if instruction.mnemonic() != Mnemonic::Mov || instruction.op0_kind() != OpKind::Register {
        return None;
    }
    let argument = match instruction.op1_kind() {
        OpKind::Register => held.get(&instruction.op1_register()),
        OpKind::Memory if instruction.memory_index() == Register::None => stored.get(&(
            instruction.memory_base(),
            instruction.memory_displacement64(),
        )),
        _ => None,
    };
    argument.map(|argument| (instruction.op0_register(), *argument))
}

/// Whether what was read is told apart from more than zero: by a table of jumps, or from 2 or 3.
fn is_machine(code: &Code, look: usize) -> bool {
    code.instructions()
        .iter()
        .skip(look)
        .take(MAX_LOOK)
        .any(|instruction| {
            instruction.flow_control() == FlowControl::IndirectBranch
                || (instruction.mnemonic() == Mnemonic::Cmp
                    && instruction.op_count() == 2
                    && super::is_immediate(instruction)
                    && matches!(instruction.immediate(1), 2..=255))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CodePart;

    fn read(bytes: &[u8], known: Option<u64>) -> Option<Poll> {
        let code = Code::decode(&[CodePart {
            address: 0x1000,
            bytes: bytes.to_vec(),
        }])
        .unwrap();
        poll(&code, known)
    }

    #[test]
    fn the_first_byte_that_is_read_of_the_future() {
        // push rbx; mov rbx,rsi; movzx eax,byte [rbx+0x3c]; lea rcx,[rip]; movsxd rax,[rcx+rax*4];
        // add rax,rcx; jmp rax
        let mut code = vec![
            0x53, 0x48, 0x89, 0xf3, 0x0f, 0xb6, 0x43, 0x3c, 0x48, 0x8d, 0x0d, 0, 0, 0, 0, 0x48,
            0x63, 0x04, 0x81, 0x48, 0x01, 0xc8, 0xff, 0xe0,
        ];
        let found = Poll {
            is_second: true,
            state_offset: 0x3c,
            is_machine: true,
        };
        assert_eq!(read(&code, None), Some(found));
        assert_eq!(read(&code, Some(0x3c)), Some(found));
        assert_eq!(read(&code, Some(0x3d)), None);
        // mov rsi,rax before the look: it is no argument any more.
        code.splice(1..1, [0x48, 0x89, 0xc6]);
        assert_eq!(read(&code, None), None);
    }

    #[test]
    fn through_the_stack() {
        // sub rsp,0x18; mov [rsp+8],rdi; xor edi,edi; mov rax,[rsp+8]; cmp byte [rax+4],0; ret
        let code = [
            0x48, 0x83, 0xec, 0x18, 0x48, 0x89, 0x7c, 0x24, 0x08, 0x31, 0xff, 0x48, 0x8b, 0x44,
            0x24, 0x08, 0x80, 0x78, 0x04, 0x00, 0xc3,
        ];
        let found = read(&code, None).unwrap();
        assert_eq!((found.is_second, found.state_offset), (false, 4));
        // A flag, as far as the code tells.
        assert!(!found.is_machine);
    }
}
