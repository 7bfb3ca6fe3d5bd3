//! When may the end of a call be seen by a return probe?
//!
//! A return probe replaces the return address on the target's stack, which kills programs that walk
//! their stack or leave it (`danger`). So one is used only where neither can happen, in none of the
//! processes that it reaches; nor where the kernel's return trampoline is a system call that a
//! seccomp filter may not know (6.11 to 6.13).

use super::Dangers;
use crate::{
    site::ReturnProbe,
    symbol::{Elves, Language},
    target::{Module, Process, runs_file},
};

/// What the user wants (`--return-probe`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReturnProbeMode {
    /// A return probe where it is safe and cheaper; a probe on every return instruction elsewhere.
    Auto,
    /// A probe on every return instruction.
    Ret,
    /// A return probe; refused where it can kill the target.
    Uretprobe,
}

/// A process that a probe will reach, or, where there is none yet, the files that it would load.
pub struct Reached<'a> {
    /// The process.
    pub process: Option<&'a Process>,
    /// Its files.
    pub modules: &'a [Module],
}

impl Reached<'_> {
    /// What in it forbids return probes.
    fn danger(&self, dangers: &mut Dangers, elves: &mut Elves) -> Option<String> {
        let place = match self.process {
            Some(process) => format!(" in process {}", process.pid),
            None => String::new(),
        };
        if let Some(danger) = dangers.among(self.modules, elves) {
            return Some(format!("{danger}{place}"));
        }
        self.process
            .filter(|process| process.has_generated_code())
            .map(|process| format!("process {} generates code while it runs", process.pid))
    }
}

/// Whether functions of a module may have return probes, with the reason where not.
pub fn decide(
    module: &Module,
    reached: &[Reached<'_>],
    only_these: bool,
    kernel: (u32, u32),
    dangers: &mut Dangers,
    elves: &mut Elves,
) -> Result<(), String> {
    if let Some(danger) = reached
        .iter()
        .find_map(|reached| reached.danger(dangers, elves))
    {
        return Err(danger);
    }
    let filtered = reached
        .iter()
        .filter_map(|reached| reached.process)
        .find(|process| process.has_seccomp_filter());
    if ((6, 11)..(6, 14)).contains(&kernel)
        && let Some(process) = filtered
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
        let known = |reached: &Reached<'_>| reached.process.is_some_and(|known| known.pid == pid);
        if reached.iter().any(known) {
            continue;
        }
        let Ok(process) = Process::find(pid) else {
            continue;
        };
        let Ok(modules) = process.modules() else {
            continue;
        };
        let other = Reached {
            process: Some(&process),
            modules: &modules,
        };
        if let Some(danger) = other.danger(dangers, elves) {
            return Err(format!("{danger}, which runs the same program"));
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
