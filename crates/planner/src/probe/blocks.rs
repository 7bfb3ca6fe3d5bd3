//! Blocks of source lines as functions of their own.

use std::sync::Arc;

use super::Debugs;
use crate::{
    find::{Function, Functions},
    probe_spec::{BlockSpec, FunctionPattern, ProbeSpec},
};
use image::{
    Image,
    debug::{FrameRow, LineCode, Lines, frame_rows},
    symbol::Elves,
};
use sites::Block;

/// Functions that have code of the same lines: instances of a template, at most.
const MAX_FUNCTIONS: usize = 64;

/// Finds the functions that have code of a block's lines: in the main program, else in every library.
/// Answers the place of the module, and the functions, each with its block.
///
/// # Errors
/// With what is missing, where nothing is found.
pub(crate) fn resolve(
    spec: &ProbeSpec,
    block: &BlockSpec,
    modules: &[Image],
    elves: &mut Elves,
    debugs: &mut Debugs,
) -> Result<Vec<(usize, Vec<Function>)>, String> {
    let mut reason = "no module has debug information".to_owned();
    let mut found = Vec::new();
    for (place, module) in modules.iter().enumerate() {
        if !module.is_main && !found.is_empty() {
            break;
        }
        let Ok(elf) = elves.get(module) else {
            continue;
        };
        let elf = elf.clone();
        let debug = match debugs.get(module, &elf) {
            Ok(debug) => debug,
            Err(error) => {
                if module.is_main {
                    reason = error;
                }
                continue;
            }
        };
        let lines = Lines {
            file: &block.file,
            first: block.first,
            last: block.last,
        };
        let functions = Functions::of(&elf);
        let near = functions.matching(&spec.function);
        let near = near.first().map(|function| function.address);
        let code = match debug.lines(&lines, near) {
            Ok(code) => code,
            Err(error) => {
                reason = error.to_string();
                continue;
            }
        };
        if code.statements.is_empty() {
            if module.is_main {
                reason = format!("no code comes from {block}");
            }
            continue;
        }
        let mut code = code;
        if block.last.is_none() {
            // To the end of the function in which the first line lies, not of those behind it.
            let first = code.statements.iter().map(|(_, line)| *line).min();
            code.statements.retain(|(_, line)| Some(*line) == first);
        }
        let functions = functions_of(spec, &code, &functions, module);
        if !functions.is_empty() {
            found.push((place, functions));
        }
    }
    if found.is_empty() {
        Err(reason)
    } else {
        Ok(found)
    }
}

fn functions_of(
    spec: &ProbeSpec,
    code: &LineCode,
    functions: &Functions<'_>,
    module: &Image,
) -> Vec<Function> {
    let mut found: Vec<Function> = Vec::new();
    for (address, _) in &code.statements {
        if found.len() >= MAX_FUNCTIONS || found.iter().any(|function| contains(function, *address))
        {
            continue;
        }
        let Some(mut function) = functions.containing(*address) else {
            continue;
        };
        // The first line's first statement, not the one that the compiler put first.
        let entry = code
            .statements
            .iter()
            .filter(|(address, _)| contains(&function, *address))
            .min_by_key(|(address, line)| (*line, *address))
            .map_or(*address, |(address, _)| *address);
        let ranges = code
            .ranges
            .iter()
            .copied()
            .filter(|(start, _)| contains(&function, *start))
            .collect();
        let frames: Vec<FrameRow> = [Some(function.address), function.cold.map(|cold| cold.0)]
            .into_iter()
            .flatten()
            .filter_map(|start| frame_rows(&module.file, start).ok())
            .flatten()
            .collect();
        if let FunctionPattern::Name(name) = &spec.function {
            function.full = format!("{name} in {}", function.full);
            function.plain.clone_from(name);
        }
        function.block = Some(Arc::new(Block {
            entry,
            ranges,
            frames: frames
                .into_iter()
                .map(|row| (row.start, row.end, row.base, row.offset))
                .collect(),
            depth: 1,
        }));
        found.push(function);
    }
    found
}

/// Whether an address is in a function, in either of its halves.
fn contains(function: &Function, address: u64) -> bool {
    [(function.address, function.size)]
        .into_iter()
        .chain(function.cold)
        .any(|(start, size)| (start..start.saturating_add(size)).contains(&address))
}
