//! What in a process forbids return probes.
//!
//! The kernel keeps the return addresses that it replaced as one list per thread, ordered by stack
//! pointer. Two kinds of code break on that: what walks the stack (unwinders meet an address that
//! belongs to no function and abort), and what leaves the stack and comes back (`swapcontext`, a
//! handler on an alternate stack above the thread's: the kernel takes frames below a higher stack
//! pointer for gone and sends SIGILL when they return). Whatever can't be excluded counts as there.

use std::collections::HashMap;

use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind, Register};

use crate::{
    symbol::{Elf, Elves},
    target::{FileKey, Module},
};

/// Names of libraries that unwind, up to the version.
const UNWINDERS: [&str; 9] = [
    "libgcc_s.so",
    "libstdc++.so",
    "libc++.so",
    "libc++abi.so",
    "libunwind.so",
    "libunwind-x86_64.so",
    "libprofiler.so",
    "libasan.so",
    "libjvm.so",
];

/// The C library's own files: they have all the functions below, which says nothing about who calls
/// them.
const C_LIBRARY: [&str; 8] = [
    "libc.so",
    "libc.musl",
    "ld-linux",
    "ld-musl",
    "libpthread.so",
    "libm.so",
    "libdl.so",
    "librt.so",
];

/// Functions whose callers may unwind or leave the stack, and what to say of them.
const FUNCTIONS: [(&str, &str); 14] = [
    ("dlopen", "can load an unwinder"),
    ("dlmopen", "can load an unwinder"),
    ("pthread_exit", "unwinds the stack"),
    ("pthread_cancel", "unwinds the stack"),
    ("thrd_exit", "unwinds the stack"),
    ("_Unwind_RaiseException", "unwinds the stack"),
    ("_Unwind_ForcedUnwind", "unwinds the stack"),
    ("_Unwind_Backtrace", "walks the stack"),
    ("__cxa_throw", "unwinds the stack"),
    ("swapcontext", "switches stacks"),
    ("setcontext", "switches stacks"),
    ("makecontext", "switches stacks"),
    ("sigaltstack", "handles signals on another stack"),
    ("sigstack", "handles signals on another stack"),
];

/// More code than this is not searched, and counts as dangerous.
const MAX_SEARCHED: u64 = 64 << 20;

/// Answers, by file, so that none is searched twice.
#[derive(Default)]
pub struct Dangers(HashMap<FileKey, Option<String>>);

impl Dangers {
    /// What among these modules, which together are a process, forbids return probes.
    pub fn among(&mut self, modules: &[Module], elves: &mut Elves) -> Option<String> {
        modules.iter().find_map(|module| {
            self.0
                .entry(module.key)
                .or_insert_with(|| match elves.get(module) {
                    Ok(elf) => in_file(module, elf),
                    Err(_) => Some(format!("{}, which can't be read,", module.name())),
                })
                .clone()
        })
    }
}

/// What in one file forbids return probes: the subject of a sentence that goes on with "and could
/// kill the process".
fn in_file(module: &Module, elf: &Elf) -> Option<String> {
    let name = module.name();
    if UNWINDERS.iter().any(|unwinder| name.starts_with(unwinder)) {
        return Some(format!("{name} can unwind the stack"));
    }
    if C_LIBRARY.iter().any(|library| name.starts_with(library)) {
        return None;
    }
    if elf.go.is_some() {
        return Some(format!("the Go runtime in {name} moves and walks stacks"));
    }
    if module.is_main && elf.needed.is_empty() {
        return Some(format!(
            "{name} is linked statically: what its code does to the stack can't be told"
        ));
    }
    for (function, does) in FUNCTIONS {
        if elf.imports(function) || elf.symbol(function).is_some() {
            return Some(format!("{name} {does} ({function})"));
        }
    }
    if elf.has_exception_tables {
        return Some(format!("{name} has handlers for exceptions"));
    }
    sets_stack_pointer(module, elf)
        .map(|address| format!("{name} sets its stack pointer at {address:#x}"))
}

/// Address of an instruction that gives the stack pointer a value that is not the frame's own.
fn sets_stack_pointer(module: &Module, elf: &Elf) -> Option<u64> {
    for segment in elf.segments.iter().filter(|segment| segment.executable) {
        if segment.file_size > MAX_SEARCHED {
            return Some(segment.address);
        }
        let size = usize::try_from(segment.file_size).ok()?;
        let Some(bytes) = elf.bytes(&module.file, segment.address, size) else {
            return Some(segment.address);
        };
        let mut decoder = Decoder::with_ip(64, &bytes, segment.address, DecoderOptions::NONE);
        let mut instruction = iced_x86::Instruction::default();
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            if instruction.op0_kind() != OpKind::Register {
                continue;
            }
            let to_sp = instruction.op0_register() == Register::RSP;
            let foreign = match instruction.mnemonic() {
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
            };
            if foreign {
                return Some(instruction.ip());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::standalone;
    use std::path::Path;

    fn danger(path: &str) -> Option<String> {
        let module = standalone(Path::new(path), true).unwrap();
        let elf = Elf::read(&module.file).unwrap();
        in_file(&module, &elf)
    }

    #[test]
    fn programs_of_this_machine() {
        // Plain C.
        assert_eq!(danger("/bin/true"), None);
        assert_eq!(danger("/lib/x86_64-linux-gnu/libc.so.6"), None);
        assert!(danger("/usr/bin/git").is_some());
        let python = std::fs::canonicalize("/usr/bin/python3").unwrap();
        assert!(
            danger(python.to_str().unwrap())
                .unwrap()
                .contains("(dlopen)")
        );
        let own = std::env::current_exe().unwrap();
        assert!(danger(own.to_str().unwrap()).is_some());
    }
}
