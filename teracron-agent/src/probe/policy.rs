//! When may the end of a call be seen by a return probe?
//!
//! A return probe replaces the return address on the target's stack. Whatever walks the stack then
//! meets an address that belongs to no function, and aborts the program. So one is used only where
//! nobody can walk: in processes without an unwinder. Even there it is not used where it would
//! reach other processes that have one, or where the kernel's return trampoline is a system call
//! that a seccomp filter may not know (6.11 to 6.13).

use crate::{
    site::ReturnProbe,
    symbol::{Elves, Language},
    target::{Module, Process, Unwinding, runs_file, unwinding_of},
};

/// What the user wants (`--return-probe`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ReturnProbeMode {
    /// A return probe where it is safe and cheaper; a probe on every return instruction elsewhere.
    Auto,
    /// A probe on every return instruction.
    Ret,
    /// A return probe; refused where it can kill the target.
    Uretprobe,
}

/// Whether functions of a module may have return probes, with the reason where not.
pub fn decide(
    module: &Module,
    targets: &[(&Process, &[Module])],
    only_these: bool,
    kernel: (u32, u32),
    elves: &mut Elves,
) -> Result<(), String> {
    for (process, modules) in targets {
        if let Unwinding::By(name) = unwinding_of(modules, elves) {
            return Err(format!(
                "{name} in process {} can unwind the stack through it",
                process.pid
            ));
        }
    }
    let filtered = targets
        .iter()
        .find(|(process, _)| process.has_seccomp_filter());
    if ((6, 11)..(6, 14)).contains(&kernel)
        && let Some((process, _)) = filtered
    {
        return Err(format!(
            "process {} runs under a seccomp filter, which on this kernel may not know the uretprobe system call",
            process.pid
        ));
    }
    if only_these {
        return Ok(());
    }
    // The probe reaches every process that runs this file.
    if !module.is_main {
        return Err("other processes that use this library could unwind through it".to_owned());
    }
    for pid in runs_file(module) {
        if targets.iter().any(|(process, _)| process.pid == pid) {
            continue;
        }
        let Ok(process) = Process::find(pid) else {
            continue;
        };
        let Ok(modules) = process.modules() else {
            continue;
        };
        if let Unwinding::By(name) = unwinding_of(&modules, elves) {
            return Err(format!(
                "{name} in process {pid}, which runs the same program, can unwind the stack through it"
            ));
        }
    }
    Ok(())
}

/// What the site planner may do for one function.
pub fn for_function(
    mode: ReturnProbeMode,
    allow_unsafe: bool,
    language: Language,
    decision: &Result<(), String>,
) -> Result<ReturnProbe, String> {
    let danger = match (language, decision) {
        (Language::Go, _) => Some("the Go runtime moves its stacks and walks them".to_owned()),
        (Language::Rust, Ok(())) => Some("a Rust panic could unwind through it".to_owned()),
        (_, Err(reason)) => Some(reason.clone()),
        (_, Ok(())) => None,
    };
    match (mode, danger) {
        (ReturnProbeMode::Ret, _) | (ReturnProbeMode::Auto, Some(_)) => Ok(ReturnProbe::Never),
        (ReturnProbeMode::Auto, None) => Ok(ReturnProbe::IfCheaper),
        (ReturnProbeMode::Uretprobe, None) => Ok(ReturnProbe::Always),
        (ReturnProbeMode::Uretprobe, Some(_)) if allow_unsafe => Ok(ReturnProbe::Always),
        (ReturnProbeMode::Uretprobe, Some(reason)) => Err(reason),
    }
}
