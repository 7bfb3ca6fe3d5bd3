//! The maps: what user space tells, what the programs remember, what they report.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, Queue, RingBuf},
};
use teracron_common::{
    Ahead, CaptureState, Control, FailureText, FiberKey, FutureId, FutureKey, FutureSite,
    FutureState, Layout, Origin, Placed, Plan, PlanId, ProbeId, Spawned, ThreadState,
    config::FileId,
    counters,
    future::MAX_FUTURES,
    layout::{MAX_LAYOUTS, MAX_PLACED},
    plan::MAX_PLANS,
};

/// `BPF_F_NO_PREALLOC`: memory only for entries that exist.
const NO_PREALLOC: u32 = 1;

/// Process ids that are traced, with their flags and the number of their layout (`teracron_common::layout`); a forked
/// child has its parent's.
#[map]
pub static TARGETS: HashMap<u32, u32> = HashMap::with_max_entries(32_768, NO_PREALLOC);

/// Threads that the probes of a process are tied to, where that is not its main one.
#[map]
pub static TIED: HashMap<u32, u32> = HashMap::with_max_entries(1024, NO_PREALLOC);

/// Which thread a call on a stack of the program's own making began in, by its address and process: fibers may go on in
/// another one.
#[map]
pub static FIBERS: LruHashMap<FiberKey, u32> = LruHashMap::with_max_entries(4096, 0);

/// Executables whose every process is traced.
#[map]
pub static EXECUTABLES: HashMap<FileId, u32> = HashMap::with_max_entries(1024, NO_PREALLOC);

/// Open frames, by thread id.
#[map]
pub static THREADS: HashMap<u64, ThreadState> = HashMap::with_max_entries(32_768, NO_PREALLOC);

/// What is being thrown, by thread id; only for threads that ever threw inside a traced call.
#[map]
pub static FAILURES: HashMap<u64, FailureText> = HashMap::with_max_entries(8192, NO_PREALLOC);

/// Zeros, from which new entries of [`THREADS`] are made: too large for the stack.
#[map]
pub static EMPTY_THREAD: Array<ThreadState> = Array::with_max_entries(1, 0);

/// Zeros, from which new entries of [`FAILURES`] are made.
#[map]
pub static EMPTY_FAILURE: Array<FailureText> = Array::with_max_entries(1, 0);

/// What capturing sites read, by the number in their cookie.
#[map]
pub static PLANS: HashMap<PlanId, Plan> = HashMap::with_max_entries(MAX_PLANS, NO_PREALLOC);

/// Where captures are made, by thread id; only for threads that passed a site that captures.
#[map]
pub static CAPTURES: HashMap<u64, CaptureState> = HashMap::with_max_entries(32_768, NO_PREALLOC);

/// Zeros, from which new entries of [`CAPTURES`] are made.
#[map]
pub static EMPTY_CAPTURE: Array<CaptureState> = Array::with_max_entries(1, 0);

/// Async functions of Rust, by the number in their sites' cookies.
#[map]
pub static FUTURE_SITES: HashMap<FutureId, FutureSite> =
    HashMap::with_max_entries(MAX_FUTURES, NO_PREALLOC);

/// Futures that have begun and not ended.
#[map]
pub static FUTURES: HashMap<FutureKey, FutureState> =
    HashMap::with_max_entries(MAX_FUTURES, NO_PREALLOC);

/// Probes inside whose spans goroutines are started that belong there; the value means nothing.
#[map]
pub static SPAWNING_PROBES: HashMap<ProbeId, u32> = HashMap::with_max_entries(8192, NO_PREALLOC);

/// Goroutines that are being started, by the thread that does it.
#[map]
pub static SPAWNING: HashMap<u64, Origin> = HashMap::with_max_entries(8192, NO_PREALLOC);

/// Goroutines that were started inside such spans, by their key.
#[map]
pub static SPAWNED: HashMap<u64, Spawned> = HashMap::with_max_entries(65_536, NO_PREALLOC);

/// Calls at places where a function was inlined, by probe; user space makes the entries.
#[map]
pub static INLINED: PerCpuHashMap<ProbeId, u64> =
    PerCpuHashMap::with_max_entries(8192, NO_PREALLOC);

/// Go types whose values are errors with a text: where in the value it lies.
#[map]
pub static GO_TEXTS: HashMap<Placed, u64> = HashMap::with_max_entries(MAX_PLACED, NO_PREALLOC);

/// Functions that drop a Rust string: a panic's value with one of these is a string.
#[map]
pub static RUST_STRINGS: HashMap<Placed, u64> = HashMap::with_max_entries(MAX_PLACED, NO_PREALLOC);

/// What is kept of processes by address, by the layout's number.
#[map]
pub static LAYOUTS: HashMap<u32, Layout> = HashMap::with_max_entries(MAX_LAYOUTS, NO_PREALLOC);

/// What was seen and what was lost, by `teracron_common::Counter`.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counters::COUNTERS, 0);

/// Which traces and which set of probes count; user space may change it at any time.
#[map]
pub static CONTROL: Array<Control> = Array::with_max_entries(1, 0);

/// Verdicts about traces to come, filled by user space. Empty: the kernel side decides by itself.
#[map]
pub static AHEAD: Queue<Ahead> = Queue::with_max_entries(4096, 0);

/// Finished spans.
#[map]
pub static SPANS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// Changes of processes; apart, so that a flood of spans can't push them out.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(64 << 10, 0);
