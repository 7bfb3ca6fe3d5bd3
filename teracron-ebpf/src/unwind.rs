//! Frames that end without returning: exceptions, forced unwinding, `longjmp`.
//!
//! The unwinder is watched at two of its own functions. Where an exception starts, its type and
//! text are read, if the thread has open frames at all. Where the unwinder is about to land in a
//! function (`_Unwind_SetIP`, which every personality routine calls once per landing pad), its
//! context holds the stack pointer that the function will have: every frame between the unwinder's
//! own stack pointer and that one is gone.
//!
//! Layouts: the Itanium C++ ABI (exception handling, level II), libstdc++'s `unwind-cxx.h` and
//! `typeinfo`, glibc's `jmpbuf-offsets.h`.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_get_attach_cookie, bpf_probe_read_user, bpf_probe_read_user_str},
    macros::uprobe,
    programs::ProbeContext,
};
use teracron_common::{
    Counter, End, FailureText, MESSAGE_BYTES, RaiseKind, StackClass, TYPE_NAME_BYTES, ThreadState,
    Walk, layout::MAX_CONSTANTS, thread::FRAME_OPEN,
};

use crate::{
    arch, capture, copied, future,
    kernel::{END, NEXT, config, count, current_ids, current_task, kernel_at, now_ns, user_at},
    layout,
    maps::{EMPTY_FAILURE, FAILURES, RUST_STRINGS},
    stack,
    thread::{self, walk},
};

/// `GNUCC++\0`, in `_Unwind_Exception.exception_class`.
const CLASS_GNU_CXX: u64 = u64::from_be_bytes(*b"GNUCC++\0");
/// `CLNGC++\0`: libc++abi.
const CLASS_CLANG_CXX: u64 = u64::from_be_bytes(*b"CLNGC++\0");
/// `MOZ\0RUST`: a Rust panic; in the other order since Rust 1.64.
const CLASS_RUST: [u64; 2] = [
    u64::from_be_bytes(*b"MOZ\0RUST"),
    u64::from_le_bytes(*b"MOZ\0RUST"),
];
/// The panic's value (`Box<dyn Any>`: data, table) behind the header and a canary
/// (library/panic_unwind/src/gcc.rs).
const RUST_VALUE: u64 = 0x28;

/// From the unwinder's header back to `__cxa_exception.exceptionType` (libstdc++ and libc++abi).
const TYPE_BEFORE_HEADER: u64 = 0x50;
/// `sizeof(_Unwind_Exception)`: the thrown object follows the header.
const HEADER_BYTES: u64 = 0x20;
/// Base classes that are followed upwards.
const MAX_BASES: usize = 8;

/// `FailureText.record.end` while an exception is in flight says how frames will end.
const NO_TEXT: u16 = 0;

/// An exception starts or goes on.
#[uprobe]
pub fn unwind_raise(ctx: ProbeContext) -> u32 {
    let (_, tid) = current_ids();
    let Some(state) = thread::find(tid as u64) else {
        return 0;
    };
    if state.depth == 0 {
        return 0;
    }
    let Some(failure) = failure_of(tid as u64) else {
        count(Counter::Unreadable);
        return 0;
    };
    // SAFETY: the context is the one the kernel passed.
    let kind = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    // SAFETY: the registers are the context itself.
    let header = unsafe { arch::argument(ctx.regs) };
    // A forced unwinding has its stop function in the header (`private_1`), an exception has zero.
    let forced = kind == RaiseKind::Forced as u64
        || (kind == RaiseKind::Resume as u64 && user_at::<u64>(header + 16).unwrap_or(0) != 0);
    failure.record.type_len = NO_TEXT;
    failure.record.message_len = NO_TEXT;
    if forced {
        failure.record.end = End::ThreadExited as u8;
        return 0;
    }
    failure.record.end = End::Exception as u8;
    describe(failure, header);
    0
}

