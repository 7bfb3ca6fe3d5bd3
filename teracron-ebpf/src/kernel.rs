//! Reading the kernel's and the target's memory, counting, and the configuration.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::helpers::{
    bpf_get_current_task, bpf_probe_read_kernel, bpf_probe_read_user,
    generated::{bpf_get_current_task_btf, bpf_loop},
};
use teracron_common::{Counter, KernelConfig, config::SPAN_MEMORY_TYPED};

use crate::maps::COUNTERS;

/// Written by user space before loading. Read through [`config`] only.
#[unsafe(no_mangle)]
pub static CONFIG: KernelConfig = KernelConfig {
    task_tgid: 0,
    task_exit_code: 0,
    task_signal: 0,
    task_mm: 0,
    task_sas_ss_sp: 0,
    task_fsbase: 0,
    signal_live: 0,
    signal_flags: 0,
    signal_stack_limit: 0,
    mm_start_stack: 0,
    mm_exe_file: 0,
    file_inode: 0,
    inode_ino: 0,
    inode_sb: 0,
    sb_dev: 0,
    task_min_flt: 0,
    task_maj_flt: 0,
    mm_rss: 0,
    mm_rss_stride: 0,
    span_memory: 0,
    action_handler: 0,
    siginfo_code: 0,
    siginfo_fields: 0,
    regs_ip: 0,
    follow_forks: 0,
    loops: 0,
    debug: 0,
};

/// One field of the configuration that user space wrote before loading.
macro_rules! config {
    ($field:ident) => {
        // Volatile, or the compiler would use the zeros it sees. The verifier, which knows the
        // frozen map's contents, folds the value again.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::CONFIG.$field) }
    };
}
pub(crate) use config;

/// A turn of a loop: gets its number, which it has no use for, and a pointer into the running program's stack, the only
/// kind that `bpf_loop` passes; answers [`NEXT`] or [`END`].
pub type Turn<T> = extern "C" fn(u64, *mut T) -> u64;
/// The loop goes on.
pub const NEXT: u64 = 0;
/// The loop ends.
pub const END: u64 = 1;

/// At most `turns` turns. Where the kernel has `bpf_loop`, the verifier looks at one of them alone.
#[inline(always)]
pub fn repeat<T>(turns: u32, turn: Turn<T>, with: *mut T) {
    if config!(loops) != 0 {
        // SAFETY: the turn is of the kind that the helper calls, and `with` is what it expects.
        unsafe { bpf_loop(turns, turn as *mut c_void, with.cast(), 0) };
        return;
    }
    for _ in 0..turns {
        if turn(0, with) == END {
            break;
        }
    }
}

/// Adds one to a counter of this processor; atomic, because a probe's program can be preempted by
/// another on the same processor.
#[inline(always)]
pub fn count(counter: Counter) {
    count_at(counter as u32);
}

/// Adds several.
#[inline(always)]
pub fn count_many(counter: Counter, number: u64) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: see `increment`.
        unsafe { asm!("lock *(u64 *)({} + 0) += {}", in(reg) value, in(reg) number) };
    }
}

/// The same, for a counter's place.
#[inline(always)]
pub fn count_at(index: u32) {
    if let Some(value) = COUNTERS.get_ptr_mut(index) {
        increment(value);
    }
}

/// Adds one to a value of a per-CPU map.
#[inline(always)]
pub fn increment(value: *mut u64) {
    // SAFETY: it lives as long as the program. In assembly, because core has no atomic addition for this
    // target.
    unsafe { asm!("lock *(u64 *)({} + 0) += {}", in(reg) value, in(reg) 1u64) };
}

/// Reads kernel memory at `base + offset`.
#[inline(always)]
pub fn kernel_at<T>(base: u64, offset: u32) -> Option<T> {
    if base == 0 {
        return None;
    }
    // SAFETY: the helper checks the address and fails where it can't be read.
    unsafe { bpf_probe_read_kernel((base + offset as u64) as *const T) }.ok()
}

