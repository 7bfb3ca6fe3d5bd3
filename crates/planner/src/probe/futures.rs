//! Async functions of Rust: `shop::charge` is the poll of its future, `shop::charge::{{closure}}`.

use std::sync::Arc;

use teracron_common::{EnterCookie, ProbeId};

use super::{Debugs, Program, Site, plan, unwinder::entry_site};
use crate::find::{Function, future_owner};
use image::{
    Image,
    debug::{DebugInfo, FunctionInfo, Type},
    symbol::{Elf, Language, Names, Starts},
};
use sites::{KernelRules, Poll};

/// Functions that drop a kind of future, copies and instances together, at most.
const MAX_DROPS: usize = 256;

/// Takes the functions that a pattern stands for, among them those that may be the future of one: keeps what
/// is meant.
pub(super) fn settle(
    functions: Vec<Function>,
    module: &Image,
    elf: &Elf,
    debugs: &mut Debugs,
) -> Vec<Function> {
    let is_poll = |function: &Function| {
        function.language == Language::Rust
            && (function.is_of_future || future_owner(&function.plain).is_some())
    };
    let is_rust = |function: &Function| function.language == Language::Rust;
    let few = functions.len() <= plan::MAX_COUNTED;
    let concerns = |function: &Function| is_poll(function) || few && is_rust(function);
    if !functions.iter().any(concerns) {
        return functions;
    }
    let debug = debugs.get(module, elf).ok();
    let starts = Starts::of(elf, &module.file);
    let mut settled: Vec<Function> = functions
        .into_iter()
        .filter_map(|mut function| {
            if is_poll(&function) {
                function.future = poll_of(&function, &starts, debug).map(Arc::new);
                if function.is_of_future && function.future.is_none() {
                    return None;
                }
            }
            Some(function)
        })
        .collect();
    // What only makes the future is not the call; what calls others is a function of its own, with an
    // async block in it.
    let polls: Vec<String> = settled
        .iter()
        .filter(|function| function.is_of_future)
        .map(|function| function.plain.clone())
        .collect();
    let (mut makers, mut callers) = (Vec::new(), Vec::new());
    for function in settled.iter().filter(|function| !function.is_of_future) {
        if polls.contains(&function.plain) {
            if only_makes(function, &starts) {
                makers.push(function.address);
            } else {
                callers.push(function.plain.clone());
            }
        }
    }
    settled.retain(|function| {
        if function.is_of_future {
            !callers.contains(&function.plain)
        } else {
            !makers.contains(&function.address)
        }
    });
    if let Some(debug) = debug.filter(|_| few) {
        for function in &mut settled {
            function.only_makes_future = is_rust(function)
                && function.future.is_none()
                && !polls.contains(&function.plain)
                && makes_future(function, debug);
        }
    }
    settled
}

/// Whether what a function returns is the future of an `async fn`.
fn makes_future(function: &Function, debug: &DebugInfo) -> bool {
    let info = debug.function(function.address).ok().flatten();
    info.and_then(|info| Some(info.name_of(info.result?)))
        .is_some_and(|name| name.starts_with("{async_fn_env#"))
}

/// How the future is polled whose poll this is; `None` where it is none.
fn poll_of(function: &Function, starts: &Starts<'_>, debug: Option<&DebugInfo>) -> Option<Poll> {
    let code = plan::decode(starts, function).ok()?;
    let known = debug.and_then(|debug| debug.function(function.address).ok().flatten());
    match known {
        Some(info) => sites::poll(&code, Some(state_offset(&info)?)),
        // A flag and a state with two values look alike.
        None => sites::poll(&code, None).filter(|poll| poll.is_machine),
    }
}

/// The offset of the state byte, as the type of a poll's first parameter has it.
fn state_offset(info: &FunctionInfo<'_>) -> Option<u64> {
    match info.type_of(info.future_type()?).ok()? {
        Type::Variants { tag: Some(tag), .. } if tag.name == "__state" => Some(tag.offset),
        _ => None,
    }
}

/// Whether a function calls nothing: then it can only make the future.
fn only_makes(function: &Function, starts: &Starts<'_>) -> bool {
    plan::decode(starts, function).is_ok_and(|code| code.calls_nothing())
}

/// Sites where the future of a poll is dropped; the cookie is the probe.
pub(super) fn drops(
    function: &Function,
    probe: ProbeId,
    starts: &Starts<'_>,
    rules: KernelRules,
) -> Vec<Site> {
    let wanted = bare(&Names::of(&function.symbol).plain);
    // Every mangled form spells the function's own name: cheaper than demangling everything.
    let owner = future_owner(&wanted).unwrap_or(&wanted);
    let word = owner.rsplit("::").next().unwrap_or(owner);
    let cookie = EnterCookie::of(probe.at_site()).pack();
    let mut sites: Vec<Site> = starts
        .elf()
        .symbols
        .iter()
        .filter(|symbol| symbol.name.contains("drop_in_place") && symbol.name.contains(word))
        .filter(|symbol| {
            dropped(&Names::of_file(&symbol.name, &starts.elf().budget).plain)
                .is_some_and(|name| name == wanted)
        })
        .filter_map(|symbol| entry_site(starts, symbol, rules))
        .take(MAX_DROPS)
        .map(|(place, _)| Site::new(Program::FutureDrop, place, cookie))
        .collect();
    sites.sort_unstable();
    sites.dedup();
    sites
}

/// The bare name of the type that a function drops: `core::ptr::drop_in_place<T>`.
fn dropped(name: &str) -> Option<String> {
    let name = name.strip_prefix("core::ptr::drop_in_place")?;
    let name = name.strip_prefix("::").unwrap_or(name);
    Some(bare(name.strip_prefix('<')?.strip_suffix('>')?))
}

/// A name without the arguments of generics.
fn bare(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut depth = 0usize;
    let mut last = ' ';
    for character in name.chars() {
        match character {
            '<' => {
                if depth == 0 && out.ends_with("::") {
                    out.truncate(out.len() - 2);
                }
                depth += 1;
            }
            '>' if last != '-' => depth = depth.saturating_sub(1),
            _ if depth == 0 => out.push(character),
            _ => {}
        }
        last = character;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_what_is_dropped() {
        let dropped = |name| dropped(name).unwrap();
        assert_eq!(
            dropped("core::ptr::drop_in_place<shop::store<&str>::{{closure}}>"),
            bare("shop::store::{{closure}}")
        );
        assert_eq!(
            dropped("core::ptr::drop_in_place::<shop::store<fn(u8) -> u8>::{closure#0}>"),
            bare("shop::store::<fn(u8) -> u8>::{closure#0}")
        );
        assert_ne!(
            dropped("core::ptr::drop_in_place<tokio::Timeout<shop::store::{{closure}}>>"),
            bare("shop::store::{{closure}}")
        );
        assert_eq!(super::dropped("core::ptr::drop_in_place"), None);
        assert_eq!(super::dropped("shop::store"), None);
    }
}
