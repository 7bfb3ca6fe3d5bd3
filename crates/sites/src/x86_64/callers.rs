//! Is a function's result a result? A compiler that knows all callers of a function drops what none of them looks at,
//! or what is always the same, and says so nowhere: the register then holds anything. What is in the code says more:
//! who calls a function and reads the register before anything writes it was promised something there.
//!
//! Sources: System V psABI for x86-64, section 3.2.3; GCC internals, "IPA-SRA" and `-fipa-ra`; LLVM's passes
//! "deadargelim" and "ipsccp".

use std::collections::HashSet;

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind};

use super::{
    Code,
    prologue::{dwarf_number, is_written},
};

/// Instructions that are followed behind one call, on all ways together.
const MAX_FOLLOWED: usize = 96;

/// Bytes of an instruction by which it names another place: a distance, or an address.
pub const MENTION: usize = 4;

/// Bytes that may name an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mention {
    /// Where they lie.
    pub at: u64,
    /// What they name.
    pub of: u64,
}

/// Finds what may name one of `wanted` (ascending) in code that begins at `address`; `fixed`: the program always lies
/// at its addresses, so that they may be named as they are. Whether it does is for [`Mention::by`] to say.
pub fn mentions(bytes: &[u8], address: u64, wanted: &[u64], fixed: bool) -> Vec<Mention> {
    let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else {
        return Vec::new();
    };
    let span = last.wrapping_sub(*first);
    let mut found = Vec::new();
    // Short jumps: a byte that is the distance from behind it.
    for of in wanted {
        for distance in i8::MIN..=i8::MAX {
            let at = of.wrapping_sub(1).wrapping_add_signed(-i64::from(distance));
            let place = usize::try_from(at.wrapping_sub(address)).ok();
            if place.and_then(|place| bytes.get(place)) == Some(&(distance as u8)) {
                found.push(Mention { at, of: *of });
            }
        }
    }
    let mut next = address;
    for window in bytes.windows(MENTION) {
        let at = next;
        next = next.wrapping_add(1);
        let Some(four) = window.first_chunk::<MENTION>() else {
            break;
        };
        let distance = i32::from_le_bytes(*four);
        let end = at.wrapping_add(MENTION as u64);
        let named = end.wrapping_add_signed(distance.into());
        if named.wrapping_sub(*first) <= span && wanted.binary_search(&named).is_ok() {
            found.push(Mention { at, of: named });
        }
        let named = u64::from(u32::from_le_bytes(*four));
        if fixed && named.wrapping_sub(*first) <= span && wanted.binary_search(&named).is_ok() {
            found.push(Mention { at, of: named });
        }
    }
    found
}

/// How an instruction uses a function that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It calls it.
    Call {
        /// Registers that are read behind, before they are written: by DWARF number, bit by bit.
        read: u16,
        /// Those with which the caller then returns.
        passed: u16,
    },
    /// It goes on there: the caller's result is that function's.
    Jump,
    /// It takes its address.
    Address,
}

impl Mention {
    /// How the function in whose code it lies uses what it names; `None` where it does not.
    pub fn by(&self, code: &Code, wanted: u16) -> Option<Use> {
        let index = code.over(self.at)?;
        let instruction = code.instructions().get(index)?;
        match instruction.flow_control() {
            FlowControl::Call if instruction.near_branch_target() == self.of => {
                let (read, passed) = looked_at(code, index + 1, wanted);
                Some(Use::Call { read, passed })
            }
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
                if instruction.near_branch_target() == self.of =>
            {
                Some(Use::Jump)
            }
            FlowControl::Next => takes(instruction, self.of).then_some(Use::Address),
            _ => None,
        }
    }
}

/// Whether an instruction takes an address.
fn takes(instruction: &Instruction, of: u64) -> bool {
    match instruction.mnemonic() {
        Mnemonic::Lea => {
            instruction.is_ip_rel_memory_operand() && instruction.ip_rel_memory_address() == of
        }
        Mnemonic::Mov | Mnemonic::Push => (0..instruction.op_count()).any(|operand| {
            matches!(
                instruction.op_kind(operand),
                OpKind::Immediate32 | OpKind::Immediate32to64
            ) && instruction.immediate(operand) == of
        }),
        _ => false,
    }
}

