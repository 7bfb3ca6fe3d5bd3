//! Everything that happens before the kernel is asked for anything: targets, functions, sites.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::File,
    sync::{Arc, Mutex, PoisonError},
};

use teracron_common::config::FileId;

use super::{
    coverage::{Attachment, Coverage},
    verify::verify_memory,
    wanted::{NAMES_SHOWN, WantedFiles, list, resolve_all},
    warm::warm,
};
use crate::{config::Targets, run::plural};
use image::{
    FileKey, Image, copies_stacks, needed_images,
    symbol::{Elves, Language},
};
use model::{
    error::{Context as _, Error, Result},
    text,
};
use planner::{
    capture::InlinedPlaces,
    probe::{
        Constants, CountedCalls, Dangers, Debugs, GoFile, ModulePlan, Planner, ProbeTable,
        ProcessFacts, Reached, Refused, Sources, UnwinderSites, decide, find_go_runtime,
        find_unwinder_sites, go_error_texts, weak_proof,
    },
};
use sites::KernelRules;
use tracer::{
    kernel::{Features, Scope},
    process::{
        Family, Layout, LayoutPlan, Module, Process, descendants, loadable, may_move_text,
        mount_namespace, moves_text, runs_file, too_many_files, trust_root_of,
    },
};

/// What can't be read, and is told one by one.
const PROBLEMS_SHOWN: usize = 20;

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

/// What is going to be attached.
pub struct Prepared {
    /// Processes that run now.
    pub targets: Vec<Target>,
    /// Executables whose later processes are traced too.
    pub executables: Vec<Executable>,
    /// Files in which breakpoints reach every process: those that the user named for all.
    pub file_wide: HashSet<FileKey>,
    /// Sites, a file each.
    pub plans: Vec<ModulePlan>,
    /// Sites in unwinders, a file each.
    pub unwinders: Vec<UnwinderSites>,
    /// What the kernel side keeps of processes by address, as far as their files say it.
    pub layouts: LayoutPlan,
    /// Calls that are counted where functions were inlined.
    pub counted: Vec<(Image, CountedCalls)>,
    /// Names.
    pub table: ProbeTable,
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
    pub fn plans_of<'a>(&'a self, target: &'a Target) -> impl Iterator<Item = &'a ModulePlan> {
        self.plans
            .iter()
            .filter(|plan| has(&target.modules, plan.module.key))
    }

    /// Unwinders that this target has mapped.
    pub fn unwinders_of<'a>(
        &'a self,
        target: &'a Target,
    ) -> impl Iterator<Item = &'a UnwinderSites> {
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
    if wanted.probes.is_empty() {
        return Err(Error::Usage(
            "no probe: give --probe FUNCTION, for example --probe create_order; `teracron-agent symbols --pid PID` lists functions".to_owned(),
        ));
    }
    let mut prepared = Prepared {
        targets: Vec::new(),
        executables: Vec::new(),
        file_wide: HashSet::new(),
        plans: Vec::new(),
        unwinders: Vec::new(),
        layouts: LayoutPlan::default(),
        counted: Vec::new(),
        table,
        notes: Vec::new(),
        refused: Vec::new(),
    };
    find_targets(wanted, &mut prepared)?;
    trust_debug_files(wanted, &mut prepared.targets);

    let mut elves = Elves::default();
    refuse_moving(&prepared.targets, &prepared.executables, &mut elves)?;
    let groups: Vec<Vec<Image>> = prepared
        .targets
        .iter()
        .map(|target| target.images().cloned().collect())
        .chain(
            prepared
                .executables
                .iter()
                .map(|executable| executable.images.clone()),
        )
        .collect();
    let mut debugs = Debugs::default();
    let functions = resolve_all(
        &wanted.probes,
        &groups,
        &mut elves,
        &mut debugs,
        &mut prepared,
    )?;
    let images: Vec<Image> = groups.iter().flatten().cloned().collect();
    plan_all(
        wanted,
        features,
        functions,
        &images,
        &mut elves,
        &mut debugs,
        &mut prepared,
    )?;
    find_unwinders(&groups, features, &mut elves, &mut prepared);
    verify_memory(&prepared)?;
    warm(&prepared.targets, &mut elves);
    prepared.refused.extend(elves.take_notes());
    prepared.refused = not_told(prepared.refused);
    Ok(prepared)
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

