//! Everything that happens before the kernel is asked for anything: targets, functions, sites.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use teracron_common::config::FileId;

use super::{
    coverage::{Attachment, Coverage},
    family::in_family,
    moving,
    targets::{find_targets, trust_debug_files},
    verify::verify_memory,
    warm::warm,
};
use crate::{
    config::Targets,
    planning::{self, Ready},
};
use image::{DebugPlaces, FileKey, Image, ImageFacts};
use model::{
    error::{Error, Result},
    text,
};
use planner::{
    LayoutPlan,
    probe::{ProbeTable, ProcessFacts},
    whole::{FileSites, NAMES_SHOWN, ReachedProcess, Request},
};
use tracer::{
    kernel::{Features, Scope},
    process::{Layout, Module, Process, moves_text},
};

/// A process to trace, with what it has mapped.
pub struct Target {
    /// The process.
    pub process: Process,
    /// Its files.
    pub modules: Vec<Module>,
    /// The unwinder that it would load, where it has none yet: watched from the start.
    pub unwinder: Option<Image>,
    /// What the kernel side keeps of it by address.
    pub layout: Layout,
}

/// A file whose every process is traced, now or later.
pub struct Executable {
    /// As the kernel side knows it.
    pub id: FileId,
    /// Its path, for people.
    pub path: String,
    /// The files that a process of it would map, itself first.
    pub images: Vec<Image>,
}

/// What is going to be attached.
#[derive(Default)]
pub struct Prepared {
    /// Processes that run now.
    pub targets: Vec<Target>,
    /// Executables whose later processes are traced too.
    pub executables: Vec<Executable>,
    /// Files in which breakpoints reach every process: those that the user named for all.
    pub file_wide: HashSet<FileKey>,
    /// Everything that is attached, file by file: the sites of the probes, then those that watch runtimes.
    pub attachments: Vec<Arc<Attachment>>,
    /// What the kernel side keeps of processes by address, as far as their files say it.
    pub layouts: LayoutPlan,
    /// Names.
    pub table: ProbeTable,
    /// The plan, line by line, where it is only to be shown.
    pub explained: Vec<String>,
    /// What the user should know.
    pub notes: Vec<String>,
    /// What to say of files that cost too much to be read, where that was not said before.
    pub refused: Vec<String>,
}

impl Prepared {
    /// `process 12 (shop)`.
    pub fn describe_targets(&self) -> String {
        let mut parts: Vec<String> = self
            .targets
            .iter()
            .take(NAMES_SHOWN)
            .map(|target| format!("process {} ({})", target.process.pid, target.process.comm))
            .collect();
        if self.targets.len() > NAMES_SHOWN {
            parts.push(format!("{} more", self.targets.len() - NAMES_SHOWN));
        }
        parts.extend(
            self.executables
                .iter()
                .map(|executable| format!("every process of {}", text::shown(&executable.path))),
        );
        parts.join(", ")
    }

    /// Everything that is attached, and where: files for all processes, then process by process.
    pub fn coverage(&self) -> (Coverage, Vec<(Arc<Attachment>, Scope)>) {
        let mut coverage = Coverage::new(self.attachments.clone(), self.file_wide.clone());
        let mut places: Vec<(Arc<Attachment>, Scope)> = coverage
            .file_wide()
            .map(|attachment| (attachment.clone(), Scope::AllProcesses))
            .collect();
        for target in &self.targets {
            let pid = target.process.pid;
            let of_process = coverage.cover(pid, |key| target.maps(key));
            places.extend(
                of_process
                    .into_iter()
                    .map(|attachment| (attachment, Scope::OneProcess(pid))),
            );
        }
        (coverage, places)
    }

    /// The sites of the probes, file by file.
    pub fn plans(&self) -> impl Iterator<Item = &Attachment> {
        let attachments = self.attachments.iter().map(Arc::as_ref);
        attachments.filter(|attachment| attachment.of_set)
    }
}

impl Target {
    /// Its files.
    pub fn images(&self) -> impl Iterator<Item = &Image> {
        self.modules.iter().map(|module| &module.image)
    }

    /// Whether it has a file mapped, or would load it as its unwinder.
    pub fn maps(&self, key: FileKey) -> bool {
        has(&self.modules, key) || self.unwinder.as_ref().is_some_and(|it| it.key == key)
    }
}

fn has(modules: &[Module], key: FileKey) -> bool {
    modules.iter().any(|module| module.key == key)
}

/// Prepares a run.
///
/// # Errors
/// Where a target or a function is not found, or can't be probed safely.
pub fn prepare(wanted: &Targets, features: Features, table: ProbeTable) -> Result<Prepared> {
    prepare_with(wanted, features, table, false).map_err(|error| in_family(error, wanted, features))
}

/// The same for people who want to know what would be done.
///
/// # Errors
/// As [`prepare`].
pub fn explain(wanted: &Targets, features: Features) -> Result<Prepared> {
    let table = ProbeTable::default();
    prepare_with(wanted, features, table, true).map_err(|error| in_family(error, wanted, features))
}