/// Registers that are read from an instruction on before they are written, and those that are handed to the caller.
fn looked_at(code: &Code, start: usize, wanted: u16) -> (u16, u16) {
    let (mut read, mut passed) = (0, 0);
    let mut info = InstructionInfoFactory::new();
    let mut work = vec![(start, wanted)];
    let mut seen = HashSet::new();
    let mut steps = 0;
    while let Some((index, mut open)) = work.pop() {
        open &= !read;
        steps += 1;
        if open == 0 || steps > MAX_FOLLOWED || code.starts_part(index) || !seen.insert(index) {
            continue;
        }
        let Some(instruction) = code.instructions().get(index) else {
            continue;
        };
        match instruction.flow_control() {
            FlowControl::Next => {
                let (reads, writes) = touched(instruction, &mut info);
                read |= open & reads;
                work.push((index + 1, open & !(reads | writes)));
            }
            FlowControl::ConditionalBranch => {
                work.extend(
                    code.at(instruction.near_branch_target())
                        .map(|to| (to, open)),
                );
                work.push((index + 1, open));
            }
            FlowControl::UnconditionalBranch => {
                work.extend(
                    code.at(instruction.near_branch_target())
                        .map(|to| (to, open)),
                );
            }
            FlowControl::Return => passed |= open,
            _ => {}
        }
    }
    (read, passed & !read)
}

/// Registers that an instruction reads for what is in them, and those that it writes.
pub(super) fn touched(instruction: &Instruction, info: &mut InstructionInfoFactory) -> (u16, u16) {
    let (mut reads, mut writes) = (0, 0);
    for used in info.info(instruction).used_registers() {
        let Some(number) = dwarf_number(used.register()) else {
            continue;
        };
        if is_written(used.access()) {
            writes |= 1 << number;
        }
        if matches!(
            used.access(),
            OpAccess::Read | OpAccess::ReadWrite | OpAccess::CondRead | OpAccess::ReadCondWrite
        ) {
            reads |= 1 << number;
        }
    }
    if reads_nothing(instruction) {
        (0, writes)
    } else {
        (reads, writes)
    }
}

/// Whether an instruction names a register that it only seems to read.
fn reads_nothing(instruction: &Instruction) -> bool {
    let same = || {
        instruction.op1_kind() == OpKind::Register
            && instruction.op0_kind() == OpKind::Register
            && instruction.op0_register() == instruction.op1_register()
    };
    let constant = || match instruction.op1_kind() {
        OpKind::Register | OpKind::Memory => None,
        _ => Some(instruction.immediate(1)),
    };
    match instruction.mnemonic() {
        // For room on the stack, or to give it back later.
        Mnemonic::Push | Mnemonic::Nop | Mnemonic::Endbr64 => true,
        Mnemonic::Xor | Mnemonic::Sub | Mnemonic::Sbb | Mnemonic::Xchg => same(),
        // The short way to write -1, and 0.
        Mnemonic::Or => constant().is_some_and(|value| matches!(value as i8, -1)),
        Mnemonic::And => constant() == Some(0),
        _ => false,
    }
}

/// What a function's own code does to registers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Those that it writes, by DWARF number, bit by bit.
    pub written: u16,
    /// It calls, or goes on in, code that is not named.
    pub elsewhere: bool,
    /// Functions that it calls, or goes on in.
    pub calls: Vec<u64>,
}

