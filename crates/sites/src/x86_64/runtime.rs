//! Facts that only the code of a runtime's functions tells: at which places it keeps what.

use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind, Register};

use super::is_immediate;

/// Instructions that are looked at for a first load.
const MAX_LOOKED_AT: usize = 16;

/// The offset of the field that a function returns of the structure that its first argument points to:
/// `mov rax, [rdi + offset]; ret`.
pub fn returned_field(code: &[u8], address: u64) -> Option<u64> {
    let mut field = None;
    for instruction in Decoder::with_ip(64, code, address, DecoderOptions::NONE).iter() {
        match instruction.mnemonic() {
            Mnemonic::Endbr64 | Mnemonic::Nop => {}
            Mnemonic::Mov
                if instruction.op0_kind() == OpKind::Register
                    && instruction.op0_register() == Register::RAX
                    && instruction.op1_kind() == OpKind::Memory
                    && instruction.memory_base() == Register::RDI
                    && instruction.memory_index() == Register::None =>
            {
                field = Some(instruction.memory_displacement64());
            }
            Mnemonic::Ret => return field,
            _ => return None,
        }
    }
    None
}

/// Whether a function's code passes -1 as a second argument.
pub fn passes_minus_one_second(code: &[u8], address: u64) -> bool {
    Decoder::with_ip(64, code, address, DecoderOptions::NONE)
        .iter()
        .any(|instruction| {
            instruction.mnemonic() == Mnemonic::Mov
                && instruction.op0_kind() == OpKind::Register
                && instruction.op0_register().full_register() == Register::RSI
                && is_immediate(&instruction)
                && instruction.immediate(1) as u32 == u32::MAX
        })
}

/// The offset of the first field that a function of Go loads of the structure that its first argument points to.
pub fn first_go_load(code: &[u8], address: u64) -> Option<u64> {
    Decoder::with_ip(64, code, address, DecoderOptions::NONE)
        .into_iter()
        .take(MAX_LOOKED_AT)
        .find(|instruction| {
            instruction.mnemonic() == Mnemonic::Mov
                && instruction.op0_kind() == OpKind::Register
                && instruction.op1_kind() == OpKind::Memory
                && instruction.memory_base() == Register::RAX
                && instruction.memory_index() == Register::None
        })
        .map(|load| load.memory_displacement64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_off_the_code() {
        // endbr64; mov rax, [rdi+0x20]; ret
        let code = [0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x8b, 0x47, 0x20, 0xc3];
        assert_eq!(returned_field(&code, 0), Some(0x20));
        // Indexed, or more than that.
        assert_eq!(
            returned_field(&[0x48, 0x8b, 0x44, 0x37, 0x20, 0xc3], 0),
            None
        );
        assert_eq!(
            returned_field(&[0x48, 0x8b, 0x47, 0x20, 0x90, 0xcc], 0),
            None
        );
        assert_eq!(returned_field(&[0xc3], 0), None);
        // push rbp; mov rcx, [rax+0x1b8]
        let go = [0x55, 0x48, 0x8b, 0x88, 0xb8, 1, 0, 0];
        assert_eq!(first_go_load(&go, 0), Some(0x1b8));
        // mov esi, -1
        assert!(passes_minus_one_second(&[0xbe, 0xff, 0xff, 0xff, 0xff], 0));
        assert!(!passes_minus_one_second(&[0xbe, 0xfe, 0xff, 0xff, 0xff], 0));
    }
}
