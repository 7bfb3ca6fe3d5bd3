//! What a plan is made from.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    probe::{ProbeTable, ProcessFacts, ReturnProbeMode},
    probe_spec::ProbeSpec,
};
use image::{FileKey, ImageFacts};
use sites::KernelRules;

/// Open files, by what they are.
pub type Files = HashMap<FileKey, Arc<File>>;

/// A process that is to be traced.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReachedProcess {
    /// What was seen of it.
    pub facts: ProcessFacts,
    /// Files that it has mapped, the program first.
    pub images: Vec<ImageFacts>,
    /// The unwinder that it would load, where it has none yet.
    pub unwinder: Option<ImageFacts>,
}

/// Everything that a plan is made from, but for the open files.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// What is asked for; paths in it were looked up.
    pub specs: Vec<ProbeSpec>,
    /// Processes that run now.
    pub processes: Vec<ReachedProcess>,
    /// Programs whose later processes are traced, too.
    pub executables: Vec<ImageFacts>,
    /// Files in which breakpoints reach every process.
    pub file_wide: HashSet<FileKey>,
    /// How ends are seen.
    pub return_probe: ReturnProbeMode,
    /// `--allow-unsafe-return-probes`.
    pub allow_unsafe: bool,
    /// Version of the kernel: major, minor.
    pub kernel: (u32, u32),
    /// What it emulates.
    pub rules: KernelRules,
    /// Names that keep their indexes.
    pub table: ProbeTable,
    /// Files of which it is known whether they move text.
    pub moving: HashSet<FileKey>,
    /// The plan is to be told line by line (`symbols --plan`).
    pub explain: bool,
}
