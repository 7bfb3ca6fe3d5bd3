//! Where instructions and functions begin and end, for whoever asks whether a table is right.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind};

/// Whether code is nothing but nops.
pub fn is_nops(code: &[u8]) -> bool {
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    let nops = decoder
        .iter()
        .take_while(|instruction| instruction.mnemonic() == Mnemonic::Nop);
    nops.map(|instruction| instruction.len()).sum::<usize>() == code.len()
}

/// Whether, decoded from the beginning, an instruction begins at an offset.
pub fn begins_one(code: &[u8], offset: usize) -> bool {
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    while decoder.position() < offset {
        if !decoder.can_decode() || decoder.decode().is_invalid() {
            return false;
        }
    }
    decoder.position() == offset
}

/// What a function has, to the start of the next: whether that begins and ends with `int3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WholeCode {
    /// Its first instruction is one.
    pub begins_padded: bool,
    /// Its last one is.
    pub ends_padded: bool,
}

/// Decodes what a function has, to the start of the next: `None` where it is not instructions, an end, and padding.
pub fn whole_code(code: &[u8]) -> Option<WholeCode> {
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    let (mut ends, mut calls) = (true, false);
    let (mut begins_padded, mut ends_padded) = (false, false);
    while decoder.can_decode() {
        let is_first = decoder.position() == 0;
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            return None;
        }
        ends_padded = instruction.mnemonic() == Mnemonic::Int3;
        begins_padded |= is_first && ends_padded;
        if is_padding(&instruction) {
            calls = false;
        } else {
            ends = leaves(&instruction);
            // Behind a call that does not return Go has a nop, so that its return address is in the function.
            calls = matches!(
                instruction.flow_control(),
                FlowControl::Call | FlowControl::IndirectCall
            );
        }
    }
    (ends && !calls).then_some(WholeCode {
        begins_padded,
        ends_padded,
    })
}

/// What lies between functions.
fn is_padding(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Int3 | Mnemonic::Nop)
        // Zeros, where a C linker aligned: `add [rax], al`.
        || (instruction.mnemonic() == Mnemonic::Add
            && instruction.len() == 2
            && instruction.memory_displacement64() == 0
            && instruction.op0_kind() == OpKind::Memory)
}

/// Whether code may end with an instruction; a call may be of what does not return.
fn leaves(instruction: &Instruction) -> bool {
    matches!(
        instruction.flow_control(),
        FlowControl::Return
            | FlowControl::UnconditionalBranch
            | FlowControl::IndirectBranch
            | FlowControl::Call
            | FlowControl::IndirectCall
            | FlowControl::Exception
            | FlowControl::Interrupt
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn boundaries_are_found() {
        // nop; nop dword [rax]; ret
        let code = [0x90, 0x0f, 0x1f, 0x00, 0xc3];
        assert!(is_nops(&code[..4]) && !is_nops(&code) && !is_nops(&code[..3]));
        assert!(is_nops(&[]));
        for (offset, begins) in [true, true, false, false, true, true]
            .into_iter()
            .enumerate()
        {
            assert_eq!(begins_one(&code, offset), begins, "{offset}");
        }
        assert!(!begins_one(&code, 6));
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at(code in proptest::collection::vec(any::<u8>(), 0..80), offset in 0usize..90) {
            let _ = (is_nops(&code), begins_one(&code, offset), whole_code(&code));
        }
    }
}
