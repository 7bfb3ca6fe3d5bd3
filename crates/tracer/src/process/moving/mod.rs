//! Programs that move their own text into other memory, mostly to have it in huge pages.
//!
//! The breakpoints in the text are copied with it. The kernel knows a breakpoint by the file that is mapped
//! there, and after the move none is: whoever runs into the copy dies of SIGTRAP. So such a program is refused:
//! per process where the process moves its text or may do so, file-wide where its file has the means, for a
//! stranger may start it with the option tomorrow.
//!
//! Recognised are options and libraries that are known for it ([`options`]), functions that say so by name
//! ([`known`]), code that maps over itself with system calls of its own ([`code`]), and text that lies in no
//! file any more ([`maps`]). Go programs don't; what a C library or dynamic linker maps is no program's text.

mod code;
mod known;
mod maps;
mod options;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use super::{Module, Process};
use image::{
    FileKey, Image,
    symbol::{Elf, Elves},
};
use model::text;

pub use maps::text_was_moved;
use options::Start;

/// Files whose code was searched, kept for the next look.
const MAX_KEPT: usize = 4096;

/// Why a process moves its text, has moved it, or may do so: a sentence to be shown as it is, without its end.
pub fn moves_text(process: &Process, modules: &[Module], elves: &mut Elves) -> Option<String> {
    if let Some(reason) = maps::main_is_moved(process.pid, modules, elves) {
        return Some(reason);
    }
    let start = Start::of(process.pid);
    let main = modules.iter().find(|module| module.is_main);
    if let Some(library) = modules
        .iter()
        .map(|module| module.name())
        .chain(start.preloads.iter().map(String::as_str))
        .find(|name| known::moves_by_loading(name))
        && !(library.starts_with("libhugetlbfs.so") && start.leaves_text_alone())
    {
        return Some(format!(
            "{} moves the program's code into huge pages",
            text::shown(library)
        ));
    }
    for module in modules {
        let Ok(elf) = elves.get(module) else {
            continue;
        };
        let is_main = main.is_some_and(|main| main.key == module.key);
        let reason = match known::mover(module, elf) {
            Some(known::Mover::Node) => start.node_option().map(|option| {
                format!("it was started with {option}: Node.js copies its code into huge pages then")
            }),
            // A server does so unless it is told not to.
            Some(known::Mover::Hhvm) => (!start.hhvm_leaves_text_alone()).then(|| {
                "HHVM copies its code into huge pages, unless it is started with Eval.MaxHotTextHugePages=0"
                    .to_owned()
            }),
            Some(known::Mover::Php) => start.php_option().map(|option| {
                format!("it was started with {option}: PHP copies its code into huge pages then")
            }),
            // Its configuration says whether, and it does so before anything else: that was looked at.
            Some(known::Mover::ClickHouse) => None,
            Some(known::Mover::Named(function)) => Some(by_name(module, &function)),
            None => None,
        };
        let reason = reason.or_else(|| by_code(module, elf, is_main));
        if reason.is_some() {
            return reason;
        }
    }
    None
}

/// Why programs of this file may move their text, however they are started; to be asked where breakpoints reach
/// every process that has the file.
pub fn may_move_text(module: &Image, elf: &Elf) -> Option<String> {
    let reason = match known::mover(module, elf) {
        Some(known::Mover::Node) => Some(
            "Node.js copies its code into huge pages where it is started with --use-largepages"
                .to_owned(),
        ),
        Some(known::Mover::Hhvm) => Some("HHVM copies its code into huge pages".to_owned()),
        Some(known::Mover::Php) => Some(
            "PHP copies its code into huge pages where opcache.huge_code_pages is set".to_owned(),
        ),
        Some(known::Mover::ClickHouse) => Some(
            "ClickHouse copies its code into huge pages where remap_executable is configured"
                .to_owned(),
        ),
        Some(known::Mover::Named(function)) => Some(by_name(module, &function)),
        None => None,
    };
    let loads = || {
        let mut needed = elf.needed.iter();
        let library = needed.find(|name| known::moves_by_loading(name))?;
        Some(format!(
            "{} needs {}, which moves the program's code into huge pages",
            text::shown(module.name()),
            text::shown(library)
        ))
    };
    reason
        .or_else(loads)
        .or_else(|| by_code(module, elf, module.is_main))
}

fn by_name(module: &Image, function: &str) -> String {
    format!(
        "{} has a function that moves code into huge pages ({})",
        text::shown(module.name()),
        text::shown(function)
    )
}

/// Whether the file's own code maps over code.
fn by_code(module: &Image, elf: &Elf, is_main: bool) -> Option<String> {
    static KNOWN: Mutex<Option<HashMap<FileKey, Option<u64>>>> = Mutex::new(None);
    if elf.go.is_some() || known::is_c_library(module.name()) && !is_main {
        return None;
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if known.len() > MAX_KEPT {
        known.clear();
    }
    let found = *known
        .entry(module.key)
        .or_insert_with(|| code::replaces_text(&module.file, elf));
    found.map(|address| {
        format!(
            "{} maps other memory over code with a system call of its own, at {address:#x}",
            text::shown(module.name())
        )
    })
}

#[cfg(test)]
mod tests;
