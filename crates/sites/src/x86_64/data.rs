//! Data between a function's instructions, as people put it there in assembly. Where it begins, decoding goes wrong,
//! and what follows it is taken for other instructions.

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};

use super::{Code, Refusal};

/// Refuses code with data in it; `passed`: by index, whether a way through the function passes the instruction.
/// Data is read by the code around it, or makes instructions that no compiler writes.
pub(super) fn refuse(code: &Code, passed: &[bool]) -> Result<(), Refusal> {
    let is_passed = |index: usize| passed.get(index) == Some(&true);
    for (index, instruction) in code.instructions().iter().enumerate() {
        if !is_passed(index) {
            if is_odd(instruction) {
                return Err(Refusal::DataInCode(instruction.ip()));
            }
            continue;
        }
        let Some(read) = data_read(instruction) else {
            continue;
        };
        if code.contains(read) && !code.at(read).is_some_and(is_passed) {
            return Err(Refusal::DataInCode(read));
        }
    }
    Ok(())
}

/// The address of a constant that an instruction reads, or takes the address of.
fn data_read(instruction: &Instruction) -> Option<u64> {
    if matches!(
        instruction.flow_control(),
        FlowControl::Call | FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
    ) || instruction.mnemonic() == Mnemonic::Nop
    {
        return None;
    }
    if instruction.is_ip_rel_memory_operand() {
        return Some(instruction.ip_rel_memory_address());
    }
    let has_memory =
        (0..instruction.op_count()).any(|operand| instruction.op_kind(operand) == OpKind::Memory);
    let is_absolute = has_memory
        && instruction.memory_base() == Register::None
        && instruction.segment_prefix() == Register::None;
    is_absolute.then(|| instruction.memory_displacement64())
}

/// Whether an instruction is none that programs are made of: for the kernel, for devices, or of another age.
fn is_odd(instruction: &Instruction) -> bool {
    let is_padding = matches!(instruction.mnemonic(), Mnemonic::Hlt | Mnemonic::Int3);
    let is_far = matches!(
        instruction.op0_kind(),
        OpKind::FarBranch16 | OpKind::FarBranch32
    ) || matches!(
        instruction.mnemonic(),
        Mnemonic::Retf
            | Mnemonic::Iret
            | Mnemonic::Iretd
            | Mnemonic::Iretq
            | Mnemonic::Int
            | Mnemonic::Int1
    );
    let is_io = matches!(
        instruction.mnemonic(),
        Mnemonic::In
            | Mnemonic::Out
            | Mnemonic::Insb
            | Mnemonic::Insd
            | Mnemonic::Outsb
            | Mnemonic::Outsd
    );
    !is_padding && (is_far || is_io || instruction.is_privileged())
}