/// The thread's place for an exception's text; made at its first throw.
#[inline(always)]
pub fn failure_of(key: u64) -> Option<&'static mut FailureText> {
    if let Some(failure) = FAILURES.get_ptr_mut(key) {
        // SAFETY: a map value that only this thread writes.
        return Some(unsafe { &mut *failure });
    }
    let empty = EMPTY_FAILURE.get_ptr(0)?;
    // SAFETY: a map value of zeros that nothing writes.
    FAILURES.insert(key, unsafe { &*empty }, 0).ok()?;
    // SAFETY: as above.
    FAILURES
        .get_ptr_mut(key)
        .map(|failure| unsafe { &mut *failure })
}

/// Forgets an owner's exception or panic.
#[inline(always)]
pub fn forget(key: u64) {
    let _ = FAILURES.remove(key);
}

/// Reads the exception's type name, and its text where the class comes from `std::exception`.
#[inline(never)]
fn describe(failure: &mut FailureText, header: u64) -> u32 {
    let Some(class) = user_at::<u64>(header) else {
        count(Counter::Unreadable);
        return 0;
    };
    if class == CLASS_RUST[0] || class == CLASS_RUST[1] {
        let name = b"panic";
        for (place, byte) in failure.text.iter_mut().zip(name) {
            *place = *byte;
        }
        failure.record.type_len = name.len() as u16;
        if let Some([data, len]) = rust_text(header) {
            copy_text::<5>(failure, data, len);
        }
        return 0;
    }
    let (mut header, mut object) = (header, header + HEADER_BYTES);
    if class == CLASS_GNU_CXX | 1 || class == CLASS_CLANG_CXX | 1 {
        // Rethrown from an exception_ptr: a field says where the first thrown object is. libc++abi has it
        // before the type, libstdc++ in the type's place.
        let before = if class == CLASS_GNU_CXX | 1 {
            TYPE_BEFORE_HEADER
        } else {
            TYPE_BEFORE_HEADER + 8
        };
        let Some(primary) = user_at::<u64>(header.wrapping_sub(before)) else {
            count(Counter::Unreadable);
            return 0;
        };
        object = primary;
        header = primary.wrapping_sub(HEADER_BYTES);
    } else if class != CLASS_GNU_CXX && class != CLASS_CLANG_CXX {
        return 0;
    }
    let Some(type_info) = user_at::<u64>(header.wrapping_sub(TYPE_BEFORE_HEADER)) else {
        count(Counter::Unreadable);
        return 0;
    };
    let Some(name) = user_at::<u64>(type_info.wrapping_add(8)) else {
        count(Counter::Unreadable);
        return 0;
    };
    let base = (&raw mut failure.text).cast::<u8>();
    // SAFETY: the helper writes at most the given size, which lies within `text`.
    let read =
        unsafe { bpf_probe_read_user_str(base.cast(), TYPE_NAME_BYTES as u32, name as *const _) };
    if read <= 1 || read > TYPE_NAME_BYTES as i64 {
        count(Counter::Unreadable);
        return 0;
    }
    let type_len = read as u32 - 1;
    failure.record.type_len = type_len as u16;
    let message = what_pointer(type_info, object);
    if message == 0 {
        return 0;
    }
    let start = type_len as usize;
    if start >= TYPE_NAME_BYTES {
        return 0;
    }
    // SAFETY: `start` is below TYPE_NAME_BYTES, so the message's bytes lie within `text`.
    let read = unsafe {
        bpf_probe_read_user_str(
            base.add(start).cast(),
            MESSAGE_BYTES as u32,
            message as *const _,
        )
    };
    if read < 1 || read > MESSAGE_BYTES as i64 {
        count(Counter::Unreadable);
        return 0;
    }
    failure.record.message_len = (read as u32 - 1) as u16;
    0
}

