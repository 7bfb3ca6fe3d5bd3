//! From what the user asks for to functions, file by file.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::Plans;
use crate::{
    capture::Request,
    find::{Function, Functions, LeftOut, MAX_FUNCTIONS, NAMES_SHOWN, Reading, list},
    probe::{
        Debugs, Resolution, Resolved, Wanted, find_inlined, no_file, not_found, resolve,
        resolve_block,
    },
    probe_spec::{InlinedCalls, ProbeSpec},
};
use image::{
    FileKey, Image,
    symbol::{Elves, nearest},
};
use model::{
    error::{Error, Result},
    text::{self, counted},
};

/// Functions to probe, by file.
pub(super) type WantedFiles = Vec<(Image, Vec<Wanted>)>;

impl Plans {
    /// Finds the functions of all specifications, each function once.
    ///
    /// # Errors
    /// Where one names nothing, or too much matches.
    pub(super) fn resolve_all(&mut self) -> Result<WantedFiles> {
        let groups = self.known.groups().to_vec();
        let specs = self.request.specs.clone();
        let mut wanted: WantedFiles = Vec::new();
        let mut unmatched: Vec<(ProbeSpec, Option<Error>)> = Vec::new();
        for spec in &specs {
            let spec = &likeliest(spec, &groups, &mut self.elves, &mut self.debugs);
            if let Some(note) = waits_for(spec, &groups) {
                self.notes.push(note);
                continue;
            }
            let mut matches = Matches::default();
            let mut all = Vec::new();
            for modules in &groups {
                match find(spec, modules, &mut self.elves, &mut self.debugs) {
                    Ok(found) => all.push((modules, found)),
                    Err(error @ Error::Usage(_)) => return Err(error),
                    Err(error) => matches.problem = Some(error),
                }
            }
            // Where one program has a function of this name, another's is not meant that is only like it.
            matches.reading = all.iter().filter_map(|(_, found)| found.reading).min();
            for (modules, found) in all {
                matches.left_out(modules, &found);
                if is_as_close(found.reading, matches.reading) {
                    self.take(spec, modules, found.files, &mut matches, &mut wanted);
                }
            }
            if matches.functions == 0 && spec.options.inlined == InlinedCalls::Count {
                // There may be no code of its own to find.
                unmatched.push((spec.clone(), matches.problem));
                continue;
            }
            if matches.functions == 0 {
                return Err(match (matches.problem, matches.left_out.is_empty()) {
                    (Some(error), _) => error,
                    (None, true) => self.not_found(spec),
                    (None, false) => Error::NotFound(format!(
                        "{spec}: a pattern does not take {}, and nothing else matches",
                        matches.left_out.sentence()
                    )),
                });
            }
            self.notes.extend(matches.notes(spec));
        }
        for spec in specs
            .iter()
            .filter(|spec| spec.options.inlined == InlinedCalls::Count)
        {
            let counted = self.count_inlined(spec);
            let alone = unmatched.iter().position(|(other, _)| other == spec);
            match (alone.map(|place| unmatched.swap_remove(place)), counted) {
                (Some((_, Some(error))), false) => return Err(error),
                (Some((spec, None)), false) => return Err(self.not_found(&spec)),
                _ => {}
            }
        }
        if self.table.functions() > MAX_FUNCTIONS {
            return Err(Error::Usage(format!(
                "{} functions match; at most {MAX_FUNCTIONS} can be probed: narrow the patterns",
                self.table.functions()
            )));
        }
        Ok(wanted)
    }

    /// Takes what a specification means in the files of one process or program.
    fn take(
        &mut self,
        spec: &ProbeSpec,
        modules: &[Image],
        found: Vec<Resolution>,
        matches: &mut Matches,
        wanted: &mut WantedFiles,
    ) {
        let workflow = workflow(spec, modules);
        let request = Arc::new(Request {
            captures: spec.captures.clone(),
            fails: spec.fails.clone(),
        });
        for resolution in found {
            let Some(module) = modules.get(resolution.module) else {
                continue;
            };
            matches.functions += resolution.functions.len();
            if !matches.done.insert(module.key) {
                continue;
            }
            // Of many nobody wants to read it one by one.
            if resolution.functions.len() <= NAMES_SHOWN {
                let merged = merged_notes(module, &resolution.functions, &mut self.elves);
                matches.merged.extend(merged);
            }
            for function in resolution.functions {
                let Some(probe) = self.table.take(module, workflow, &function) else {
                    matches.repeated += 1;
                    continue;
                };
                matches
                    .names
                    .push(format!("{} in {}", function.full, module.name()));
                let function = Wanted {
                    probe,
                    function,
                    request: request.clone(),
                    options: spec.options,
                };
                match wanted.iter_mut().find(|(known, _)| known.key == module.key) {
                    Some((_, functions)) => functions.push(function),
                    None => wanted.push((module.clone(), vec![function])),
                }
            }
        }
    }