/// What a function's own code does to registers. What does not change one leaves it to its caller, who may know
/// (`-fipa-ra`), so that a look at it behind a call says nothing.
pub fn changes(code: &Code) -> Changes {
    let mut found = Changes::default();
    let mut info = InstructionInfoFactory::new();
    for instruction in code.instructions() {
        match instruction.flow_control() {
            // What is given back is not changed.
            FlowControl::Next if instruction.mnemonic() == Mnemonic::Pop => {}
            FlowControl::Next => found.written |= touched(instruction, &mut info).1,
            FlowControl::IndirectCall | FlowControl::IndirectBranch => found.elsewhere = true,
            FlowControl::Call | FlowControl::UnconditionalBranch
                if !code.contains(instruction.near_branch_target()) =>
            {
                found.calls.push(instruction.near_branch_target());
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CodePart;

    fn code(address: u64, bytes: &[u8]) -> Code {
        Code::decode(&[CodePart {
            address,
            bytes: bytes.to_vec(),
        }])
        .unwrap()
    }

    /// A call of 0x2000, and this behind it.
    fn behind(bytes: &[u8]) -> (u16, u16) {
        let mut all = vec![0xe8];
        all.extend_from_slice(&(0x2000i32 - 0x1005).to_le_bytes());
        all.extend_from_slice(bytes);
        let found = mentions(&all, 0x1000, &[0x2000], false);
        assert_eq!(
            found,
            [Mention {
                at: 0x1001,
                of: 0x2000
            }]
        );
        match found[0].by(&code(0x1000, &all), 0b11) {
            Some(Use::Call { read, passed }) => (read, passed),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_looked_at_behind_a_call() {
        // mov ebx,eax
        assert_eq!(behind(&[0x89, 0xc3, 0xc3]), (1, 0b10));
        // test al,al; je +1; nop; ret
        assert_eq!(behind(&[0x84, 0xc0, 0x74, 0x01, 0x90, 0xc3]), (1, 0b10));
        // add rsp,8; ret
        assert_eq!(behind(&[0x48, 0x83, 0xc4, 0x08, 0xc3]), (0, 0b11));
        // je +2; mov ecx,edx; mov [rax],ecx; ret: one way looks at rdx
        assert_eq!(
            behind(&[0x74, 0x02, 0x89, 0xd1, 0x89, 0x08, 0xc3]),
            (0b11, 0)
        );
    }

    #[test]
    fn what_only_seems_to_be_looked_at() {
        // xor eax,eax; xor edx,edx; ret
        assert_eq!(behind(&[0x31, 0xc0, 0x31, 0xd2, 0xc3]), (0, 0));
        // or eax,-1; and edx,0; ret
        assert_eq!(behind(&[0x83, 0xc8, 0xff, 0x83, 0xe2, 0x00, 0xc3]), (0, 0));
        // setne al; movzx eax,al; sbb edx,edx; ret
        assert_eq!(
            behind(&[0x0f, 0x95, 0xc0, 0x0f, 0xb6, 0xc0, 0x19, 0xd2, 0xc3]),
            (0, 0)
        );
        // push rax; nop [rax+rax]; call 0; mov ebx,eax
        assert_eq!(
            behind(&[0x50, 0x0f, 0x1f, 0x04, 0x00, 0xe8, 0, 0, 0, 0, 0x89, 0xc3]),
            (0, 0)
        );
    }

    #[test]
    fn who_names_a_function() {
        // lea rdi,[rip+0x2000-0x1007]; jmp 0x2000; mov edi,0x2000
        let mut bytes = vec![0x48, 0x8d, 0x3d];
        bytes.extend_from_slice(&(0x2000i32 - 0x1007).to_le_bytes());
        bytes.push(0xe9);
        bytes.extend_from_slice(&(0x2000i32 - 0x100c).to_le_bytes());
        bytes.push(0xbf);
        bytes.extend_from_slice(&0x2000i32.to_le_bytes());
        let code = code(0x1000, &bytes);
        let uses = |fixed| -> Vec<_> {
            mentions(&bytes, 0x1000, &[0x1800, 0x2000], fixed)
                .iter()
                .map(|mention| mention.by(&code, 1))
                .collect()
        };
        assert_eq!(uses(false), [Some(Use::Address), Some(Use::Jump)]);
        assert_eq!(uses(true)[2], Some(Use::Address));
        // A short jump back to the start.
        let bytes = [&bytes[..], &[0xeb, 0xfe - 17]].concat();
        let code = self::code(0x1000, &bytes);
        let found = mentions(&bytes, 0x1000, &[0x1000], false);
        assert!(
            found
                .iter()
                .any(|mention| mention.by(&code, 1) == Some(Use::Jump))
        );
        // What the bytes name by chance, no instruction names.
        let chance = Mention {
            at: 0x1002,
            of: 0x3000,
        };
        assert_eq!(chance.by(&code, 1), None);
    }

    #[test]
    fn what_a_function_changes() {
        // mov eax,edi; call [rip]; jmp 0x2000
        let found = changes(&code(
            0x1000,
            &[0x89, 0xf8, 0xff, 0x15, 0, 0, 0, 0, 0xe9, 0xf3, 0x0f, 0, 0],
        ));
        assert_eq!((found.written, found.elsewhere), (1, true));
        assert_eq!(found.calls, [0x2000]);
        // push rdx; pop rdx; ret
        assert_eq!(
            changes(&code(0x1000, &[0x52, 0x5a, 0xc3])).written & 0b11,
            0
        );
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), at in 0u64..220) {
            let _ = mentions(&bytes, u64::MAX - 50, &[0, 5, u64::MAX], true);
            if let Ok(code) = Code::decode(&[CodePart { address: 0, bytes }]) {
                let _ = Mention { at, of: 7 }.by(&code, 0b11);
                let _ = looked_at(&code, at as usize, 0b11);
                let _ = changes(&code);
            }
        }
    }
}