/// Address and length of a Rust panic's message, where its value is a string: an owned one, which is
/// known by the function that drops it, or a constant of the program's.
#[inline(always)]
fn rust_text(header: u64) -> Option<[u64; 2]> {
    let [data, table]: [u64; 2] = user_at(header.wrapping_add(RUST_VALUE))?;
    let [drop, size]: [u64; 2] = user_at(table)?;
    if size == 16 && drop == 0 {
        let [start, len]: [u64; 2] = user_at(data)?;
        let constants = &layout::find(layout::number())?.constants;
        for index in 0..MAX_CONSTANTS {
            let [from, to] = constants[index];
            if from <= start && start < to && len <= to - start {
                return Some([start, len]);
            }
        }
    } else if size == 24 && RUST_STRINGS.get_ptr(layout::placed(drop)).is_some() {
        // Capacity, pointer, length; the first two the other way round before Rust 1.76.
        let [first, second, len]: [u64; 3] = user_at(data)?;
        let (first_is_small, second_is_small) = (first >> 32 == 0, second >> 32 == 0);
        if first_is_small && !second_is_small && len <= first {
            return Some([second, len]);
        }
        if second_is_small && !first_is_small && len <= second {
            return Some([first, len]);
        }
    }
    None
}

/// Copies text behind the `AFTER` bytes of a failure's type name.
#[inline(always)]
pub fn copy_text<const AFTER: usize>(failure: &mut FailureText, data: u64, len: u64) {
    let limit = MESSAGE_BYTES as u64 - 1;
    let size = capture::bounded(if len < limit { len } else { limit }, 2047);
    if size > limit {
        return;
    }
    // SAFETY: behind the type name there is room for so many bytes.
    let result = unsafe {
        bpf_probe_read_user(
            failure.text.as_mut_ptr().add(AFTER).cast(),
            size as u32,
            data as *const _,
        )
    };
    if result == 0 {
        failure.record.message_len = size as u16;
    } else {
        count(Counter::Unreadable);
    }
}

/// Where the text of `what()` lies: 0 unless the class comes from `std::runtime_error` or
/// `std::logic_error`, whose objects hold a pointer to it behind the virtual table's.
#[inline(never)]
fn what_pointer(type_info: u64, object: u64) -> u64 {
    let (mut type_info, mut object) = (type_info, object);
    for _ in 0..MAX_BASES {
        // [virtual table, name, base class or flags and count]
        let Some([table, name, base]) = user_at::<[u64; 3]>(type_info) else {
            count(Counter::Unreadable);
            return 0;
        };
        let Some(text) = user_at::<[u64; 2]>(name) else {
            count(Counter::Unreadable);
            return 0;
        };
        // "St13runtime_error\0" and "St11logic_error\0".
        if text
            == [
                u64::from_le_bytes(*b"St13runt"),
                u64::from_le_bytes(*b"ime_erro"),
            ]
            || text
                == [
                    u64::from_le_bytes(*b"St11logi"),
                    u64::from_le_bytes(*b"c_error\0"),
                ]
        {
            return user_at::<u64>(object.wrapping_add(8)).unwrap_or(0);
        }
        // The type of the type_info itself says what follows the name.
        let kind: Option<u64> = user_at::<u64>(table.wrapping_sub(8))
            .and_then(|info| user_at::<u64>(info.wrapping_add(8)))
            .and_then(|name| user_at::<u64>(name.wrapping_add(13)));
        // "N10__cxxabiv1" + "20__si_class_type_info" or "21__vmi_class_type_info".
        if kind == Some(u64::from_le_bytes(*b"20__si_c")) {
            type_info = base;
        } else if kind == Some(u64::from_le_bytes(*b"21__vmi_")) {
            // Flags, count, then {base class, offset << 8 | flags}; the first base is followed.
            let Some([next, offset_flags]) = user_at::<[u64; 2]>(type_info.wrapping_add(24)) else {
                return 0;
            };
            if offset_flags & 1 != 0 {
                return 0; // virtual base: its place is only known at run time
            }
            type_info = next;
            object = object.wrapping_add(((offset_flags as i64) >> 8) as u64);
        } else {
            return 0;
        }
    }
    0
}