    fn not_found(&mut self, spec: &ProbeSpec) -> Error {
        let all: Vec<Image> = self.known.groups().iter().flatten().cloned().collect();
        not_found(spec, &all, &mut self.elves, &mut self.debugs)
    }

    /// Finds where the functions of a specification were inlined; answers whether there is such a place.
    fn count_inlined(&mut self, spec: &ProbeSpec) -> bool {
        let mut any = false;
        let mut done: HashSet<FileKey> = HashSet::new();
        for modules in self.known.groups() {
            // As for functions: the named file, else the main program, else every library.
            let mut found = false;
            for module in modules {
                match &spec.module {
                    Some(name) if !module.is_called(name) => continue,
                    None if found && !module.is_main => break,
                    _ => {}
                }
                let Ok(elf) = self.elves.get(module) else {
                    continue;
                };
                if !done.insert(module.key) {
                    let mut counted = self.counted.iter();
                    found |= counted.any(|(other, _)| other.key == module.key);
                    continue;
                }
                let (debugs, table) = (&mut self.debugs, &mut self.table);
                match find_inlined(spec, workflow(spec, modules), module, elf, debugs, table) {
                    Ok(counted) => {
                        found |= !counted.is_empty();
                        let counted = counted.into_iter();
                        self.counted
                            .extend(counted.map(|counted| (module.clone(), counted)));
                    }
                    Err(reason) if module.is_main || spec.module.is_some() => {
                        self.notes.push(format!("{spec}: {reason}"));
                    }
                    Err(_) => {}
                }
            }
            any |= found;
        }
        any
    }
}

/// What a specification was found to mean.
#[derive(Default)]
struct Matches {
    functions: usize,
    /// Of these, probed already.
    repeated: usize,
    names: Vec<String>,
    merged: Vec<String>,
    problem: Option<Error>,
    done: HashSet<FileKey>,
    /// How the specification was read.
    reading: Option<Reading>,
    left_out: LeftOut,
    /// Files of which is known what was left out: one may be of many processes.
    left_out_of: HashSet<FileKey>,
}

/// Whether what was found in one program is meant as closely as what was in all.
fn is_as_close(found: Option<Reading>, best: Option<Reading>) -> bool {
    let says = |reading: Reading| reading <= Reading::Pattern;
    match (found, best) {
        (Some(found), Some(best)) => found == best || says(found) && says(best),
        _ => false,
    }
}

impl Matches {
    /// Counts what a pattern left out, once for each program.
    fn left_out(&mut self, modules: &[Image], found: &Resolved) {
        if modules
            .first()
            .is_some_and(|module| self.left_out_of.insert(module.key))
        {
            self.left_out = self.left_out.and(found.left_out);
        }
    }

    /// What the user should know.
    fn notes(self, spec: &ProbeSpec) -> Vec<String> {
        let mut notes = self.merged;
        if self.repeated > 0 {
            notes.push(format!(
                "{spec}: {} probed by an earlier --probe already",
                counted(self.repeated as u64, "function")
            ));
        }
        let is_loose = self
            .reading
            .is_some_and(|reading| reading > Reading::Pattern);
        if self.names.len() > 1 || is_loose && !self.names.is_empty() {
            notes.push(format!(
                "{spec} stands for {}: {}",
                counted(self.names.len() as u64, "function"),
                list(&with_copies(self.names))
            ));
        }
        if !self.left_out.is_empty() {
            notes.push(format!("{spec} does not take {}", self.left_out.sentence()));
        }
        notes
    }
}

