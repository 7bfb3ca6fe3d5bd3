//! Does a function return what its type says? A compiler that sees all callers of a function drops a
//! result that none of them uses, or that is always the same, and says so nowhere. A register that is
//! set right before a way back, and that nothing else reads, is set for the caller: if that is seen on
//! one way, the function returns something there on every way.

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind};

use super::{
    Code,
    flow::Flow,
    prologue::{dwarf_number, is_written},
};

/// Instructions that are looked at before each way back.
const MAX_BACK: usize = 32;
/// Instructions that are looked at in all.
const MAX_STEPS: usize = 20_000;

/// Registers, bit by bit as DWARF numbers them, that the function is seen to set for its caller; of
/// those in `wanted`.
pub fn proven(code: &Code, flow: &Flow, wanted: u16) -> u16 {
    let mut found = 0;
    let mut steps = 0;
    let mut info = InstructionInfoFactory::new();
    let jumps = jumps_to(code);
    for leave in flow.leaves.iter().filter(|leave| !leave.is_tail_call()) {
        // (place, registers whose setting is still looked for, distance)
        let mut work = vec![(leave.index, wanted, 0)];
        while let Some((index, open, distance)) = work.pop() {
            steps += 1;
            if steps > MAX_STEPS || found == wanted {
                return found;
            }
            if distance >= MAX_BACK || open & !found == 0 {
                continue;
            }
            let Some(instruction) = code.instructions().get(index) else {
                continue;
            };
            if index > 0 && !code.starts_part(index) {
                let above = &code.instructions()[index - 1];
                if above.flow_control() == FlowControl::Next {
                    let left = open & !look(above, &mut info, open, &mut found);
                    work.push((index - 1, left, distance + 1));
                }
            }
            for from in jumps.get(&instruction.ip()).into_iter().flatten() {
                work.push((*from, open, distance + 1));
            }
        }
    }
    found
}

/// Unconditional jumps, by where they go.
fn jumps_to(code: &Code) -> std::collections::HashMap<u64, Vec<usize>> {
    let mut jumps: std::collections::HashMap<u64, Vec<usize>> = std::collections::HashMap::new();
    for (index, instruction) in code.instructions().iter().enumerate() {
        if instruction.flow_control() == FlowControl::UnconditionalBranch {
            jumps
                .entry(instruction.near_branch_target())
                .or_default()
                .push(index);
        }
    }
    jumps
}

/// Looks at an instruction; answers the registers that it decides about, either way.
fn look(
    instruction: &Instruction,
    info: &mut InstructionInfoFactory,
    open: u16,
    found: &mut u16,
) -> u16 {
    let mut decided = 0;
    let target = (instruction.op_count() > 0 && instruction.op0_kind() == OpKind::Register)
        .then(|| dwarf_number(instruction.op0_register()))
        .flatten();
    for used in info.info(instruction).used_registers() {
        let Some(number) = dwarf_number(used.register()) else {
            continue;
        };
        let bit = 1u16 << number;
        if open & bit == 0 {
            continue;
        }
        if is_written(used.access()) && target == Some(number) && sets(instruction) {
            *found |= bit;
            decided |= bit;
        } else if used.access() != OpAccess::None {
            decided |= bit;
        }
    }
    decided
}

/// Whether an instruction's only purpose is to set the register that it names first.
fn sets(instruction: &Instruction) -> bool {
    match instruction.mnemonic() {
        Mnemonic::Xchg
        | Mnemonic::Xadd
        | Mnemonic::Cmpxchg
        | Mnemonic::Mul
        | Mnemonic::Div
        | Mnemonic::Idiv
        | Mnemonic::Pop
        | Mnemonic::Cmp
        | Mnemonic::Test => false,
        // With one operand it sets two registers.
        Mnemonic::Imul => instruction.op_count() > 1,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CodePart;

    fn results(bytes: &[u8]) -> u16 {
        let code = Code::decode(&[CodePart {
            address: 0x1000,
            bytes: bytes.to_vec(),
        }])
        .unwrap();
        let flow = Flow::analyse(&code, &|_, _| None).unwrap();
        proven(&code, &flow, 0b11)
    }

    #[test]
    fn what_is_set_for_the_caller() {
        // mov eax,1; ret
        assert_eq!(results(&[0xb8, 1, 0, 0, 0, 0xc3]), 0b01);
        // lea rax,[rip]; mov edx,4; ret
        assert_eq!(
            results(&[0x48, 0x8d, 0x05, 0, 0, 0, 0, 0xba, 4, 0, 0, 0, 0xc3]),
            0b11
        );
        // xor eax,eax; jmp +1; nop; pop rbx; ret
        assert_eq!(results(&[0x31, 0xc0, 0xeb, 0x01, 0x90, 0x5b, 0xc3]), 0b01);
        // test edi,edi; sete al; ret
        assert_eq!(results(&[0x85, 0xff, 0x0f, 0x94, 0xc0, 0xc3]), 0b01);
    }

    #[test]
    fn what_is_left_over() {
        // mov rax,[rdi]; mov [rsi],rax; ret
        assert_eq!(results(&[0x48, 0x8b, 0x07, 0x48, 0x89, 0x06, 0xc3]), 0);
        // call 0; ret
        assert_eq!(results(&[0xe8, 0, 0, 0, 0, 0xc3]), 0);
        // xor edx,edx; div rsi; ret: rdx is what div leaves
        assert_eq!(results(&[0x31, 0xd2, 0x48, 0xf7, 0xf6, 0xc3]), 0);
        // mov eax,1; test edi,edi; jz +2; push rax; pop rcx; ret: read on one way
        assert_eq!(
            results(&[0xb8, 1, 0, 0, 0, 0x85, 0xff, 0x74, 0x02, 0x50, 0x59, 0xc3]),
            0
        );
    }
}
