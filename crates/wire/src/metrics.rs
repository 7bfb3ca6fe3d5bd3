//! Memory samples (wire.md, "MetricsBatch").

use std::{string::String, vec::Vec};

use prost::Message as _;

/// [`Sample::cpu`] of one whole core.
pub const CPU_SCALE: u64 = 10_000;

/// What a process was like at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Sample {
    /// Unix milliseconds.
    pub timestamp: u64,
    /// Virtual memory size, bytes.
    pub vms: u64,
    /// Unique set size, bytes; resident set size where it can't be read.
    pub uss: u64,
    /// Resident set size, bytes.
    pub rss: u64,
    /// Share of one core times [`CPU_SCALE`], capped; `None` until there are two samples.
    pub cpu: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MetricsEntry {
    #[prost(uint64, tag = "1")]
    timestamp: u64,
    #[prost(uint64, tag = "2")]
    heap_total: u64,
    #[prost(uint64, tag = "3")]
    heap_used: u64,
    #[prost(uint64, tag = "4")]
    rss: u64,
    #[prost(uint64, tag = "5")]
    external: u64,
    #[prost(uint64, tag = "6")]
    array_buffers: u64,
    #[prost(uint64, tag = "7")]
    cpu_usage_pct: u64,
    #[prost(uint64, tag = "8")]
    event_loop_lag: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MetricsBatch {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<MetricsEntry>,
    #[prost(string, tag = "2")]
    sdk_version: String,
    #[prost(string, tag = "3")]
    runtime_version: String,
}

/// A body of samples, all of one process.
pub fn metrics_body(samples: &[Sample], sdk_version: &str, runtime_version: &str) -> Vec<u8> {
    MetricsBatch {
        entries: samples
            .iter()
            .map(|sample| MetricsEntry {
                timestamp: sample.timestamp,
                heap_total: sample.vms,
                heap_used: sample.uss,
                rss: sample.rss,
                external: 0,
                array_buffers: 0,
                // Zero is left out, like what is not known: the wire does not tell them apart.
                cpu_usage_pct: sample.cpu.unwrap_or(0).min(CPU_SCALE),
                event_loop_lag: 0,
            })
            .collect(),
        sdk_version: sdk_version.into(),
        runtime_version: runtime_version.into(),
    }
    .encode_to_vec()
}
