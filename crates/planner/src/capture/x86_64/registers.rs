//! The general registers, by DWARF number (System V psABI for x86-64, section 3.6.2, figure 3.36).

use sites::Prologue;

/// The frame pointer.
const FRAME_POINTER: u8 = 6;
/// The stack pointer.
const STACK_POINTER: u8 = 7;

/// Their names, by number.
pub(crate) const NAMES: [&str; 16] = [
    "rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

/// The name of the register that a thread's control block is found by.
pub(crate) const THREAD: &str = "fs";

/// Whether it is one that frames are found by.
pub(crate) fn is_of_frame(register: u8) -> bool {
    matches!(register, FRAME_POINTER | STACK_POINTER)
}

/// Where a register points to when the prologue is over, counted from the frame address; `None` where it can't be told.
pub(crate) fn after_prologue(register: u8, prologue: &Prologue) -> Option<i64> {
    match register {
        FRAME_POINTER => prologue.rbp,
        STACK_POINTER => prologue.rsp,
        _ => None,
    }
}
