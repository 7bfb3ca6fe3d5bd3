//! What code does that return probes can't stand: system calls of its own, another stack pointer, a walk along the
//! frame pointers. The code is read in a line, so functions that have no symbol count too.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

/// What an instruction does that return probes can't stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackUse {
    /// It makes a system call: outside of the C library nobody knows which.
    SystemCall,
    /// It gives the stack pointer a value that is not the frame's own.
    SetsPointer,
    /// It walks the stack along the frame pointers.
    WalksFrames,
}

/// The first instruction that does such a thing, and its address.
pub fn stack_use(code: &[u8], address: u64) -> Option<(StackUse, u64)> {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut frames = Frames::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let does = if makes_system_call(&instruction) {
            StackUse::SystemCall
        } else if sets_stack_pointer(&instruction) {
            StackUse::SetsPointer
        } else if frames.are_walked(&instruction) {
            StackUse::WalksFrames
        } else {
            continue;
        };
        return Some((does, instruction.ip()));
    }
    None
}

/// `syscall` and its older forms: outside of the C library nobody knows which.
fn makes_system_call(instruction: &Instruction) -> bool {
    match instruction.mnemonic() {
        Mnemonic::Syscall | Mnemonic::Sysenter => true,
        Mnemonic::Int => instruction.immediate(0) == 0x80,
        _ => false,
    }
}

/// Whether an instruction gives the stack pointer a value that is not the frame's own.
fn sets_stack_pointer(instruction: &Instruction) -> bool {
    if instruction.op0_kind() != OpKind::Register {
        return false;
    }
    let to_sp = instruction.op0_register() == Register::RSP;
    match instruction.mnemonic() {
        Mnemonic::Mov => {
            to_sp
                && !(instruction.op1_kind() == OpKind::Register
                    && instruction.op1_register() == Register::RBP)
        }
        // `lea rsp, [rbp - 40]` ends a frame, `[r10 - 8]` one that was aligned.
        Mnemonic::Lea => {
            to_sp
                && !matches!(
                    instruction.memory_base(),
                    Register::RSP | Register::RBP | Register::R10 | Register::R13
                )
        }
        Mnemonic::Xchg => to_sp || instruction.op1_register() == Register::RSP,
        Mnemonic::Pop => to_sp,
        _ => false,
    }
}

/// Whether `rbp` is a frame pointer, in code that is read in a line.
#[derive(Default)]
struct Frames {
    /// The caller's was pushed, and the stack pointer still points there.
    pushed: bool,
    /// It is one: it points to the caller's, below the return address.
    is_set: bool,
}

