//! Which processes are meant, and which files they have.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    sync::Arc,
};

use super::prepare::{Prepared, Target};
use crate::config::Targets;
use image::{FileKey, Image};
use model::{
    error::{Context as _, Error, Result},
    text,
};
use planner::whole::NAMES_SHOWN;
use tracer::process::{
    Family, Layout, Process, descendants, loadable, mount_namespace, runs_file, too_many_files,
    trust_root_of,
};

/// The file that glibc and plugins in C++ or Rust bring along to unwind.
const UNWINDER: &str = "libgcc_s.so.1";

/// Finds the processes; answers the programs whose later processes are traced.
pub(super) fn find_targets(wanted: &Targets, prepared: &mut Prepared) -> Result<Vec<Image>> {
    let mut programs: Vec<Image> = Vec::new();
    let mut seen = HashSet::new();
    let mut files: HashMap<FileKey, Arc<File>> = HashMap::new();
    let mut add = |prepared: &mut Prepared, process: Process| -> Result<()> {
        if seen.insert(process.pid) {
            let modules = process.modules();
            // One of many that has just ended, or is about to, is no mistake of the user's.
            let named = wanted.pids.contains(&process.pid);
            let there = modules.as_ref().is_ok_and(|modules| !modules.is_empty());
            if !there && (!named || wanted.pids.len() > 1 && !process.is_alive()) {
                return Ok(());
            }
            let mut modules = modules?;
            if modules.is_empty() {
                return Err(Error::NotFound(format!(
                    "process {} ({}) has no code mapped from a file",
                    process.pid, process.comm
                )));
            }
            prepared
                .refused
                .extend(too_many_files(process.pid, &modules));
            // One descriptor for a file, however many processes have it mapped.
            for module in &mut modules {
                let known = files
                    .entry(module.key)
                    .or_insert_with(|| module.file.clone());
                module.image.file = known.clone();
            }
            let has_unwinder = modules.iter().any(|module| module.name() == UNWINDER);
            prepared.targets.push(Target {
                unwinder: if has_unwinder {
                    None
                } else {
                    loadable(process.pid, UNWINDER)
                },
                process,
                modules,
                layout: Layout::default(),
            });
        }
        Ok(())
    };
    if wanted.pids.is_empty() && wanted.executables.is_empty() {
        return Err(no_target());
    }
    for pid in &wanted.pids {
        if *pid == std::process::id() {
            return Err(Error::Usage("the agent does not trace itself".to_owned()));
        }
        add(prepared, Process::find(*pid)?)?;
    }
    if wanted.follow {
        let named: Vec<u32> = wanted.pids.clone();
        let family = descendants(&named);
        for pid in &family.same_program {
            // It may have ended in the meantime.
            if let Ok(process) = Process::find(*pid) {
                add(prepared, process)?;
            }
        }
        prepared.notes.extend(family_notes(&family));
    }
    for path in &wanted.executables {
        let shown = text::shown(&path.to_string_lossy());
        let image = Image::open(path, true).not_found(|| shown.clone())?;
        for pid in runs_file(&image) {
            // It may have ended in the meantime.
            if let Ok(process) = Process::find(pid) {
                add(prepared, process)?;
            }
        }
        prepared.file_wide.insert(image.key);
        programs.push(image);
    }
    if wanted.all_processes {
        let mains = prepared
            .targets
            .iter()
            .flat_map(|target| &target.modules)
            .filter(|module| module.is_main)
            .map(|module| module.key);
        prepared.file_wide.extend(mains);
    }
    Ok(programs)
}

/// What to say of processes that the named ones had forked before.
fn family_notes(family: &Family) -> Vec<String> {
    let names = |pids: &[u32]| {
        let shown: Vec<String> = pids.iter().take(NAMES_SHOWN).map(u32::to_string).collect();
        match pids.len().saturating_sub(NAMES_SHOWN) {
            0 => shown.join(", "),
            more => format!("{} and {more} more", shown.join(", ")),
        }
    };
    let mut notes = Vec::new();
    if !family.same_program.is_empty() {
        notes.push(format!(
            "traced too, because they descend from what is named and run the same program: {}",
            names(&family.same_program)
        ));
    }
    if !family.others.is_empty() {
        notes.push(format!(
            "not traced, because they run other programs than what they descend from: {}; name them with --pid",
            names(&family.others)
        ));
    }
    notes
}

/// Debug files from under a target's root are believed only where nobody else is reached, and all targets see the same
/// files.
pub(super) fn trust_debug_files(wanted: &Targets, targets: &mut [Target]) {
    let mounts: HashSet<_> = targets
        .iter()
        .map(|target| mount_namespace(target.process.pid))
        .collect();
    let file_wide = !wanted.executables.is_empty() || wanted.all_processes;
    if file_wide || mounts.len() != 1 || mounts.contains(&None) {
        return;
    }
    // One for all, so that each file is read once.
    let Some(first) = targets.first().map(|target| target.process.pid) else {
        return;
    };
    for target in targets {
        trust_root_of(first, &mut target.modules);
    }
}

/// Nothing says what is to be watched.
pub(super) fn no_target() -> Error {
    Error::Usage("no target: give --pid PID or --exe PATH".to_owned())
}
