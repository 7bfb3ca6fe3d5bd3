//! Who else runs a file, and can anything in these processes unwind the stack?
//!
//! A return probe is only harmless where nobody walks the stack. That is asked of every process that
//! the probe will reach, which is every process that runs the file.

use super::{Module, all_pids, executable_id};
use crate::symbol::Elves;
use teracron_common::config::FileId;

/// Whether something in a process can unwind its stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unwinding {
    /// No unwinder is mapped.
    None,
    /// The named file brings one.
    By(String),
}

/// Names of libraries that unwind, up to the version.
const UNWINDERS: [&str; 9] = [
    "libgcc_s.so",
    "libstdc++.so",
    "libc++.so",
    "libc++abi.so",
    "libunwind.so",
    "libunwind-x86_64.so",
    "libprofiler.so",
    "libasan.so",
    "libjvm.so",
];

/// Whether something among these modules unwinds the stack.
pub fn unwinding_of(modules: &[Module], elves: &mut Elves) -> Unwinding {
    for module in modules {
        let name = module.name();
        let known = UNWINDERS.iter().any(|unwinder| name.starts_with(unwinder));
        // Linked statically: the program has the functions itself.
        let own = module.is_main
            && !known
            && elves
                .get(module)
                .as_ref()
                .is_ok_and(crate::symbol::Elf::brings_unwinder);
        if known || own {
            return Unwinding::By(name.to_owned());
        }
    }
    Unwinding::None
}

/// Ids of the processes whose main program is this file.
pub fn runs_file(module: &Module) -> Vec<u32> {
    let wanted = FileId::from_stat(module.key.dev, module.key.ino);
    all_pids()
        .into_iter()
        .filter(|pid| executable_id(*pid) == Some(wanted))
        .collect()
}
