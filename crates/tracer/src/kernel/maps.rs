//! The maps of the kernel side, typed, opened once after loading: nowhere else are they known by name.

use aya::{
    Ebpf,
    maps::{
        Array, HashMap as EbpfHashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, Queue,
        RingBuf,
    },
};
use teracron_common::{
    Ahead, Control, FutureId, FutureKey, FutureSite, FutureState, Layout, Placed, Plan, PlanId,
    ProbeId, Spawned, ThreadState, config::FileId,
};

use model::error::{Context as _, Error, Result};

/// A hash map of the kernel side.
pub(super) type Hash<K, V> = EbpfHashMap<MapData, K, V>;

/// What the reader's thread reads and writes.
pub(super) struct Maps {
    /// Traced processes: flags and the number of the layout, by id.
    pub targets: Hash<u32, u32>,
    /// Processes, by the thread that their probes are tied to.
    pub tied: Hash<u32, u32>,
    /// Executables whose every process is traced.
    pub executables: Hash<FileId, u32>,
    /// Open frames, by owner.
    pub threads: Hash<u64, ThreadState>,
    /// Futures that have begun and not ended.
    pub futures: Hash<FutureKey, FutureState>,
    /// Goroutines that were started inside spans, by owner.
    pub spawned: Hash<u64, Spawned>,
    /// Where in Go's errors a text lies, by their type.
    pub go_texts: Hash<Placed, u64>,
    /// Functions that drop a Rust string.
    pub rust_strings: Hash<Placed, u64>,
    /// What is kept of processes by address, by the layout's number.
    pub layouts: Hash<u32, Layout>,
    /// What was seen and what was lost, by `Counter`.
    pub counters: PerCpuArray<MapData, u64>,
    /// Which traces and which set of probes count; one value.
    pub control: Array<MapData, Control>,
    /// Verdicts about traces to come.
    pub ahead: Queue<MapData, Ahead>,
}

/// What whoever attaches probes writes, from whatever thread.
pub(super) struct PlanMaps {
    /// What capturing sites read, by plan.
    pub plans: Hash<PlanId, Plan>,
    /// Async functions of Rust.
    pub future_sites: Hash<FutureId, FutureSite>,
    /// Probes inside whose spans goroutines are started that belong there.
    pub spawning_probes: Hash<ProbeId, u32>,
    /// Calls at places where a function was inlined, by probe.
    pub inlined: PerCpuHashMap<MapData, ProbeId, u64>,
}

/// The ring buffers that the kernel side reports by.
pub struct Rings {
    /// Spans, and what belongs to them.
    pub spans: RingBuf<MapData>,
    /// Changes of processes.
    pub events: RingBuf<MapData>,
}

/// Opens all of them.
///
/// # Errors
/// Where the object does not have one of this type.
pub(super) fn open(ebpf: &mut Ebpf) -> Result<(Maps, PlanMaps, Rings)> {
    let maps = Maps {
        targets: take(ebpf, "TARGETS")?,
        tied: take(ebpf, "TIED")?,
        executables: take(ebpf, "EXECUTABLES")?,
        threads: take(ebpf, "THREADS")?,
        futures: take(ebpf, "FUTURES")?,
        spawned: take(ebpf, "SPAWNED")?,
        go_texts: take(ebpf, "GO_TEXTS")?,
        rust_strings: take(ebpf, "RUST_STRINGS")?,
        layouts: take(ebpf, "LAYOUTS")?,
        counters: take(ebpf, "COUNTERS")?,
        control: take(ebpf, "CONTROL")?,
        ahead: take(ebpf, "AHEAD")?,
    };
    let plans = PlanMaps {
        plans: take(ebpf, "PLANS")?,
        future_sites: take(ebpf, "FUTURE_SITES")?,
        spawning_probes: take(ebpf, "SPAWNING_PROBES")?,
        inlined: take(ebpf, "INLINED")?,
    };
    let rings = Rings {
        spans: take(ebpf, "SPANS")?,
        events: take(ebpf, "EVENTS")?,
    };
    Ok((maps, plans, rings))
}

fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<M> {
    ebpf.take_map(name)
        .ok_or_else(|| Error::Failed(format!("the eBPF object has no map {name}")))?
        .try_into()
        .failed(|| format!("the eBPF map {name}"))
}
