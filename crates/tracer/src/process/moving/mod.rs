//! Processes that move their own text into other memory, or have moved it: what their files say of it is known
//! (`planner::moving`); here it is looked at how they were started ([`options`]), what they have loaded, and whether
//! their text lies in its file still ([`maps`]).

mod maps;
mod options;

use std::collections::HashMap;

use super::{Module, Process};
use image::FileKey;
use model::text;
use planner::moving::{FileMoving, Mover, by_name, moves_by_loading};

pub use maps::text_was_moved;
use options::Start;

/// Why a process moves its text, has moved it, or may do so: a sentence to be shown as it is, without its end.
pub fn moves_text(
    process: &Process,
    modules: &[Module],
    files: &HashMap<FileKey, FileMoving>,
) -> Option<String> {
    if let Some(reason) = maps::main_is_moved(process.pid, modules, files) {
        return Some(reason);
    }
    let start = Start::of(process.pid);
    if let Some(library) = modules
        .iter()
        .map(|module| module.name())
        .chain(start.preloads.iter().map(String::as_str))
        .find(|name| moves_by_loading(name))
        && !(library.starts_with("libhugetlbfs.so") && start.leaves_text_alone())
    {
        return Some(format!(
            "{} moves the program's code into huge pages",
            text::shown(library)
        ));
    }
    for module in modules {
        let Some(file) = files.get(&module.key) else {
            continue;
        };
        let reason = match &file.mover {
            Some(Mover::Node) => start.node_option().map(|option| {
                format!("it was started with {option}: Node.js copies its code into huge pages then")
            }),
            // A server does so unless it is told not to.
            Some(Mover::Hhvm) => (!start.hhvm_leaves_text_alone()).then(|| {
                "HHVM copies its code into huge pages, unless it is started with Eval.MaxHotTextHugePages=0"
                    .to_owned()
            }),
            Some(Mover::Php) => start.php_option().map(|option| {
                format!("it was started with {option}: PHP copies its code into huge pages then")
            }),
            // Its configuration says whether, and it does so before anything else: that was looked at.
            Some(Mover::ClickHouse) => None,
            Some(Mover::Named(function)) => Some(by_name(module, function)),
            None => None,
        };
        let reason = reason.or_else(|| file.by_code(module));
        if reason.is_some() {
            return reason;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::symbol::Elves;

    /// Of all processes here: none has moved its text.
    #[test]
    fn processes_of_this_machine_are_left_alone() {
        let mut elves = Elves::default();
        let mut files = HashMap::new();
        let mut reason_of = |process: &Process, modules: &[Module]| {
            for module in modules {
                if let Ok(elf) = elves.get(module) {
                    files
                        .entry(module.key)
                        .or_insert_with(|| FileMoving::of(module, elf));
                }
            }
            moves_text(process, modules, &files)
        };
        let process = Process::find(std::process::id()).unwrap();
        let modules = process.modules().unwrap();
        assert_eq!(reason_of(&process, &modules), None);
        assert_eq!(text_was_moved(process.pid, &modules), None);
        let mut asked = 0;
        for pid in crate::process::all_pids() {
            let Ok(process) = Process::find(pid) else {
                continue;
            };
            // Another test's may do so.
            if ["moves", "node"]
                .iter()
                .any(|name| process.comm.starts_with(name))
            {
                continue;
            }
            let Ok(modules) = process.modules() else {
                continue;
            };
            let reason = reason_of(&process, &modules);
            assert_eq!(reason, None, "{pid} {}", process.comm);
            asked += 1;
        }
        assert!(asked > 0);
    }
}
