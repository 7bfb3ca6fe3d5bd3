//! What is particular to x86-64: which registers of a target mean what (System V ABI for x86-64, psABI 1.0, 3.2; Go's
//! ABIInternal). No other room names a register.

use core::ptr::read_volatile;

use aya_ebpf::bindings::pt_regs;
pub use teracron_common::x86_64::condition_holds;

/// The stack pointer.
///
/// # Safety
/// The registers are a program's context, or a copy of it; so in all that follow.
#[inline(always)]
pub unsafe fn stack_pointer(regs: *const pt_regs) -> u64 {
    // SAFETY: as the caller says.
    unsafe { (*regs).rsp }
}

/// The frame pointer, where a function keeps one.
#[inline(always)]
pub unsafe fn frame_pointer(regs: *const pt_regs) -> u64 {
    // SAFETY: as the caller says.
    unsafe { (*regs).rbp }
}

/// What [`condition_holds`] asks.
#[inline(always)]
pub unsafe fn flags(regs: *const pt_regs) -> u64 {
    // SAFETY: as the caller says.
    unsafe { (*regs).eflags }
}

/// The first argument, at a function's first instruction.
#[inline(always)]
pub unsafe fn argument(regs: *const pt_regs) -> u64 {
    // SAFETY: as the caller says.
    unsafe { (*regs).rdi }
}

/// The running goroutine's `g`, in a Go function.
#[inline(always)]
pub unsafe fn goroutine(regs: *const pt_regs) -> u64 {
    // SAFETY: as the caller says.
    unsafe { (*regs).r14 }
}

/// The first argument or result of a Go function.
#[inline(always)]
pub unsafe fn go_first(regs: *const pt_regs) -> u64 {
    // SAFETY: as the caller says.
    unsafe { (*regs).rax }
}

/// The second one.
#[inline(always)]
pub unsafe fn go_second(regs: *const pt_regs) -> u64 {
    // SAFETY: as the caller says.
    unsafe { (*regs).rbx }
}

/// Stack and frame pointer: both are read always, because the verifier allows no address that is chosen between theirs.
#[inline(always)]
pub unsafe fn stack_and_frame(regs: *const pt_regs) -> [u64; 2] {
    // SAFETY: as the caller says.
    unsafe {
        [
            read_volatile(&raw const (*regs).rsp),
            read_volatile(&raw const (*regs).rbp),
        ]
    }
}

/// The first two arguments, in the same way.
#[inline(always)]
pub unsafe fn two_arguments(regs: *const pt_regs) -> [u64; 2] {
    // SAFETY: as the caller says.
    unsafe {
        [
            read_volatile(&raw const (*regs).rdi),
            read_volatile(&raw const (*regs).rsi),
        ]
    }
}

/// All whole-number registers, by DWARF's numbers (psABI, figure 3.36).
#[inline(always)]
pub unsafe fn save<const N: usize>(regs: *const pt_regs, places: &mut [u64; N]) {
    // SAFETY: as the caller says.
    let regs = unsafe { &*regs };
    places[0] = regs.rax;
    places[1] = regs.rdx;
    places[2] = regs.rcx;
    places[3] = regs.rbx;
    places[4] = regs.rsi;
    places[5] = regs.rdi;
    places[6] = regs.rbp;
    places[7] = regs.rsp;
    places[8] = regs.r8;
    places[9] = regs.r9;
    places[10] = regs.r10;
    places[11] = regs.r11;
    places[12] = regs.r12;
    places[13] = regs.r13;
    places[14] = regs.r14;
    places[15] = regs.r15;
}

/// The registers that a function gives back as it got them, but for the stack pointer.
#[inline(always)]
pub unsafe fn kept_by_callees(regs: *const pt_regs) -> [u64; 6] {
    // SAFETY: as the caller says.
    let regs = unsafe { &*regs };
    [regs.rbx, regs.rbp, regs.r12, regs.r13, regs.r14, regs.r15]
}