/// The same, without a look at whom else may have been meant.
///
/// # Errors
/// As [`prepare`].
pub(super) fn prepare_with(
    wanted: &Targets,
    features: Features,
    table: ProbeTable,
    explain: bool,
) -> Result<Prepared> {
    if wanted.probes.is_empty() {
        return Err(Error::Usage(
            "no probe: give --probe FUNCTION, for example --probe create_order; `teracron-agent symbols --pid PID` lists functions".to_owned(),
        ));
    }
    let mut prepared = Prepared::default();
    let programs = find_targets(wanted, &mut prepared)?;
    trust_debug_files(wanted, &mut prepared.targets);
    let ready = {
        let images: Vec<&Image> = prepared
            .targets
            .iter()
            .flat_map(|target| target.images().chain(&target.unwinder))
            .chain(&programs)
            .collect();
        let facts: Vec<ProcessFacts> = prepared
            .targets
            .iter()
            .map(|target| target.process.facts(&target.modules))
            .collect();
        let mut specs = wanted.probes.clone();
        for spec in &mut specs {
            spec.look_up();
        }
        planning::plan(&images, |left_alone| Request {
            specs: specs.clone(),
            processes: prepared
                .targets
                .iter()
                .zip(&facts)
                .map(|(target, facts)| reached(target, facts, left_alone))
                .collect(),
            executables: programs.iter().map(ImageFacts::from).collect(),
            file_wide: prepared.file_wide.clone(),
            return_probe: wanted.return_probe,
            allow_unsafe: wanted.allow_unsafe,
            kernel: features.kernel,
            rules: features.rules(),
            table: table.clone(),
            moving: moving::known(),
            explain,
        })?
    };
    prepared.take(ready, &programs)?;
    refuse_moving(&prepared.targets, &prepared.executables)?;
    verify_memory(&prepared)?;
    warm(&prepared.targets, &prepared.layouts);
    Ok(prepared)
}

/// A process as planning sees it.
fn reached(target: &Target, facts: &ProcessFacts, left_alone: &[FileKey]) -> ReachedProcess {
    let mut facts = facts.clone();
    if let Some(module) = target
        .images()
        .find(|image| left_alone.contains(&image.key))
    {
        facts.unknown_code.get_or_insert_with(|| {
            format!(
                "{}, which process {} has mapped, could not be read",
                text::shown(&module.path),
                facts.pid
            )
        });
    }
    ReachedProcess {
        facts,
        images: target.images().map(ImageFacts::from).collect(),
        unwinder: target.unwinder.as_ref().map(ImageFacts::from),
    }
}

impl Prepared {
    /// Takes a plan; `programs` are those whose later processes are traced.
    fn take(&mut self, ready: Ready, programs: &[Image]) -> Result<()> {
        let Ready {
            planned,
            files,
            left_alone,
        } = ready;
        let image = |facts: &ImageFacts| {
            // Nothing but what was opened here.
            let file = files.get(&facts.key).ok_or_else(|| {
                Error::Failed("the process that plans named a file that nobody opened".to_owned())
            })?;
            Ok(facts.image(file.clone(), DebugPlaces::default()))
        };
        let probes = planned.plans.into_iter().map(|file| (file, true));
        let runtimes = planned.unwinders.into_iter().map(|file| (file, false));
        for (FileSites { image: of, sites }, of_set) in probes.chain(runtimes) {
            self.attachments.push(Arc::new(Attachment {
                module: image(&of)?,
                sites,
                of_set,
            }));
        }
        self.layouts = planned.layouts;
        self.table = planned.table;
        self.table.open_go_files(|key| files.get(&key).cloned());
        for target in &mut self.targets {
            target.layout = Layout::of(&self.layouts, target.process.pid, &target.modules);
        }
        for (program, found) in programs.iter().zip(&planned.executables) {
            self.executables.push(Executable {
                id: FileId::from_stat(program.key.dev, program.key.ino),
                path: program.path.clone(),
                images: found.iter().map(&image).collect::<Result<_>>()?,
            });
        }
        moving::keep(planned.moving);
        self.explained = planned.explained;
        self.notes.extend(planned.notes);
        self.refused.extend(left_alone);
        self.refused.extend(planned.refused);
        self.refused = not_told(std::mem::take(&mut self.refused));
        Ok(())
    }
}

/// Those that were not told yet: the same files are read again for each library that is loaded.
fn not_told(notes: Vec<String>) -> Vec<String> {
    /// A process may load such files for ever.
    const MOST: usize = 1000;
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let mut new = notes;
    new.retain(|note| told.len() < MOST && told.insert(note.clone()));
    new
}

/// Breakpoints in text that is moved would be copied along, and kill.
fn refuse_moving(targets: &[Target], executables: &[Executable]) -> Result<()> {
    let refuse = |what: String, reason: String| {
        Err(Error::NotFound(format!(
            "{what} can't be probed: {reason}; breakpoints would be copied along and kill it"
        )))
    };
    let files = moving::all();
    for Target {
        process, modules, ..
    } in targets
    {
        if let Some(reason) = moves_text(process, modules, &files) {
            return refuse(
                format!("process {} ({})", process.pid, process.comm),
                reason,
            );
        }
    }
    for main in executables
        .iter()
        .filter_map(|executable| executable.images.first())
    {
        let file = files.get(&main.key);
        if let Some(reason) = file.and_then(|file| file.whoever_starts_it(main)) {
            let path = text::shown(&main.path);
            return refuse(format!("every process of {path}"), reason);
        }
    }
    Ok(())
}
