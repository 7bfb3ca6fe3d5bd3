//! When may the end of a call be seen by a return probe?
//!
//! A return probe replaces the return address on the target's stack, which kills programs that walk
//! their stack or leave it (`danger`). So one is used only where neither can happen, in none of the
//! processes that it reaches, nor can begin there later; nor where the kernel's return trampoline is a system
//! call that a seccomp filter may not know (6.11 to 6.13). What will run a file later is not known, so a
//! probe that reaches whatever does gets none.

use super::{Dangers, ProcessFacts};
use image::{
    Image,
    symbol::{Elves, Language},
};
use sites::ReturnProbe;

/// What the user wants (`--return-probe`).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
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
    pub process: Option<&'a ProcessFacts>,
    /// Its files.
    pub images: Vec<&'a Image>,
}

impl Reached<'_> {
    /// What in it forbids return probes.
    fn danger(&self, dangers: &mut Dangers, elves: &mut Elves) -> Option<String> {
        let place = match self.process {
            Some(process) => format!(" in process {}", process.pid),
            None => String::new(),
        };
        if let Some(danger) = dangers.among(&self.images, elves) {
            return Some(format!("{danger}{place}"));
        }
        self.process?.unknown_code.clone()
    }
}

/// Whether functions of a module may have return probes, with the reason where not.
pub fn decide(
    module: &Image,
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
        .find(|process| process.has_seccomp_filter);
    if ((6, 11)..(6, 14)).contains(&kernel)
        && let Some(process) = filtered
    {
        return Err(format!(
            "process {} runs under a seccomp filter, which on this kernel may not know the uretprobe system call",
            process.pid
        ));
    }
    // Of what does not run yet nobody knows what it will load.
    let all_run = reached.iter().all(|reached| reached.process.is_some());
    if only_these && all_run && !reached.is_empty() {
        return Ok(());
    }
    // The probe reaches every process that will ever run this file.
    Err(format!(
        "later processes of {} can't be looked at",
        if module.is_main {
            "this file"
        } else {
            "this library"
        }
    ))
}

/// What the site planner may do for one function. `own_return` says what the function does with its own return
/// address, if anything; it is asked only where nothing else forbids return probes.
pub(super) fn for_function(
    mode: ReturnProbeMode,
    allow_unsafe: bool,
    language: Language,
    decision: &Result<(), String>,
    own_return: impl FnOnce() -> Option<String>,
) -> Result<ReturnProbe, String> {
    if mode == ReturnProbeMode::Ret {
        return Ok(ReturnProbe::Never);
    }
    let danger = match (language, decision) {
        (Language::Go, _) => Some("the Go runtime moves its stacks and walks them".to_owned()),
        (Language::Rust, Ok(())) => Some("a Rust panic could unwind through it".to_owned()),
        (_, Err(reason)) => Some(reason.clone()),
        (_, Ok(())) => own_return().map(|does| format!("it {does}")),
    };
    match (mode, danger) {
        (ReturnProbeMode::Ret, _) | (ReturnProbeMode::Auto, Some(_)) => Ok(ReturnProbe::Never),
        (ReturnProbeMode::Auto, None) => Ok(ReturnProbe::IfCheaper),
        (ReturnProbeMode::Uretprobe, None) => Ok(ReturnProbe::Always),
        (ReturnProbeMode::Uretprobe, Some(_)) if allow_unsafe => Ok(ReturnProbe::Always),
        (ReturnProbeMode::Uretprobe, Some(reason)) => Err(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_that_looks_at_its_return_address_gets_none() {
        let own = || Some("looks".to_owned());
        let of = |mode, allow, own: &dyn Fn() -> Option<String>| {
            for_function(mode, allow, Language::C, &Ok(()), own)
        };
        use ReturnProbeMode::{Auto, Ret, Uretprobe};
        assert_eq!(of(Auto, false, &|| None), Ok(ReturnProbe::IfCheaper));
        assert_eq!(of(Auto, false, &own), Ok(ReturnProbe::Never));
        assert_eq!(of(Ret, false, &own), Ok(ReturnProbe::Never));
        assert_eq!(of(Uretprobe, false, &own), Err("it looks".to_owned()));
        assert_eq!(of(Uretprobe, true, &own), Ok(ReturnProbe::Always));
    }
}
