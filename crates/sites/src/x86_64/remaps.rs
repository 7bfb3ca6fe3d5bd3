//! Code that maps other memory over code by a system call of its own.
//!
//! A function that exchanges the program's text can't call anything that lies in it, so it makes its system calls
//! itself: `mmap` with PROT_EXEC and MAP_FIXED, or `mremap` with MREMAP_FIXED, and its arguments are constants that
//! stand before the `syscall` instruction. A C library's own wrappers have them from their callers and are not meant.

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, Register,
};

/// Bytes before a system call that are looked at: whoever reads code in parts lets them overlap by so many.
pub const BEFORE_SYSTEM_CALL: usize = 160;

/// System calls' numbers (arch/x86/entry/syscalls/syscall_64.tbl).
const MMAP: u64 = 9;
const MREMAP: u64 = 25;
/// Flags of mman.h.
const PROT_EXEC: u64 = 4;
const MAP_FIXED: u64 = 0x10;
const MREMAP_FIXED: u64 = 2;

/// Address of a system call in some code that maps other memory over code.
pub fn maps_over_code(code: &[u8], address: u64) -> Option<u64> {
    let mut from = 0;
    while let Some(found) = find_syscall(code.get(from..)?) {
        let at = from + found;
        from = at + 2;
        let start = at.saturating_sub(BEFORE_SYSTEM_CALL);
        let before = code.get(start..at)?;
        if is_worth_it(before) && is_over_code(before) {
            return Some(address.wrapping_add(at as u64));
        }
    }
    None
}

/// Where the next `0f 05` is.
fn find_syscall(code: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let found = code.get(from..)?.iter().position(|byte| *byte == 0x0f)?;
        let at = from + found;
        if code.get(at + 1) == Some(&0x05) {
            return Some(at);
        }
        from = at + 1;
    }
}

/// Whether a number of the two calls is loaded at all: most `0f 05` are parts of other instructions.
fn is_worth_it(before: &[u8]) -> bool {
    [MMAP, MREMAP].into_iter().any(|call| {
        let call = call as u8;
        // mov eax, N; mov rax, N; push N, pop rax; mov al, N.
        before
            .windows(5)
            .any(|bytes| matches!(bytes, [0xb8 | 0xc0, number, 0, 0, 0] if *number == call))
            || before
                .windows(2)
                .any(|bytes| matches!(bytes, [0x6a | 0xb0, number] if *number == call))
    })
}

/// Whether the code before a `syscall` makes it one of those. Where the instructions begin is not known: every
/// place is tried, and a reading counts that ends exactly at the `syscall`.
fn is_over_code(before: &[u8]) -> bool {
    let mut info = InstructionInfoFactory::new();
    (0..before.len()).any(|start| {
        let code = before.get(start..).unwrap_or_default();
        read(code, &mut info).is_some_and(|known| {
            let flags = known.get(Register::R10);
            match known.get(Register::RAX) {
                Some(MMAP) => {
                    known
                        .get(Register::RDX)
                        .is_some_and(|rights| rights & PROT_EXEC != 0)
                        && flags.is_some_and(|flags| flags & MAP_FIXED != 0)
                }
                Some(MREMAP) => flags.is_some_and(|flags| flags & MREMAP_FIXED != 0),
                _ => false,
            }
        })
    })
}

/// Registers with known values.
#[derive(Default)]
struct Known([Option<u64>; 16]);

impl Known {
    fn get(&self, register: Register) -> Option<u64> {
        self.0.get(index(register)?).copied().flatten()
    }

    fn set(&mut self, register: Register, value: Option<u64>) {
        if let Some(slot) = index(register).and_then(|index| self.0.get_mut(index)) {
            *slot = value;
        }
    }
}

/// Of a general register, of whatever width.
fn index(register: Register) -> Option<usize> {
    register.is_gpr().then(|| register.full_register().number())
}

/// What the registers hold after straight code; `None` where it does not decode to its very end.
fn read(code: &[u8], info: &mut InstructionInfoFactory) -> Option<Known> {
    let mut known = Known::default();
    let mut pushed = None;
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            return None;
        }
        match instruction.flow_control() {
            FlowControl::Next | FlowControl::ConditionalBranch => {}
            // Whatever a function leaves, and what comes from elsewhere.
            _ => {
                known = Known::default();
                pushed = None;
                continue;
            }
        }
        let value = constant(&instruction, &known, pushed);
        pushed = match instruction.mnemonic() {
            Mnemonic::Push => operand(&instruction, 0, &known),
            _ => None,
        };
        for used in info.info(&instruction).used_registers() {
            if matches!(
                used.access(),
                OpAccess::Write
                    | OpAccess::ReadWrite
                    | OpAccess::CondWrite
                    | OpAccess::ReadCondWrite
            ) {
                known.set(used.register(), None);
            }
        }
        if value.is_some() && instruction.op0_kind() == OpKind::Register {
            known.set(instruction.op0_register(), value);
        }
    }
    Some(known)
}