/// The unwinder is about to land in a function. The cookie is the place of the stack pointer in
/// its context.
#[uprobe]
pub fn unwind_land(ctx: ProbeContext) -> u32 {
    let (_, tid) = current_ids();
    let Some(state) = thread::find(tid as u64) else {
        return 0;
    };
    if state.depth == 0 {
        return 0;
    }
    // SAFETY: the context is the one the kernel passed.
    let offset = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    // SAFETY: the registers are the context itself.
    let (context, sp) = unsafe { (arch::argument(ctx.regs), arch::stack_pointer(ctx.regs)) };
    match user_at::<u64>(context.wrapping_add(offset)) {
        Some(landing) if is_above(sp, landing) => {
            end_between(state, sp, landing, tid, End::Exception as u32);
        }
        // A context of another layout, perhaps.
        _ => count(Counter::Unreadable),
    }
    0
}

/// `__cxa_begin_catch`, where the unwinder's context can't be read: its caller has caught.
#[uprobe]
pub fn unwind_catch(ctx: ProbeContext) -> u32 {
    let (_, tid) = current_ids();
    let Some(state) = thread::find(tid as u64) else {
        return 0;
    };
    if state.depth == 0 {
        return 0;
    }
    // SAFETY: the context is the one the kernel passed.
    let offset = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    // SAFETY: the registers are the context itself.
    let sp = unsafe { arch::stack_pointer(ctx.regs) };
    let landing = sp.wrapping_add(offset);
    end_between(
        state,
        landing.wrapping_sub(stack::NEAR * 4),
        landing,
        tid,
        End::Exception as u32,
    );
    0
}

/// `longjmp` leaves every frame up to the stack pointer in its buffer.
#[uprobe]
pub fn long_jump(ctx: ProbeContext) -> u32 {
    let (_, tid) = current_ids();
    let Some(state) = thread::find(tid as u64) else {
        return 0;
    };
    if state.depth == 0 {
        return 0;
    }
    // SAFETY: the registers are the context itself.
    let (buffer, sp) = unsafe { (arch::argument(ctx.regs), arch::stack_pointer(ctx.regs)) };
    let landing = jump_target(buffer, sp);
    // Where the jump goes to another stack (from a signal handler's), nothing says which frames
    // between are alive: the next hit settles it.
    let own_stack = state.main_thread != 0 && sp >= state.stack_low && landing < state.stack_high;
    let near = landing.wrapping_sub(sp) < stack::NEAR * 4;
    if landing > sp && (own_stack || near) {
        end_between(state, sp, landing, tid, End::LongJump as u32);
    } else if landing != 0
        && stack::classify(state, sp) as u8 == StackClass::Signal as u8
        && stack::classify(state, landing) as u8 != StackClass::Signal as u8
    {
        end_handler(state, landing);
    } else {
        state.jump_ns = now_ns();
        state.jump_sp = sp;
    }
    0
}

/// The stack pointer in a `jmp_buf`; 0 where it can't be read.
///
/// Both glibc and musl keep it in the seventh word; glibc mangles it by the thread's guard
/// (`PTR_MANGLE`: xor, then rotate left by 17).
#[inline(always)]
fn jump_target(buffer: u64, sp: u64) -> u64 {
    let Some(stored) = user_at::<u64>(buffer.wrapping_add(6 * 8)) else {
        return 0;
    };
    if is_above(sp, stored) {
        return stored;
    }
    let thread_block: u64 = kernel_at(current_task(), config!(task_fsbase)).unwrap_or(0);
    let Some(guard) = user_at::<u64>(thread_block.wrapping_add(0x30)) else {
        return 0;
    };
    let value = stored.rotate_right(17) ^ guard;
    if value >> 47 == 0 && value & 7 == 0 {
        value
    } else {
        0
    }
}

