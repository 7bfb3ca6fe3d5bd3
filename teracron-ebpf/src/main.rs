//! The kernel side of the Teracron agent.
//!
//! Fixed programs, no plan compiled in: what a site means is in its attach cookie
//! (`teracron_common::cookie`), who is traced is in the map [`maps::TARGETS`], and what happened
//! leaves through two ring buffers. Every call that an entry site sees ends up in exactly one
//! counter (`teracron_common::counters`).
//!
//! | program | sits on |
//! | --- | --- |
//! | `span_enter`, `span_exit`, `span_return` | the traced functions' sites |
//! | `capture_enter`, `capture_exit`, `capture_return` | the same, where arguments or results are asked for |
//! | `go_enter`, `go_exit` | the same of Go functions, whose frames belong to a goroutine |
//! | `go_panic`, `go_recover`, `go_goexit` | Go's runtime |
//! | `go_starting`, `go_started` | the same, where goroutines belong to the span that started them |
//! | `inline_count` | places where a function was inlined |
//! | `future_enter`, `future_capture`, `future_exit`, `future_drop` | polls of Rust's futures, and where they are dropped |
//! | `unwind_raise`, `unwind_land` | the unwinder (`_Unwind_RaiseException`, `_Unwind_SetIP`) |
//! | `long_jump` | `longjmp` and its relatives |
//! | `library_loaded` | the dynamic linker (`_dl_debug_state`) |
//! | `process_fork`, `process_exec`, `process_exit` | the scheduler's raw tracepoints |
//! | `process_signal` | the raw tracepoint of delivered signals |
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod capture;
mod copied;
mod death;
mod emit;
mod future;
mod go;
mod inlined;
mod kernel;
mod layout;
mod maps;
mod process;
mod settle;
mod span;
mod spawn;
mod stack;
mod thread;
mod unwind;
mod x86_64;

use x86_64 as arch;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // No program can reach this: nothing here panics, and the verifier would refuse the loop.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