/// What an instruction puts into its first operand, where that is known.
fn constant(instruction: &Instruction, known: &Known, pushed: Option<u64>) -> Option<u64> {
    let to = instruction.op0_register();
    if instruction.op0_kind() != OpKind::Register || !to.is_gpr() {
        return None;
    }
    let width = to.size();
    let source = || operand(instruction, 1, known);
    let value = match instruction.mnemonic() {
        // Sixteen bits and the second byte of a register are not how such constants are made.
        _ if width == 2
            || matches!(
                to,
                Register::AH | Register::BH | Register::CH | Register::DH
            ) =>
        {
            return None;
        }
        Mnemonic::Mov if width == 1 => (known.get(to)? & !0xff) | (source()? & 0xff),
        Mnemonic::Mov => source()?,
        Mnemonic::Xor | Mnemonic::Sub
            if instruction.op1_kind() == OpKind::Register && instruction.op1_register() == to =>
        {
            0
        }
        Mnemonic::Or => known.get(to)? | source()?,
        Mnemonic::And => known.get(to)? & source()?,
        Mnemonic::Add => known.get(to)?.wrapping_add(source()?),
        Mnemonic::Pop => pushed?,
        Mnemonic::Lea => lea(instruction, known)?,
        _ => return None,
    };
    Some(if width == 4 {
        value & 0xffff_ffff
    } else {
        value
    })
}

/// An address as a constant: `lea edx, [rax + 7]`.
fn lea(instruction: &Instruction, known: &Known) -> Option<u64> {
    if instruction.is_ip_rel_memory_operand() || instruction.code() == Code::Lea_r16_m {
        return None;
    }
    let part = |register: Register| match register {
        Register::None => Some(0),
        register => known.get(register),
    };
    let scaled =
        part(instruction.memory_index())?.wrapping_mul(u64::from(instruction.memory_index_scale()));
    Some(
        part(instruction.memory_base())?
            .wrapping_add(scaled)
            .wrapping_add(instruction.memory_displacement64()),
    )
}

/// The value of an operand.
fn operand(instruction: &Instruction, number: u32, known: &Known) -> Option<u64> {
    match instruction.op_kind(number) {
        OpKind::Register => known.get(instruction.op_register(number)),
        OpKind::Memory
        | OpKind::NearBranch16
        | OpKind::NearBranch32
        | OpKind::NearBranch64
        | OpKind::FarBranch16
        | OpKind::FarBranch32 => None,
        _ => instruction.try_immediate(number).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `mmap(…, …, 7, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, …)` as gcc writes it.
    const MOVER: &[u8] = &[
        0xb8, 9, 0, 0, 0, // mov eax, 9
        0x48, 0x89, 0xdf, // mov rdi, rbx
        0x4c, 0x89, 0xe6, // mov rsi, r12
        0xba, 7, 0, 0, 0, // mov edx, 7
        0x41, 0xba, 0x32, 0, 0, 0, // mov r10d, 0x32
        0x49, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff, // mov r8, -1
        0x45, 0x31, 0xc9, // xor r9d, r9d
        0x0f, 0x05, // syscall
    ];

    fn changed(at: usize, byte: u8) -> Vec<u8> {
        let mut code = MOVER.to_vec();
        code[at] = byte;
        code
    }

    #[test]
    fn a_mapping_over_code_is_seen() {
        assert_eq!(
            maps_over_code(MOVER, 0x1000),
            Some(0x1000 + MOVER.len() as u64 - 2)
        );
        // Whatever stands before it.
        for byte in 0..=255u8 {
            let code = [&[byte; 100][..], MOVER].concat();
            assert!(maps_over_code(&code, 0).is_some(), "{byte:#x}");
        }
        // push 9; pop rax; push 5; pop rdx; push 0x12; pop r10; syscall
        let short = [
            0x6a, 9, 0x58, 0x6a, 5, 0x5a, 0x6a, 0x12, 0x41, 0x5a, 0x0f, 5,
        ];
        assert!(maps_over_code(&short, 0).is_some());
        // xor eax, eax; mov al, 25; mov r10d, 3; syscall
        let remap = [0x31, 0xc0, 0xb0, 25, 0x41, 0xba, 3, 0, 0, 0, 0x0f, 5];
        assert!(maps_over_code(&remap, 0).is_some());
    }

    #[test]
    fn other_system_calls_are_not() {
        // read; memory without code; where the kernel likes.
        for (at, byte) in [(1, 0), (12, 3), (18, 0x22)] {
            assert_eq!(maps_over_code(&changed(at, byte), 0), None, "{at}");
        }
        // Its arguments are its caller's: the C library's wrapper.
        let wrapper = [0xb8, 9, 0, 0, 0, 0x49, 0x89, 0xca, 0x0f, 5];
        assert_eq!(maps_over_code(&wrapper, 0), None);
        // A call in between.
        let mut code = MOVER[..MOVER.len() - 2].to_vec();
        code.extend([0xe8, 0, 0, 0, 0, 0x0f, 5]);
        assert_eq!(maps_over_code(&code, 0), None);
        assert_eq!(maps_over_code(&[], 0), None);
        assert_eq!(maps_over_code(&[0x0f], 0), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(code in proptest::collection::vec(any::<u8>(), 0..400), at: usize) {
            let mut code = code;
            if !code.is_empty() {
                let at = at % code.len();
                code.splice(at.., [0x6a, 9, 0x0f, 5]);
            }
            let _ = maps_over_code(&code, u64::MAX - 5);
        }
    }
}
