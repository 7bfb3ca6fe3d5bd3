//! What is mapped decides what can be probed: libraries are loaded later, a process becomes another program,
//! an executable is replaced. The kernel side says that something changed; here it is told whether that
//! matters, and when things have settled.

use std::{
    collections::HashSet, fs, os::unix::fs::MetadataExt as _, path::PathBuf, time::Duration,
};

use teracron_common::config::FileId;
use tokio::time::{Instant, sleep_until};

use super::Prepared;
use image::{FileKey, copies_stacks};
use planner::LayoutPlan;
use tracer::process::{Layout, Process};

/// Loading a library tells of itself several times, and it brings others along.
const SETTLES_WITHIN: Duration = Duration::from_millis(100);

/// What a process has mapped.
pub(super) struct Mapped {
    pub pid: u32,
    pub files: HashSet<FileKey>,
    /// What the kernel side keeps of it by address.
    pub layout: Layout,
    /// It may copy its stacks away and back.
    pub copies_stacks: bool,
}

/// Files that probes were planned for.
pub(super) struct Following {
    /// Files with code that the processes had mapped.
    known: HashSet<FileKey>,
    /// Executables whose every process is traced, as they were last.
    executables: Vec<(PathBuf, Option<FileId>)>,
    due: Option<Instant>,
}

impl Following {
    /// From what was planned at the start.
    pub(super) fn new(prepared: &Prepared, executables: &[PathBuf]) -> Self {
        Self {
            known: prepared
                .targets
                .iter()
                .flat_map(|target| &target.modules)
                .map(|module| module.key)
                .collect(),
            executables: executables
                .iter()
                .map(|path| (path.clone(), identity(path)))
                .collect(),
            due: None,
        }
    }

    /// A process has mapped something else.
    pub(super) fn changed(&mut self) {
        self.due
            .get_or_insert_with(|| Instant::now() + SETTLES_WITHIN);
    }

    /// Waits until what changed has settled; for ever where nothing did.
    pub(super) async fn settled(&self) {
        match self.due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// After [`settled`](Self::settled): what processes have mapped, and whether one of the files was not known.
    pub(super) fn look(&mut self, pids: &[u32], layouts: &LayoutPlan) -> (Vec<Mapped>, bool) {
        self.due = None;
        let mut new = false;
        let mut mapped = Vec::new();
        for pid in pids {
            let modules = Process::find(*pid).and_then(|process| process.modules());
            // It may have ended.
            let modules = modules.unwrap_or_default();
            let files: HashSet<FileKey> = modules.iter().map(|module| module.key).collect();
            for key in &files {
                new |= self.known.insert(*key);
            }
            mapped.push(Mapped {
                pid: *pid,
                files,
                layout: Layout::of(layouts, *pid, &modules),
                copies_stacks: copies_stacks(modules.iter().map(|module| &module.image)),
            });
        }
        (mapped, new)
    }

    /// Whether an executable was replaced by another file since the last look.
    pub(super) fn has_new_executable(&mut self) -> bool {
        let mut new = false;
        for (path, known) in &mut self.executables {
            let now = identity(path);
            // While it is being replaced it may be gone for a moment.
            if now.is_some() && now != *known {
                *known = now;
                new = true;
            }
        }
        new
    }
}

fn identity(path: &PathBuf) -> Option<FileId> {
    let metadata = fs::metadata(path).ok()?;
    Some(FileId::from_stat(metadata.dev(), metadata.ino()))
}
