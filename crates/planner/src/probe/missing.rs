//! What to say where no function is what was asked for.

use std::collections::HashSet;

use super::Debugs;
use crate::{
    find::{Functions, Near, Reading, future_owner, list, of_file, plain_names_of},
    probe_spec::{FunctionPattern, ProbeSpec},
    scripts,
};
use image::{
    FileKey, Image,
    debug::InlinedFunction,
    symbol::{Elf, Elves, Names},
};
use model::{error::Error, text};

/// What to tell the user about a specification that nothing matches.
pub(crate) fn not_found(
    spec: &ProbeSpec,
    modules: &[Image],
    elves: &mut Elves,
    debugs: &mut Debugs,
) -> Error {
    let mut seen: HashSet<FileKey> = HashSet::new();
    let modules: Vec<&Image> = modules
        .iter()
        .filter(|module| {
            let wanted = spec.module.as_ref();
            wanted.is_none_or(|wanted| module.is_called(wanted))
        })
        .filter(|module| seen.insert(module.key))
        .collect();
    let is_named = spec.module.is_some();
    let why = missing(&spec.function, &modules, is_named, elves, debugs);
    Error::NotFound(format!("{spec}: {why}"))
}

/// Why no function of these files is what was asked for, as the rest of a sentence; `is_named`: they are those that the
/// user means.
pub fn missing(
    pattern: &FunctionPattern,
    modules: &[&Image],
    is_named: bool,
    elves: &mut Elves,
    debugs: &mut Debugs,
) -> String {
    let meant = |module: &Image| module.is_main || is_named;
    if let FunctionPattern::Address(address) = pattern {
        let modules = modules.iter().filter(|module| meant(module));
        return no_start(*address, modules.copied(), elves);
    }
    let mut near = match pattern {
        FunctionPattern::Name(wanted) => Some(Near::to(wanted)),
        _ => None,
    };
    let (mut stripped, mut runs_scripts) = (Vec::new(), Vec::new());
    for module in modules {
        let Ok(elf) = elves.get(module) else {
            continue;
        };
        runs_scripts.extend(scripts::said(module, elf));
        if meant(module) {
            if let Some(why) = inlined_everywhere(pattern, module, elf, debugs) {
                return why;
            }
            if let Some(problem) = &elf.go_table_problem {
                return format!(
                    "{} is a stripped Go program, and {problem}",
                    text::shown(module.name())
                );
            }
            if !elf.has_symtab {
                stripped.push(module.name().to_owned());
            }
        }
        if let Some(near) = &mut near {
            near.add(of_file(module), elf);
        }
    }
    let what = match pattern {
        FunctionPattern::Name(_) => "no such function",
        _ => "no function matches",
    };
    // What is like the name of a script's function has nothing to do with it.
    let near = near.map_or_else(Vec::new, |near| near.names(!runs_scripts.is_empty()));
    let mut message = match near.as_slice() {
        [] => what.to_owned(),
        near => format!("{what}; did you mean {}?", text::shown(&near.join(", "))),
    };
    if let Some(runs_scripts) = runs_scripts.first() {
        message.push_str(if near.is_empty() { "; " } else { " " });
        message.push_str(runs_scripts);
    } else if !stripped.is_empty() {
        message.push_str(&format!(
            " ({} is stripped: only exported functions can be named)",
            text::shown(&stripped.join(", "))
        ));
    } else if near.is_empty() && matches!(pattern, FunctionPattern::Name(_)) {
        message.push_str("; `teracron-agent symbols` lists what there is");
    }
    message
}

/// What to say of an address at which no function begins.
fn no_start<'a>(
    address: u64,
    modules: impl Iterator<Item = &'a Image>,
    elves: &mut Elves,
) -> String {
    for module in modules {
        let Ok(elf) = elves.get(module) else {
            continue;
        };
        let mut stubs = elf.stubs.iter();
        if stubs.any(|(start, end)| (*start..*end).contains(&address)) {
            return format!(
                "at {address:#x} is a stub that jumps to a function of another file (PLT); probe that function by its name"
            );
        }
        if let Some(function) = Functions::of(elf).containing(address) {
            return format!(
                "no function begins at {address:#x}; it lies in {}, which begins at {:#x}",
                text::shown(&function.plain),
                function.address
            );
        }
    }
    "no such function".to_owned()
}

/// Debug information larger than this is not searched for what a message could say, in bytes.
const MAX_SEARCHED: usize = 64 << 20;

/// What to say of a function without code of its own; `None` where it was not inlined either.
pub fn inlined_everywhere(
    pattern: &FunctionPattern,
    module: &Image,
    elf: &Elf,
    debugs: &mut Debugs,
) -> Option<String> {
    let debug = debugs.get(module, elf).ok()?;
    if debug.size() > MAX_SEARCHED {
        return None;
    }
    let names = plain_names_of(pattern, elf.go.is_some());
    // How it has to be read, its name, and whether it is of an async function.
    let read = |symbol: &str| -> Option<(Reading, String, bool)> {
        let of_poll = || {
            let plain = Names::of(symbol).plain;
            let (reading, name) = names(future_owner(&plain)?)?;
            Some((reading, name, true))
        };
        let of_call = names(symbol).map(|(reading, name)| (reading, name, false));
        of_call.or_else(of_poll)
    };
    let found = debug
        .inlined_functions(|symbol| read(symbol).is_some())
        .ok()?;
    let places = |function: &InlinedFunction| {
        let places = function.places.iter();
        places
            .filter(|place| elf.file_offset(place.entry).is_some())
            .count()
    };
    let mut by_name: Vec<(Reading, bool, String, usize)> = Vec::new();
    for function in &found {
        let Some((reading, name, is_poll)) = read(&function.symbol) else {
            continue;
        };
        let places = places(function);
        let mut known = by_name.iter_mut();
        match known.find(|(_, is, other, _)| *other == name && *is == is_poll) {
            Some((_, _, _, count)) => *count += places,
            None => by_name.push((reading, is_poll, name, places)),
        }
    }
    by_name.retain(|(_, _, _, places)| *places > 0);
    let closest = by_name.iter().map(|(reading, ..)| *reading).min()?;
    by_name.retain(|(reading, ..)| *reading == closest);
    let is_poll = by_name.iter().any(|(_, is_poll, ..)| *is_poll);
    by_name.retain(|(_, is, ..)| *is == is_poll);
    let count: usize = by_name.iter().map(|(_, _, _, places)| places).sum();
    let places = match count {
        1 => "1 place".to_owned(),
        many => format!("{many} places"),
    };
    let file = text::shown(module.name());
    // What was not named in full is.
    let names: Vec<String> = by_name.into_iter().map(|(_, _, name, _)| name).collect();
    let which = if closest == Reading::Name {
        String::new()
    } else {
        format!("{}: ", list(&names))
    };
    Some(if is_poll {
        format!(
            "{which}the compiler put the polls of this async function into what awaits it ({places} in {file}), so that there is no function to trace; trace what awaits it"
        )
    } else {
        format!(
            "{which}the compiler put all of its calls into the callers ({places} in {file}), so that there is no function to trace; a configuration file has them counted: [[probe]] with workflow, function (the whole name) and inlined = \"count\""
        )
    })
}
