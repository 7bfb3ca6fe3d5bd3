//! Everything that happens before the kernel is asked for anything: targets, functions, sites.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::File,
    sync::{Arc, Mutex, PoisonError},
};

use teracron_common::config::FileId;

use super::{
    coverage::{Attachment, Coverage},
    moving,
    verify::verify_memory,
    warm::warm,
};
use crate::{
    config::Targets,
    planning::{self, Ready},
};
use image::{DebugPlaces, FileKey, Image, ImageFacts};
use model::{
    error::{Context as _, Error, Result},
    text,
};
use planner::{
    LayoutPlan,
    probe::{ProbeTable, ProcessFacts, Site},
    whole::{FileSites, NAMES_SHOWN, ReachedProcess, Request},
};
use tracer::{
    kernel::{Features, Scope},
    process::{
        Family, Layout, Module, Process, descendants, loadable, mount_namespace, moves_text,
        runs_file, too_many_files, trust_root_of,
    },
};

/// The file that glibc and plugins in C++ or Rust bring along to unwind.
const UNWINDER: &str = "libgcc_s.so.1";

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

/// What is attached in one file.
pub struct ModuleSites {
    /// The file.
    pub module: Image,
    /// In the order of attachment.
    pub sites: Vec<Site>,
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
    /// Sites, a file each.
    pub plans: Vec<ModuleSites>,
    /// Sites in unwinders, a file each.
    pub unwinders: Vec<ModuleSites>,
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
        let mut coverage = Coverage::new(self.attachments(), self.file_wide.clone());
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

    /// Everything that is attached, file by file: the sites of the probes, then those that watch runtimes.
    fn attachments(&self) -> Vec<Arc<Attachment>> {
        let probes = self
            .plans
            .iter()
            .map(|plan| (&plan.module, &plan.sites, true));
        let runtimes = self
            .unwinders
            .iter()
            .map(|unwinder| (&unwinder.module, &unwinder.sites, false));
        probes
            .chain(runtimes)
            .map(|(module, sites, of_set)| {
                Arc::new(Attachment {
                    module: module.clone(),
                    sites: sites.clone(),
                    of_set,
                })
            })
            .collect()
    }

    /// Plans for files that this target has mapped.
    pub fn plans_of<'a>(&'a self, target: &'a Target) -> impl Iterator<Item = &'a ModuleSites> {
        self.plans
            .iter()
            .filter(|plan| has(&target.modules, plan.module.key))
    }

    /// Unwinders that this target has mapped.
    pub fn unwinders_of<'a>(&'a self, target: &'a Target) -> impl Iterator<Item = &'a ModuleSites> {
        self.unwinders
            .iter()
            .filter(|unwinder| target.maps(unwinder.module.key))
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
    prepare_with(wanted, features, table, false)
}

/// The same for people who want to know what would be done.
///
/// # Errors
/// As [`prepare`].
pub fn explain(wanted: &Targets, features: Features) -> Result<Prepared> {
    prepare_with(wanted, features, ProbeTable::default(), true)
}

fn prepare_with(
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
        let sites = |found: Vec<FileSites>| -> Result<Vec<ModuleSites>> {
            let mut modules = Vec::new();
            for FileSites {
                image: facts,
                sites,
            } in found
            {
                let module = image(&facts)?;
                modules.push(ModuleSites { module, sites });
            }
            Ok(modules)
        };
        self.plans = sites(planned.plans)?;
        self.unwinders = sites(planned.unwinders)?;
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

/// Finds the processes; answers the programs whose later processes are traced.
fn find_targets(wanted: &Targets, prepared: &mut Prepared) -> Result<Vec<Image>> {
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
fn trust_debug_files(wanted: &Targets, targets: &mut [Target]) {
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

/// Nothing says what is to be watched.
pub fn no_target() -> Error {
    Error::Usage("no target: give --pid PID or --exe PATH".to_owned())
}