fn find_targets(wanted: &Targets, prepared: &mut Prepared) -> Result<()> {
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
        let mut images = needed_images(&image);
        images.insert(0, image.clone());
        prepared.executables.push(Executable {
            id: FileId::from_stat(image.key.dev, image.key.ino),
            path: image.path.clone(),
            images,
        });
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
    Ok(())
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
fn refuse_moving(targets: &[Target], executables: &[Executable], elves: &mut Elves) -> Result<()> {
    let refuse = |what: String, reason: String| {
        Err(Error::NotFound(format!(
            "{what} can't be probed: {reason}; breakpoints would be copied along and kill it"
        )))
    };
    for Target {
        process, modules, ..
    } in targets
    {
        if let Some(reason) = moves_text(process, modules, elves) {
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
        let reason = elves.get(main).as_ref().ok();
        if let Some(reason) = reason.and_then(|elf| may_move_text(main, elf)) {
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

fn plan_all(
    targets: &Targets,
    features: Features,
    wanted: WantedFiles,
    images: &[Image],
    elves: &mut Elves,
    debugs: &mut Debugs,
    prepared: &mut Prepared,
) -> Result<()> {
    let mut dangers = Dangers::default();
    let facts: Vec<ProcessFacts> = prepared
        .targets
        .iter()
        .map(|target| target.process.facts(&target.modules))
        .collect();
    let mut layouts = LayoutPlan::default();
    let mut errno = false;
    for image in images {
        if let Ok(elf) = elves.get(image) {
            errno |= layouts.add(image, elf);
        }
    }
    let sources = Sources { errno };
    let mut problems: Vec<String> = Vec::new();
    let mut inlined: Vec<(String, InlinedPlaces)> = Vec::new();
    let mut refused: Vec<Refused> = Vec::new();
    let total: usize = wanted.iter().map(|(_, functions)| functions.len()).sum();
    for (module, functions) in wanted {
        let running = prepared.targets.iter().zip(&facts);
        let reached: Vec<Reached<'_>> = running
            .map(|(target, facts)| Reached {
                process: Some(facts),
                images: target.images().collect(),
            })
            .chain(prepared.executables.iter().map(|executable| Reached {
                process: None,
                images: executable.images.iter().collect(),
            }))
            .filter(|reached| reached.images.iter().any(|image| image.key == module.key))
            .collect();
        let returns = decide(
            &module,
            &reached,
            !prepared.file_wide.contains(&module.key),
            features.kernel,
            &mut dangers,
            elves,
        );
        let Ok(elf) = elves.get(&module) else {
            continue;
        };
        let plan = Planner {
            rules: KernelRules {
                whole: reached
                    .iter()
                    .any(|reached| copies_stacks(reached.images.iter().copied())),
                ..features.rules()
            },
            mode: targets.return_probe,
            allow_unsafe: targets.allow_unsafe,
            table: &mut prepared.table,
            sources: &sources,
            debugs,
        }
        .plan(&module, elf, functions, &returns, &mut refused);
        problems.extend(plan.functions.iter().flat_map(|(function, _, captures)| {
            captures
                .problems
                .iter()
                .map(|problem| format!("{}: {problem}", text::shown(&function.plain)))
        }));
        inlined.extend(
            plan.functions
                .iter()
                .filter(|(_, _, captures)| captures.inlined.count > 0)
                .map(|(function, _, captures)| (function.plain.clone(), captures.inlined)),
        );
        let mut constants = Constants::default();
        let mut functions = plan.functions.iter();
        // What others call by a plain name is Rust all the same.
        if functions.any(|(function, ..)| function.language == Language::Rust)
            || (!plan.sites.is_empty() && elf.has_rust())
        {
            constants.add_rust(elf);
        }
        if elf.go.is_some() && !plan.sites.is_empty() {
            let file = GoFile::new(&module, elf);
            if let Ok(debug) = debugs.get(&module, elf) {
                constants.go_texts = go_error_texts(&module, elf, debug);
            }
            prepared.table.add_go_file(file);
        }
        let has_types = elf.go.is_some() && !plan.sites.is_empty();
        if !constants.is_empty() || has_types {
            layouts.add_constants(&module, elf, constants, has_types);
        }
        if !plan.sites.is_empty() {
            prepared.notes.extend(weak_proof(&module, elf));
            prepared.plans.push(plan);
        }
    }
    for target in &mut prepared.targets {
        target.layout = layouts.of(target.process.pid, &target.modules);
    }
    prepared.layouts = layouts;
    add_counted(prepared);
    let is_counted = |name: &str| {
        let mut counted = prepared.counted.iter();
        counted.any(|(_, counted)| counted.function == name)
    };
    let inlined: Vec<String> = inlined
        .into_iter()
        .filter(|(name, _)| !is_counted(name))
        .map(|(name, places)| {
            let least = if places.is_all { "" } else { "at least " };
            format!("{name} ({least}{})", plural(places.count, "place"))
        })
        .collect();
    if !inlined.is_empty() {
        prepared.notes.push(format!(
            "calls that the compiler inlined are not seen: {}",
            list(&inlined)
        ));
    }
    problems.dedup();
    let more = problems.len().saturating_sub(PROBLEMS_SHOWN);
    prepared
        .notes
        .extend(problems.into_iter().take(PROBLEMS_SHOWN));
    if more > 0 {
        prepared.notes.push(format!(
            "and {} more that can't be read; `teracron-agent symbols --plan SPEC` tells",
            plural(more, "value")
        ));
    }
    if let Some(unsafe_request) = refused.iter().find(|refused| refused.unsafe_request) {
        return Err(Error::Usage(format!(
            "{}: {}; --allow-unsafe-return-probes insists",
            text::shown(&unsafe_request.function),
            unsafe_request.reason
        )));
    }
    if !refused.is_empty() {
        let reasons: Vec<String> = refused
            .iter()
            .map(|refused| format!("{} ({})", refused.function, refused.reason))
            .collect();
        if refused.len() == total {
            return Err(Error::NotFound(format!(
                "nothing can be probed: {}",
                list(&reasons)
            )));
        }
        prepared.notes.push(format!(
            "not probed, because it would not be safe or right: {}",
            list(&reasons)
        ));
    }
    Ok(())
}

/// Adds the places at which inlined calls are counted to what is attached, and tells of them.
fn add_counted(prepared: &mut Prepared) {
    let mut told = Vec::new();
    for (module, counted) in &prepared.counted {
        let places = plural(counted.sites.len(), "place");
        told.push(match counted.passed_over {
            0 => format!("{} ({places})", counted.function),
            more => format!(
                "{} ({places}; {more} more can't be counted: no instruction there is passed once per call)",
                counted.function
            ),
        });
        match prepared
            .plans
            .iter_mut()
            .find(|plan| plan.module.key == counted.key)
        {
            Some(plan) => {
                plan.sites.extend(counted.sites.iter().copied());
                plan.sites.sort_unstable();
                // Two specifications may mean the same.
                plan.sites.dedup();
            }
            None => prepared.plans.push(ModulePlan {
                module: module.clone(),
                sites: counted.sites.clone(),
                functions: Vec::new(),
            }),
        }
    }
    if !told.is_empty() {
        prepared.notes.push(format!(
            "calls that the compiler inlined are counted, not traced: {}",
            list(&told)
        ));
    }
}

fn find_unwinders(
    groups: &[Vec<Image>],
    features: Features,
    elves: &mut Elves,
    prepared: &mut Prepared,
) {
    let rules = features.rules();
    let mut seen: HashSet<FileKey> = HashSet::new();
    let later: Vec<Image> = prepared
        .targets
        .iter()
        .filter_map(|target| target.unwinder.clone())
        .collect();
    for module in groups.iter().flatten().chain(&later) {
        if !seen.insert(module.key) {
            continue;
        }
        let Ok(elf) = elves.get(module) else {
            continue;
        };
        let sites = find_unwinder_sites(module, elf, rules).or_else(|| {
            // The runtime of a program that is not probed is left alone.
            let probed = prepared
                .plans
                .iter()
                .any(|plan| plan.module.key == module.key);
            probed
                .then(|| find_go_runtime(module, elf, rules))
                .flatten()
        });
        prepared.unwinders.extend(sites);
    }
}