/// Each name once, with how many functions have it.
fn with_copies(names: Vec<String>) -> Vec<String> {
    let mut counts: Vec<(String, usize)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for name in names {
        match places.get(&name).and_then(|place| counts.get_mut(*place)) {
            Some((_, count)) => *count += 1,
            None => {
                places.insert(name.clone(), counts.len());
                counts.push((name, 1));
            }
        }
    }
    let counts = counts.into_iter();
    counts
        .map(|(name, count)| match count {
            1 => name,
            many => format!("{name} ({many} of this name)"),
        })
        .collect()
}

/// The workflow that spans belong to: the one that is asked for, else the name of the program that runs there.
fn workflow<'a>(spec: &'a ProbeSpec, modules: &'a [Image]) -> &'a str {
    let program = || modules.iter().find(|module| module.is_main);
    spec.workflow
        .as_deref()
        .or_else(|| program().map(Image::name))
        .unwrap_or("program")
}

/// What to say of functions that are one code with others.
fn merged_notes(module: &Image, functions: &[Function], elves: &mut Elves) -> Vec<String> {
    let Ok(elf) = elves.get(module) else {
        return Vec::new();
    };
    let all = Functions::of(elf);
    let told = functions.iter().filter(|function| function.block.is_none());
    told.filter_map(|function| {
        let others = all.merged_with(function);
        (!others.is_empty()).then(|| {
            format!(
                "{} is one code with {}: equal functions were merged when it was built, and calls of all of them are seen as the first",
                text::shown(&function.plain),
                list(&others)
            )
        })
    })
    .collect()
}

/// What to say of a specification whose library is not mapped yet: it is probed when it is loaded. `None` where
/// it is mapped, where nothing is loaded later, or where another name was meant.
fn waits_for(spec: &ProbeSpec, groups: &[Vec<Image>]) -> Option<String> {
    let wanted = spec.module.as_ref()?;
    let mut modules = groups.iter().flatten();
    if modules.any(|module| module.is_called(wanted)) {
        return None;
    }
    let names: Vec<&str> = groups.iter().flatten().map(Image::name).collect();
    let loads = names.iter().any(|name| name.starts_with("ld-"));
    let wanted = wanted.as_str();
    let is_library = wanted.contains(".so") && no_file(wanted).is_none();
    (loads && is_library && nearest(wanted, names.iter().copied()).is_empty()).then(|| {
        format!(
            "{spec}: {} is not mapped yet; it will be traced when it is loaded",
            text::shown(wanted)
        )
    })
}

/// What a specification means here: what it says, or where no function is called so, its other reading.
fn likeliest(
    spec: &ProbeSpec,
    groups: &[Vec<Image>],
    elves: &mut Elves,
    debugs: &mut Debugs,
) -> ProbeSpec {
    let readings = spec.readings();
    // Nearly all have one: then there is nothing to look for twice.
    if let [only] = readings.as_slice() {
        return only.clone();
    }
    let how = |reading: &ProbeSpec, elves: &mut Elves, debugs: &mut Debugs| {
        let found = groups
            .iter()
            .filter_map(|modules| resolve(reading, modules, elves, debugs).ok()?.reading);
        // A name or a pattern that is there; what is only like it comes after all readings.
        found.min().map(|reading| reading.max(Reading::Pattern))
    };
    let mut best: Option<(Reading, &ProbeSpec)> = None;
    for reading in &readings {
        if let Some(found) = how(reading, elves, debugs)
            && best.is_none_or(|(best, _)| found < best)
        {
            best = Some((found, reading));
        }
    }
    best.map(|(_, reading)| reading)
        // What is not found is best said of the reading with fewer parentheses, and of the file.
        .or(readings
            .iter()
            .rfind(|reading| reading.module == spec.module))
        .unwrap_or(spec)
        .clone()
}

/// The functions of a specification, or the functions with the lines that it names.
fn find(
    spec: &ProbeSpec,
    modules: &[Image],
    elves: &mut Elves,
    debugs: &mut Debugs,
) -> Result<Resolved> {
    let Some(block) = &spec.block else {
        return resolve(spec, modules, elves, debugs);
    };
    resolve_block(spec, block, modules, elves, debugs)
        .map(|found| Resolved {
            reading: (!found.is_empty()).then_some(Reading::Name),
            files: found
                .into_iter()
                .map(|(module, functions)| Resolution { module, functions })
                .collect(),
            left_out: LeftOut::default(),
        })
        .map_err(|reason| Error::NotFound(format!("{spec}: {reason}")))
}
