//! What to say where no function is what was asked for.

use super::Debugs;
use crate::{
    find::{Functions, future_owner, plain_names_of},
    probe_spec::{FunctionPattern, ProbeSpec},
};
use image::{
    Image,
    debug::InlinedFunction,
    symbol::{Elf, Elves, Names, nearest},
};
use model::{error::Error, text};

/// What to tell the user about a specification that nothing matches.
pub(crate) fn not_found(
    spec: &ProbeSpec,
    modules: &[Image],
    elves: &mut Elves,
    debugs: &mut Debugs,
) -> Error {
    let mut message = format!("{spec}: no such function");
    if let FunctionPattern::Address(address) = spec.function {
        for module in modules {
            let is_meant = module.is_main || spec.module.is_some();
            if let Ok(elf) = elves.get(module)
                && is_meant
                && elf
                    .stubs
                    .iter()
                    .any(|(start, end)| (*start..*end).contains(&address))
            {
                return Error::NotFound(format!(
                    "{spec}: at {address:#x} is a stub that jumps to a function of another file (PLT); probe that function by its name"
                ));
            }
            if let Ok(elf) = elves.get(module)
                && let Some(function) = Functions::of(elf).containing(address)
                && is_meant
            {
                message = format!(
                    "{spec}: no function begins at {address:#x}; it lies in {}, which begins at {:#x}",
                    text::shown(&function.plain),
                    function.address
                );
                break;
            }
        }
        return Error::NotFound(message);
    }
    let FunctionPattern::Name(wanted) = &spec.function else {
        return Error::NotFound(format!("{spec}: no function matches"));
    };
    let mut names: Vec<String> = Vec::new();
    let mut stripped = Vec::new();
    for module in modules {
        if spec
            .module
            .as_ref()
            .is_some_and(|name| !module.is_called(name))
        {
            continue;
        }
        if let Ok(elf) = elves.get(module)
            && (module.is_main || spec.module.is_some())
        {
            if let Some(why) = inlined_everywhere(spec, module, elf, debugs) {
                return Error::NotFound(format!("{spec}: {why}"));
            }
            if let Some(problem) = &elf.go_table_problem {
                return Error::NotFound(format!(
                    "{spec}: {} is a stripped Go program, and {problem}",
                    text::shown(module.name())
                ));
            }
            names.extend(Functions::of(elf).plain_names());
            if !elf.has_symtab {
                stripped.push(module.name().to_owned());
            }
        }
    }
    let near = nearest(wanted, names.iter().map(String::as_str));
    if !near.is_empty() {
        message.push_str(&format!(
            "; did you mean {}?",
            text::shown(&near.join(", "))
        ));
    }
    if !stripped.is_empty() {
        message.push_str(&format!(
            " ({} is stripped: only exported functions can be named)",
            text::shown(&stripped.join(", "))
        ));
    } else if near.is_empty() {
        message.push_str("; `teracron-agent symbols` lists what there is");
    }
    Error::NotFound(message)
}

/// Debug information larger than this is not searched for what a message could say, in bytes.
const MAX_SEARCHED: usize = 64 << 20;

/// What to say of a function without code of its own; `None` where it was not inlined either.
fn inlined_everywhere(
    spec: &ProbeSpec,
    module: &Image,
    elf: &Elf,
    debugs: &mut Debugs,
) -> Option<String> {
    let debug = debugs.get(module, elf).ok()?;
    if debug.size() > MAX_SEARCHED {
        return None;
    }
    let plain_name = plain_names_of(&spec.function, elf.go.is_some());
    let is_poll = |symbol: &str| {
        let plain = Names::of(symbol).plain;
        future_owner(&plain).is_some_and(|owner| plain_name(owner).is_some())
    };
    let found = debug
        .inlined_functions(|symbol| plain_name(symbol).is_some() || is_poll(symbol))
        .ok()?;
    let count = |functions: Vec<&InlinedFunction>| {
        let places = functions.iter().flat_map(|function| &function.places);
        match places
            .filter(|place| elf.file_offset(place.entry).is_some())
            .count()
        {
            0 => None,
            1 => Some("1 place".to_owned()),
            many => Some(format!("{many} places")),
        }
    };
    let (polls, calls): (Vec<_>, Vec<_>) =
        found.iter().partition(|function| is_poll(&function.symbol));
    let file = text::shown(module.name());
    if let Some(places) = count(polls) {
        return Some(format!(
            "the compiler put the polls of this async function into what awaits it ({places} in {file}), so that there is no function to trace; trace what awaits it"
        ));
    }
    count(calls).map(|places| {
        format!(
            "the compiler put all of its calls into the callers ({places} in {file}), so that there is no function to trace; with inlined = \"count\" in a configuration file they are counted"
        )
    })
}
