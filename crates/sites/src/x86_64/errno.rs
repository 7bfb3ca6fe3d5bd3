//! Where a process keeps `errno`, read off the code of `__errno_location`.

use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind, Register};
use serde::{Deserialize, Serialize};

use super::is_immediate;

/// Instructions of `__errno_location` that are looked at.
const MAX_INSTRUCTIONS: usize = 12;

/// Words of memory that the place of `errno` may be the sum of.
const MAX_WORDS: usize = 4;

/// Where `errno` lies, counted from the thread's control block (`fs`): a number, and what stands in words of the
/// process's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrnoPlace {
    distance: i64,
    /// Addresses of the file.
    words: Vec<u64>,
}

impl ErrnoPlace {
    /// The distance in a process; `read` gives eight bytes of its memory at an address of the file. `None` where that
    /// can't be read.
    pub fn in_process(&self, read: &dyn Fn(u64) -> Option<u64>) -> Option<i64> {
        let mut words = self.words.iter().take(MAX_WORDS);
        words.try_fold(self.distance, |sum, address| {
            sum.checked_add(read(*address)?.cast_signed())
        })
    }
}

/// Reads off the code of `__errno_location` where `errno` lies.
pub fn errno_place(code: &[u8], address: u64) -> Option<ErrnoPlace> {
    // What rax is: (control block counted in, distance).
    let mut value: Option<(bool, i64)> = None;
    let mut words: Vec<u64> = Vec::new();
    let instructions = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    for instruction in instructions.into_iter().take(MAX_INSTRUCTIONS) {
        let to_rax = instruction.op_count() > 0
            && instruction.op0_kind() == OpKind::Register
            && instruction.op0_register().full_register() == Register::RAX;
        let of_block = instruction.op_count() > 1
            && instruction.op1_kind() == OpKind::Memory
            && instruction.segment_prefix() == Register::FS
            && instruction.memory_base() == Register::None
            && instruction.memory_displacement64() == 0;
        match instruction.mnemonic() {
            Mnemonic::Endbr64 | Mnemonic::Nop => {}
            Mnemonic::Ret => {
                return value
                    .and_then(|(block, distance)| block.then_some(ErrnoPlace { distance, words }));
            }
            Mnemonic::Mov if to_rax && of_block => {
                words.clear();
                value = Some((true, 0));
            }
            Mnemonic::Mov if to_rax && is_immediate(&instruction) => {
                words.clear();
                value = Some((false, instruction.immediate(1) as i64));
            }
            Mnemonic::Mov if to_rax && instruction.is_ip_rel_memory_operand() => {
                words = vec![instruction.ip_rel_memory_address()];
                value = Some((false, 0));
            }
            Mnemonic::Add if to_rax && of_block => {
                let (block, distance) = value?;
                value = (!block).then_some((true, distance));
            }
            Mnemonic::Add | Mnemonic::Sub if to_rax && is_immediate(&instruction) => {
                let (block, distance) = value?;
                let amount = instruction.immediate(1) as i64;
                value = Some((
                    block,
                    if instruction.mnemonic() == Mnemonic::Add {
                        distance.checked_add(amount)?
                    } else {
                        distance.checked_sub(amount)?
                    },
                ));
            }
            Mnemonic::Add if to_rax && instruction.is_ip_rel_memory_operand() => {
                value?;
                words.push(instruction.ip_rel_memory_address());
                if words.len() > MAX_WORDS {
                    return None;
                }
            }
            Mnemonic::Lea
                if to_rax
                    && instruction.memory_base() == Register::RAX
                    && instruction.memory_index() == Register::None =>
            {
                let (block, distance) = value?;
                value = Some((
                    block,
                    distance.checked_add(instruction.memory_displacement64() as i64)?,
                ));
            }
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errno_offset(code: &[u8], word: Option<i64>) -> Option<i64> {
        errno_place(code, 0)?.in_process(&|_| word.map(i64::cast_unsigned))
    }

    #[test]
    fn of_static_programs_and_musl() {
        // mov rax, -64; add rax, fs:0; ret
        let code = [
            0x48, 0xc7, 0xc0, 0xc0, 0xff, 0xff, 0xff, 0x64, 0x48, 0x03, 0x04, 0x25, 0, 0, 0, 0,
            0xc3,
        ];
        assert_eq!(errno_offset(&code, None), Some(-64));
        // mov rax, fs:0; add rax, 0x34; ret
        let code = [
            0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0x48, 0x83, 0xc0, 0x34, 0xc3,
        ];
        assert_eq!(errno_offset(&code, None), Some(0x34));
        assert_eq!(errno_offset(&[0xc3], None), None);
        assert_eq!(errno_offset(&[0x90; 40], None), None);
    }
}
