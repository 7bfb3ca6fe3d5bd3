//! Go methods that give back a string of their receiver as it is: a few moves, then `ret`.
//!
//! Go's calling convention (cmd/compile/abi-internal.md, since 1.17) passes the words of a receiver in RAX, RBX, RCX,
//! RDI, RSI, R8 to R11 and gives a string back as its address in RAX and its length in RBX.

use std::collections::HashMap;

use iced_x86::{Mnemonic, OpKind, Register};

use super::Code;

/// Instructions of such a method, at most.
const MOST: usize = 8;
/// The registers of a receiver's words, in order.
const WORDS: [Register; 9] = [
    Register::RAX,
    Register::RBX,
    Register::RCX,
    Register::RDI,
    Register::RSI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
];

/// The string that a method gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accessed {
    /// It lies so many bytes from where the receiver, a pointer, points.
    Behind(u64),
    /// It is the receiver's words from this one on.
    Words(usize),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Value {
    /// A word of the receiver.
    Word(usize),
    /// Loaded so many bytes from where its first word points.
    Loaded(u64),
}

/// What string the method gives back; `None` where it does anything else.
pub fn accessed(code: &Code) -> Option<Accessed> {
    let mut values: HashMap<Register, Value> = WORDS
        .iter()
        .enumerate()
        .map(|(word, register)| (*register, Value::Word(word)))
        .collect();
    for instruction in code.instructions().iter().take(MOST) {
        match instruction.mnemonic() {
            Mnemonic::Nop => {}
            // Where the caller has left room for arguments, for whoever looks for pointers.
            Mnemonic::Mov
                if instruction.op0_kind() == OpKind::Memory
                    && instruction.memory_base() == Register::RSP
                    && instruction.op1_kind() == OpKind::Register => {}
            Mnemonic::Mov
                if instruction.op0_kind() == OpKind::Register
                    && instruction.op0_register().is_gpr64() =>
            {
                let value = match instruction.op1_kind() {
                    OpKind::Register => values.get(&instruction.op1_register()).copied(),
                    OpKind::Memory
                        if instruction.memory_index() == Register::None
                            && instruction.segment_prefix() == Register::None
                            && values.get(&instruction.memory_base()) == Some(&Value::Word(0)) =>
                    {
                        Some(Value::Loaded(instruction.memory_displacement64()))
                    }
                    _ => None,
                };
                let to = instruction.op0_register();
                match value {
                    Some(value) => values.insert(to, value),
                    None => values.remove(&to),
                };
            }
            Mnemonic::Ret => {
                return match (values.get(&Register::RAX)?, values.get(&Register::RBX)?) {
                    (Value::Loaded(text), Value::Loaded(len)) if *len == text + 8 => {
                        Some(Accessed::Behind(*text))
                    }
                    (Value::Word(text), Value::Word(len)) if *len == text + 1 => {
                        Some(Accessed::Words(*text))
                    }
                    _ => None,
                };
            }
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CodePart;

    fn of(bytes: &[u8]) -> Option<Accessed> {
        let code = Code::decode(&[CodePart {
            address: 0x1000,
            bytes: bytes.to_vec(),
        }])
        .unwrap();
        accessed(&code)
    }

    #[test]
    fn methods_that_give_back_a_field() {
        // mov rcx,[rax]; mov rbx,[rax+8]; mov rax,rcx; ret: errors.(*errorString).Error
        let field = [
            0x48, 0x8b, 0x08, 0x48, 0x8b, 0x58, 8, 0x48, 0x89, 0xc8, 0xc3,
        ];
        assert_eq!(of(&field), Some(Accessed::Behind(0)));
        // mov rbx,[rax+0x18]; mov rax,[rax+0x10]; ret
        let other = [0x48, 0x8b, 0x58, 0x18, 0x48, 0x8b, 0x40, 0x10, 0xc3];
        assert_eq!(of(&other), Some(Accessed::Behind(0x10)));
        // ret: a string by another name
        assert_eq!(of(&[0xc3]), Some(Accessed::Words(0)));
        // mov rax,rbx; mov rbx,rcx; ret
        assert_eq!(
            of(&[0x48, 0x89, 0xd8, 0x48, 0x89, 0xcb, 0xc3]),
            Some(Accessed::Words(1))
        );
    }

    #[test]
    fn arguments_may_be_put_where_the_caller_left_room() {
        // mov [rsp+0x10],rbx; mov rax,rbx; mov rbx,rcx; ret
        let kept = [
            0x48, 0x89, 0x5c, 0x24, 0x10, 0x48, 0x89, 0xd8, 0x48, 0x89, 0xcb, 0xc3,
        ];
        assert_eq!(of(&kept), Some(Accessed::Words(1)));
    }

    #[test]
    fn others_give_back_something_else() {
        // mov rbx,[rax+0x20]; mov rax,[rax+0x10]; ret: another string's length
        assert_eq!(
            of(&[0x48, 0x8b, 0x58, 0x20, 0x48, 0x8b, 0x40, 0x10, 0xc3]),
            None
        );
        // mov rax,[rax]; mov rbx,[rax+8]; ret: behind another pointer
        assert_eq!(of(&[0x48, 0x8b, 0x00, 0x48, 0x8b, 0x58, 8, 0xc3]), None);
        // lea rax,[rip+0]; mov ebx,5; ret: a constant
        assert_eq!(
            of(&[0x48, 0x8d, 0x05, 0, 0, 0, 0, 0xbb, 5, 0, 0, 0, 0xc3]),
            None
        );
        // mov ebx,ebx; ret: half a word
        assert_eq!(of(&[0x89, 0xdb, 0xc3]), None);
    }
}
