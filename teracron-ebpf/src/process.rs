//! Processes come, change and go.

use aya_ebpf::{
    macros::{raw_tracepoint, uprobe},
    programs::{ProbeContext, RawTracePointContext},
};
use aya_log_ebpf::debug;
use teracron_common::{
    Counter, End, ProcessEvent, ProcessRecord, RecordKind, StackClass, ThreadState, Walk,
    config::FileId,
    thread::{FRAME_OPEN, TRACED},
};

use crate::{
    future,
    kernel::{END, NEXT, config, count, current_ids, current_task, kernel_at, now_ns},
    maps::{CAPTURES, EVENTS, EXECUTABLES, FAILURES, TARGETS, THREADS, TIED},
    thread::{self, walk},
};

/// `SIGNAL_GROUP_EXIT` of `signal_struct.flags`: the whole process is ending.
const GROUP_EXIT: u32 = 4;

fn send(event: ProcessEvent, tgid: u32, other: u32) {
    match EVENTS.reserve::<ProcessRecord>(0) {
        Some(mut entry) => {
            entry.write(ProcessRecord {
                kind: RecordKind::Process as u32,
                event: event as u32,
                tgid,
                other,
                at_ns: now_ns(),
            });
            entry.submit(0);
        }
        None => count(Counter::LostEvents),
    }
}

/// A process forks: its child is traced too. Where that is not wanted, user space is told all the same: the child has
/// copies of the breakpoints, which are taken away again.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn process_fork(ctx: RawTracePointContext) -> i32 {
    let child: u64 = ctx.arg(1);
    let (tgid, _) = current_ids();
    let Some(child_tgid) = kernel_at::<u32>(child, config!(task_tgid)) else {
        return 0;
    };
    if child_tgid == tgid {
        return 0;
    }
    let Some(flags) = TARGETS.get_ptr(tgid) else {
        return 0;
    };
    // SAFETY: a map value; user space writes whole words.
    let flags = unsafe { *flags };
    if config!(follow_forks) == 0 || TARGETS.insert(child_tgid, flags, 0).is_ok() {
        send(ProcessEvent::Fork, tgid, child_tgid);
        if config!(debug) != 0 {
            debug!(&ctx, "process {} forked {}", tgid, child_tgid);
        }
    } else {
        count(Counter::LostEvents);
    }
    0
}

/// A process runs a new program.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn process_exec(ctx: RawTracePointContext) -> i32 {
    // The thread that calls exec takes over the process id, its frames keep the old key.
    let old_tid: u64 = ctx.arg(1);
    let old_tid = old_tid as u32;
    let (tgid, _) = current_ids();
    let known = TARGETS.get_ptr(tgid).is_some();
    if known && let Some(state) = thread::find(old_tid as u64) {
        end_all(state, End::Exec as u64);
        let _ = THREADS.remove(old_tid as u64);
        let _ = FAILURES.remove(old_tid as u64);
        let _ = CAPTURES.remove(old_tid as u64);
    }
    if known {
        // Another program: what was known of its stacks says nothing.
        let _ = TARGETS.insert(tgid, TRACED, 0);
        send(ProcessEvent::Exec, tgid, old_tid);
    } else if wanted_executable() && TARGETS.insert(tgid, TRACED, 0).is_ok() {
        send(ProcessEvent::Exec, tgid, old_tid);
        if config!(debug) != 0 {
            debug!(&ctx, "process {} runs a traced executable", tgid);
        }
    }
    0
}

/// Whether the running process's executable is one whose every process is traced.
#[inline(always)]
fn wanted_executable() -> bool {
    let Some(id) = executable_id() else {
        return false;
    };
    EXECUTABLES.get_ptr(id).is_some()
}

#[inline(always)]
fn executable_id() -> Option<FileId> {
    let mm: u64 = kernel_at(current_task(), config!(task_mm))?;
    let file: u64 = kernel_at(mm, config!(mm_exe_file))?;
    let inode: u64 = kernel_at(file, config!(file_inode))?;
    let superblock: u64 = kernel_at(inode, config!(inode_sb))?;
    let dev: u32 = kernel_at(superblock, config!(sb_dev))?;
    Some(FileId {
        ino: kernel_at(inode, config!(inode_ino))?,
        dev: dev as u64,
    })
}

/// The dynamic linker has loaded or unloaded a library (`_dl_debug_state`, which is there for debuggers).
#[uprobe]
pub fn library_loaded(_ctx: ProbeContext) -> u32 {
    let (tgid, _) = current_ids();
    if TARGETS.get_ptr(tgid).is_some() {
        send(ProcessEvent::Mapped, tgid, 0);
    }
    0
}

/// Sees nothing: that it is there keeps the breakpoint. What is attached to a process goes by its main thread's memory; where
/// that thread has ended, the kernel takes breakpoints out as soon as anybody lets go of a probe on the same instruction.
#[uprobe]
pub fn hold(_ctx: ProbeContext) -> u32 {
    0
}

/// A thread ends, and with its last one the process.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn process_exit(_ctx: RawTracePointContext) -> i32 {
    let (tgid, tid) = current_ids();
    if TARGETS.get_ptr(tgid).is_none() {
        return 0;
    }
    let task = current_task();
    let signal: u64 = kernel_at(task, config!(task_signal)).unwrap_or(0);
    let code: u32 = kernel_at(task, config!(task_exit_code)).unwrap_or(0);
    let flags: u32 = kernel_at(signal, config!(signal_flags)).unwrap_or(0);
    let live: u32 = kernel_at(signal, config!(signal_live)).unwrap_or(0);
    if let Some(state) = thread::find(tid as u64) {
        let killer = code & 0x7f;
        let end = if killer != 0 {
            End::Signal as u64 | (killer as u64) << 32
        } else if flags & GROUP_EXIT != 0 {
            End::ProcessExited as u64 | (code as u64 >> 8 & 0xff) << 32
        } else {
            End::ThreadExited as u64
        };
        end_all(state, end);
        let _ = THREADS.remove(tid as u64);
        let _ = FAILURES.remove(tid as u64);
        let _ = CAPTURES.remove(tid as u64);
    }
    // Where the whole process ends its threads go in any order.
    if live != 0 && flags & GROUP_EXIT == 0 && (tid == tgid || TIED.get_ptr(tid).is_some()) {
        send(ProcessEvent::ThreadEnded, tgid, tid);
    }
    if live == 0 {
        let _ = TARGETS.remove(tgid);
        send(ProcessEvent::Exit, tgid, code);
    }
    0
}

/// Ends every frame of a thread that is no more. The low half of `how` is an [`End`], the high
/// half the signal, or what was given to `exit`.
#[inline(never)]
fn end_all(state: &mut ThreadState, how: u64) -> u32 {
    let now = now_ns();
    future::leave(state, 0, u64::MAX);
    let walk = Walk {
        now,
        what: how,
        ..Walk::PLAIN
    };
    thread::each_frame(state, walk, end_one);
    thread::flush::<false>(state);
    0
}

#[inline(never)]
extern "C" fn end_one(_: u64, table: thread::Table) -> u64 {
    let Some((state, index)) = thread::step(table) else {
        return END;
    };
    let (how, now) = (walk!(state, what), walk!(state, now));
    let frame = thread::frame(state, index);
    if frame.state == FRAME_OPEN {
        thread::mark_as(frame, how as u8, now);
        frame.record.detail = (how >> 32) as u8;
        if frame.class == StackClass::Other as u8 && how as u8 == End::ThreadExited as u8 {
            // A fiber, which may go on in another thread.
            thread::lose(frame);
        }
    }
    NEXT
}