impl Frames {
    /// Whether an instruction loads the caller's frame pointer from the frame, or passes on where the frame lies: the
    /// first step of a walk (`__builtin_return_address(1)`, `__builtin_frame_address(0)`).
    fn are_walked(&mut self, instruction: &Instruction) -> bool {
        let is_register = |place: u32| instruction.op_kind(place) == OpKind::Register;
        let writes_first = instruction.op_count() > 0
            && is_register(0)
            && !matches!(
                instruction.mnemonic(),
                Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Push | Mnemonic::Bt | Mnemonic::Nop
            );
        let is_mov = instruction.mnemonic() == Mnemonic::Mov && writes_first;
        let to_rbp = writes_first && instruction.op0_register().full_register() == Register::RBP;
        let pushed = std::mem::replace(&mut self.pushed, false);
        if instruction.mnemonic() == Mnemonic::Push {
            self.pushed = is_register(0) && instruction.op0_register() == Register::RBP;
            return false;
        }
        if to_rbp {
            if is_mov && is_register(1) && instruction.op1_register() == Register::RSP {
                // Without the push it is a pointer to a local.
                self.is_set = pushed;
            } else if instruction.mnemonic() != Mnemonic::Pop {
                // A pointer like any other, until the next frame is set up.
                self.is_set = false;
            }
            return false;
        }
        // Other things may be done between the two.
        self.pushed = pushed
            && instruction.flow_control() == FlowControl::Next
            && !instruction.is_stack_instruction()
            && !(writes_first && instruction.op0_register() == Register::RSP);
        if instruction.mnemonic() == Mnemonic::Xchg
            && instruction.op1_register().full_register() == Register::RBP
        {
            self.is_set = false;
        }
        if !self.is_set || !writes_first || instruction.op0_register().size() != 8 {
            return false;
        }
        let at_frame = instruction.op_count() > 1
            && instruction.op1_kind() == OpKind::Memory
            && instruction.memory_base() == Register::RBP
            && instruction.memory_index() == Register::None
            && instruction.memory_displacement64() == 0;
        match instruction.mnemonic() {
            Mnemonic::Mov if is_register(1) => {
                instruction.op1_register() == Register::RBP
                    && instruction.op0_register() != Register::RSP
            }
            Mnemonic::Mov => at_frame && instruction.segment_prefix() == Register::None,
            Mnemonic::Lea => at_frame && instruction.op0_register() != Register::RSP,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8], ask: &mut dyn FnMut(&Instruction) -> bool) -> Vec<usize> {
        let instructions = Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE).into_iter();
        instructions
            .enumerate()
            .filter(|(_, instruction)| ask(instruction))
            .map(|(place, _)| place)
            .collect()
    }

    #[test]
    fn system_calls_and_stack_switches() {
        // syscall; int 0x80; sysenter; int 3; int 0x81
        let calls = [0x0f, 0x05, 0xcd, 0x80, 0x0f, 0x34, 0xcc, 0xcd, 0x81];
        assert_eq!(decoded(&calls, &mut makes_system_call), [0, 1, 2]);
        // mov rsp,rsi; mov rsp,rbp; lea rsp,[rbp-8]; xchg rsp,rax; pop rsp; sub rsp,8
        let stack = [
            0x48, 0x89, 0xf4, 0x48, 0x89, 0xec, 0x48, 0x8d, 0x65, 0xf8, 0x48, 0x94, 0x5c, 0x48,
            0x83, 0xec, 0x08,
        ];
        assert_eq!(decoded(&stack, &mut sets_stack_pointer), [0, 3, 4]);
    }

    #[test]
    fn walks_along_frame_pointers() {
        let walked = |bytes: &[u8]| {
            let mut frames = Frames::default();
            decoded(bytes, &mut |instruction| frames.are_walked(instruction))
        };
        // push rbp; mov rbp,rsp; mov rax,[rbp]; mov rax,[rax+8]; pop rbp; ret
        assert_eq!(
            walked(&[
                0x55, 0x48, 0x89, 0xe5, 0x48, 0x8b, 0x45, 0, 0x48, 0x8b, 0x40, 8, 0x5d, 0xc3
            ]),
            [2]
        );
        // push rbp; mov rbp,rsp; mov rdi,rbp; lea rsi,[rbp]; mov rsp,rbp; pop rbp; ret
        assert_eq!(
            walked(&[
                0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0xef, 0x48, 0x8d, 0x75, 0, 0x48, 0x89, 0xec,
                0x5d, 0xc3
            ]),
            [2, 3]
        );
        // …; mov rax,[rbp-8]; mov rax,[rbp+16]; pop rbp; ret; push rbp; mov rbp,rdi; mov rax,[rbp]; mov rdi,rbp
        assert_eq!(
            walked(&[
                0x55, 0x48, 0x89, 0xe5, 0x48, 0x8b, 0x45, 0xf8, 0x48, 0x8b, 0x45, 0x10, 0x5d, 0xc3,
                0x55, 0x48, 0x89, 0xfd, 0x48, 0x8b, 0x45, 0, 0x48, 0x89, 0xef
            ]),
            [] as [usize; 0]
        );
        // A pointer to locals: push rbp; sub rsp,16; mov rbp,rsp; mov rdi,rbp
        assert_eq!(
            walked(&[
                0x55, 0x48, 0x83, 0xec, 0x10, 0x48, 0x89, 0xe5, 0x48, 0x89, 0xef
            ]),
            [] as [usize; 0]
        );
        // push rbp; xor eax,eax; mov rbp,rsp; push rbx; mov rdi,rbp
        assert_eq!(
            walked(&[0x55, 0x31, 0xc0, 0x48, 0x89, 0xe5, 0x53, 0x48, 0x89, 0xef]),
            [4]
        );
    }
}
