//! Where a process dies by a signal.

use aya_ebpf::{
    helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use teracron_common::{
    Counter, DyingRecord, ProcessEvent, ProcessRecord, RecordKind, record::CORE_SIGNALS,
};

use crate::{
    kernel::{config, count, current_ids, kernel_at, now_ns},
    maps::{EVENTS, TARGETS},
};

/// A thread is given a signal. What the process handles or ignores does not matter, nor do other processes.
///
/// Of a program that may not be loadable everywhere (`bpf_task_pt_regs` is from 5.15): without it deaths
/// have no address.
#[raw_tracepoint(tracepoint = "signal_deliver")]
pub fn process_signal(ctx: RawTracePointContext) -> i32 {
    let signal: u64 = ctx.arg(0);
    let signal = signal as u32;
    if signal > 31 || CORE_SIGNALS >> signal & 1 == 0 {
        return 0;
    }
    let (tgid, tid) = current_ids();
    if TARGETS.get_ptr(tgid).is_none() {
        return 0;
    }
    let (info, action): (u64, u64) = (ctx.arg(1), ctx.arg(2));
    // SIG_DFL is 0.
    if kernel_at::<u64>(action, config!(action_handler)) != Some(0) {
        return 0;
    }
    // SAFETY: no preconditions; the verifier knows what the first answers and the second takes.
    let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as u64 };
    match EVENTS.reserve::<DyingRecord>(0) {
        Some(mut entry) => {
            entry.write(DyingRecord {
                process: ProcessRecord {
                    kind: RecordKind::Process as u32,
                    event: ProcessEvent::Dying as u32,
                    tgid,
                    other: tid,
                    at_ns: now_ns(),
                },
                signal,
                code: kernel_at(info, config!(siginfo_code)).unwrap_or(0),
                ip: kernel_at(registers, config!(regs_ip)).unwrap_or(0),
                detail: kernel_at(info, config!(siginfo_fields)).unwrap_or(0),
            });
            entry.submit(0);
        }
        None => count(Counter::LostEvents),
    }
    0
}