/// Whether a value may be the stack pointer of a caller.
#[inline(always)]
fn is_above(sp: u64, value: u64) -> bool {
    value > sp && value - sp < (128 << 20) && value & 7 == 0
}

/// Ends every frame whose address lies in `sp < cfa <= landing`: one stretch of one stack.
#[inline(never)]
fn end_between(state: &mut ThreadState, sp: u64, landing: u64, tid: u32, end: u32) -> u32 {
    let now = now_ns();
    future::leave(state, sp, landing);
    // A thread that ends unwinds its stack and then jumps to its start, by the C library's `longjmp`.
    let end = if is_forced(tid) {
        End::ThreadExited
    } else if end == End::LongJump as u32 {
        End::LongJump
    } else {
        End::Exception
    };
    let walk = Walk {
        low: sp,
        cfa: landing,
        now,
        what: end as u64,
        ..Walk::PLAIN
    };
    thread::each_frame(state, walk, end_one_between);
    if walk!(state, marked) != 0 {
        if end as u32 == End::Exception as u32 {
            thread::flush::<true>(state);
        } else {
            thread::flush::<false>(state);
        }
    }
    0
}

/// Marks the frame in this place as left.
#[inline(always)]
fn leave(state: &mut ThreadState, index: usize, end: u8, now: u64) {
    let copies = state.copies;
    let frame = thread::frame(state, index);
    thread::mark_as(frame, end, now);
    if copies != 0 {
        // Another greenlet's call may have the address, and go on.
        thread::lose(frame);
        let around = frame.return_address;
        copied::poison(state, around);
    }
    walk!(state, marked = 1);
}

#[inline(never)]
extern "C" fn end_one_between(_: u64, table: thread::Table) -> u64 {
    let Some((state, index)) = thread::step(table) else {
        return END;
    };
    let (low, high) = (walk!(state, low), walk!(state, cfa));
    let (end, now) = (walk!(state, what) as u8, walk!(state, now));
    let frame = thread::frame(state, index);
    if frame.state == FRAME_OPEN && frame.cfa > low && frame.cfa <= high {
        leave(state, index, end, now);
    }
    NEXT
}

/// Whether the thread is being ended by forced unwinding.
#[inline(always)]
fn is_forced(tid: u32) -> bool {
    match FAILURES.get_ptr(tid as u64) {
        // SAFETY: a map value that only this thread writes.
        Some(failure) => unsafe { (*failure).record.end == End::ThreadExited as u8 },
        None => false,
    }
}

/// A handler has left the alternate signal stack by `siglongjmp`: ends every frame on it, and on
/// the thread's own stack those up to `landing`.
#[inline(never)]
fn end_handler(state: &mut ThreadState, landing: u64) -> u32 {
    let now = now_ns();
    let native = stack::classify(state, landing) as u8 == StackClass::Native as u8;
    let walk = Walk {
        // On its own stack nothing ends where the jump leads elsewhere.
        cfa: if native { landing } else { 0 },
        now,
        ..Walk::PLAIN
    };
    thread::each_frame(state, walk, end_one_of_handler);
    if walk!(state, marked) != 0 {
        thread::flush::<false>(state);
    }
    0
}

#[inline(never)]
extern "C" fn end_one_of_handler(_: u64, table: thread::Table) -> u64 {
    let Some((state, index)) = thread::step(table) else {
        return END;
    };
    let (high, now) = (walk!(state, cfa), walk!(state, now));
    let frame = thread::frame(state, index);
    if frame.state == FRAME_OPEN
        && (frame.class == StackClass::Signal as u8
            || (frame.class == StackClass::Native as u8 && frame.cfa <= high))
    {
        leave(state, index, End::LongJump as u8, now);
    }
    NEXT
}
