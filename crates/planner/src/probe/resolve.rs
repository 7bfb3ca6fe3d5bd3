//! From specifications to functions of modules.

use super::{Debugs, futures};
use crate::{
    find::{Candidates, Function, LeftOut, MAX_FUNCTIONS, Reading, list, of_file},
    probe_spec::ProbeSpec,
    scripts,
};
use image::{
    Image,
    symbol::{Elves, nearest},
};
use model::{
    error::{Error, Result},
    text,
};

/// The functions that a specification stands for, in one module.
#[derive(Debug)]
pub(crate) struct Resolution {
    /// Index of the module.
    pub module: usize,
    /// The functions.
    pub functions: Vec<Function>,
}

/// What a specification stands for in the files of a process.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// How it was read; `None` where it stands for nothing.
    pub reading: Option<Reading>,
    /// File by file.
    pub files: Vec<Resolution>,
    /// What a pattern did not take.
    pub left_out: LeftOut,
}

/// Finds the functions of a specification: in the module that it names, else in the main program,
/// else in every library that has them.
///
/// # Errors
/// Where the named module is not there, too much matches, or a name may be several functions'. `Ok` with nothing means
/// "not found".
pub(crate) fn resolve(
    spec: &ProbeSpec,
    modules: &[Image],
    elves: &mut Elves,
    debugs: &mut Debugs,
) -> Result<Resolved> {
    let mut candidates = Candidates::default();
    let mut named = false;
    let mut is_in_main = false;
    for (index, module) in modules.iter().enumerate() {
        if let Some(wanted) = &spec.module {
            if !module.is_called(wanted) {
                continue;
            }
            named = true;
        } else if !module.is_main && is_in_main {
            break;
        }
        match elves.get(module) {
            Ok(elf) => {
                let found = candidates.add(&spec.function, index, of_file(module), elf);
                is_in_main |= found && module.is_main;
            }
            Err(error) if spec.module.is_some() || module.is_main => {
                return Err(Error::NotFound(format!(
                    "{}: {error}",
                    text::shown(&module.path)
                )));
            }
            Err(_) => {}
        }
    }
    if let Some(wanted) = &spec.module
        && !named
    {
        return Err(no_module(spec, wanted.as_str(), modules));
    }
    let mut resolved = Resolved {
        reading: None,
        files: Vec::new(),
        left_out: candidates.left_out(),
    };
    let chosen = candidates
        .choose(&spec.function)
        .map_err(|names| ambiguous(spec, &names, modules, elves))?;
    let Some(chosen) = chosen else {
        return Ok(resolved);
    };
    let total: usize = chosen.files.iter().map(|(_, all)| all.len()).sum();
    if total > MAX_FUNCTIONS {
        return Err(Error::Usage(format!(
            "{spec} matches more than {MAX_FUNCTIONS} functions, which is the limit; narrow it, or name the module with @MODULE"
        )));
    }
    for (index, functions) in chosen.files {
        let Some(module) = modules.get(index) else {
            continue;
        };
        let Ok(elf) = elves.get(module) else {
            continue;
        };
        let functions = futures::settle(functions, module, elf, debugs);
        if !functions.is_empty() {
            resolved.reading = Some(chosen.reading);
            resolved.files.push(Resolution {
                module: index,
                functions,
            });
        }
    }
    Ok(resolved)
}

/// A name that may be several functions'.
fn ambiguous(spec: &ProbeSpec, names: &[String], modules: &[Image], elves: &mut Elves) -> Error {
    let mut message = format!(
        "{spec}: no function is called just so, and several may be meant: {}; write more of the name",
        list(names)
    );
    // The function of a script, maybe, of whose name something native happens to end.
    let mut modules = modules.iter();
    let runs_scripts =
        modules.find_map(|module| scripts::said(module, elves.get(module).as_ref().ok()?));
    if let Some(runs_scripts) = runs_scripts {
        message.push_str(&format!("; {runs_scripts}"));
    }
    Error::NotFound(message)
}

fn no_module(spec: &ProbeSpec, wanted: &str, modules: &[Image]) -> Error {
    if let Some(reason) = no_file(wanted) {
        return Error::NotFound(format!("{spec}: {reason}"));
    }
    let near = nearest(wanted, modules.iter().map(Image::name));
    let mut message = format!(
        "{spec}: no file called {} is mapped in the target",
        text::shown(wanted)
    );
    if !near.is_empty() {
        message.push_str(&format!(
            "; did you mean {}?",
            text::shown(&near.join(", "))
        ));
    }
    Error::NotFound(message)
}

/// Why a module that is none can't be one.
pub(crate) fn no_file(module: &str) -> Option<&'static str> {
    match module.trim_matches(['[', ']']) {
        "vdso" | "linux-vdso.so.1" | "vsyscall" => Some(
            "the code that the kernel maps into each process belongs to no file, and probes need one; the C library's function of the same name calls it",
        ),
        "plt" => Some(
            "a stub of the procedure linkage table is no function: probe the function without `@plt`, in the library that has it",
        ),
        _ => None,
    }
}
