//! What is traced, and how.

use std::path::PathBuf;

use planner::{probe::ReturnProbeMode, probe_spec::ProbeSpec};

/// What is traced, and how.
#[derive(Clone, Debug)]
pub struct Targets {
    /// Process ids.
    pub pids: Vec<u32>,
    /// Executables.
    pub executables: Vec<PathBuf>,
    /// Children are traced too.
    pub follow: bool,
    /// Breakpoints in the programs' files reach every process that runs them (`--all-processes`).
    pub all_processes: bool,
    /// Probes; none where tracing is switched off.
    pub probes: Vec<ProbeSpec>,
    /// How ends are seen.
    pub return_probe: ReturnProbeMode,
    /// `--allow-unsafe-return-probes`.
    pub allow_unsafe: bool,
    /// Spans carry what they did to the process's memory.
    pub span_memory: bool,
    /// Share of traces that are kept.
    pub sample_rate: f64,
}

impl Targets {
    /// Whether no process is named.
    pub fn names_nothing(&self) -> bool {
        self.pids.is_empty() && self.executables.is_empty()
    }
}