/// Reads the target's memory.
#[inline(always)]
pub fn user_at<T>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address and fails where it can't be read.
    unsafe { bpf_probe_read_user(address as *const T) }.ok()
}

/// The running task's `task_struct`.
#[inline(always)]
pub fn current_task() -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_get_current_task() as u64 }
}

/// Resident pages of the running process (0 where not known) and page faults of the running thread
/// so far; zeros where spans do not carry them.
///
/// Where the kernel allows it, its structures are read directly, not by a helper: the verifier knows
/// the pointer's type and the offsets, and a load costs a nanosecond. The count is the one behind `/proc/PID/statm`,
/// which leaves out what single processors have not yet added to it.
#[inline(always)]
pub fn memory_now() -> [u32; 2] {
    if config!(span_memory) == 0 {
        return [0; 2];
    }
    let task = if config!(span_memory) == SPAN_MEMORY_TYPED {
        // SAFETY: no preconditions.
        unsafe { bpf_get_current_task_btf() as u64 }
    } else {
        current_task()
    };
    let faults = typed_at(task, config!(task_min_flt)) + typed_at(task, config!(task_maj_flt));
    let mm = typed_at(task, config!(task_mm));
    let mut pages = 0i64;
    // It is gone while the process ends.
    if mm != 0 {
        let (first, stride) = (config!(mm_rss), config!(mm_rss_stride));
        // MM_FILEPAGES, MM_ANONPAGES and, behind MM_SWAPENTS, MM_SHMEMPAGES.
        pages = typed_at(mm, first) as i64
            + typed_at(mm, first + stride) as i64
            + typed_at(mm, first + 3 * stride) as i64;
    }
    [if pages > 0 { pages as u32 } else { 0 }, faults as u32]
}

/// Reads eight bytes of a kernel structure, whose type the verifier knows where that is of use.
#[inline(always)]
fn typed_at(base: u64, offset: u32) -> u64 {
    if config!(span_memory) != SPAN_MEMORY_TYPED {
        return kernel_at(base, offset).unwrap_or(0);
    }
    // SAFETY: the verifier checks the offset against the structure's type; the kernel handles a page
    // that is not there.
    unsafe { core::ptr::read_volatile((base + offset as u64) as *const u64) }
}

/// Process id and thread id of the running task.
#[inline(always)]
pub fn current_ids() -> (u32, u32) {
    let ids = aya_ebpf::helpers::bpf_get_current_pid_tgid();
    ((ids >> 32) as u32, ids as u32)
}

/// Monotonic nanoseconds.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: no preconditions.
    unsafe { aya_ebpf::helpers::generated::bpf_ktime_get_ns() }
}

/// A seed for [`random_id`], never zero.
#[inline(always)]
pub fn random_seed() -> [u64; 2] {
    #[inline(always)]
    fn half() -> u64 {
        // SAFETY: no preconditions.
        let (high, low) = unsafe {
            (
                aya_ebpf::helpers::generated::bpf_get_prandom_u32(),
                aya_ebpf::helpers::generated::bpf_get_prandom_u32(),
            )
        };
        ((high as u64) << 32) | (low as u64 & 0xffff_ffff)
    }
    [half(), half() | 1]
}

/// A random id, never zero, from a generator that only one thread uses: xoroshiro128++ (Blackman and
/// Vigna, 2019), a quarter of the time of as many calls of the kernel's.
#[inline(always)]
pub fn random_id(state: &mut [u64; 2]) -> [u64; 2] {
    #[inline(always)]
    fn step(state: &mut [u64; 2]) -> u64 {
        let [a, b] = *state;
        let result = a.wrapping_add(b).rotate_left(17).wrapping_add(a);
        let b = b ^ a;
        *state = [a.rotate_left(49) ^ b ^ (b << 21), b.rotate_left(28)];
        result
    }
    let (high, low) = (step(state), step(state));
    if high | low == 0 { [0, 1] } else { [high, low] }
}
