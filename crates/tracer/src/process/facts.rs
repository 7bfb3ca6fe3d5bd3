//! What planning has to know of a process.

use super::{Module, Process, mapped::Mapped};
use planner::probe::ProcessFacts;

impl Process {
    /// The facts of a process that has these files mapped.
    pub fn facts(&self, modules: &[Module]) -> ProcessFacts {
        ProcessFacts {
            pid: self.pid,
            unknown_code: unknown_code(self, modules),
            has_seccomp_filter: self.has_seccomp_filter(),
        }
    }
}

/// Whether a process that has return probes may keep them; to be asked while it runs, once a second or so: its list of
/// mappings is read (`/proc/PID/maps`). Files that it maps later are decided about when probes are planned for them.
///
/// # Errors
/// What has come that return probes can't live with, for people: then they are to be exchanged for probes on
/// `ret`, at once.
pub fn still_allows_returns(process: &Process) -> Result<(), String> {
    Mapped::of(process)?.generated().map_or(Ok(()), Err)
}

/// What was asked is what is mapped: a file that can't be opened is not among the modules.
fn unknown_code(process: &Process, modules: &[Module]) -> Option<String> {
    let mapped = match Mapped::of(process) {
        Ok(mapped) => mapped,
        Err(reason) => return Some(reason),
    };
    mapped.generated().or_else(|| {
        (!mapped.are_all_in(modules)).then(|| {
            format!(
                "a file that can't be read is mapped in process {}",
                process.pid
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::symbol::Elves;
    use planner::probe::{Dangers, Reached, decide};
    use std::process::Command;

    #[test]
    fn a_plain_program_may_have_them_while_it_stays_as_it_is() {
        let mut child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let process = Process::find(child.id()).unwrap();
        // Between fork and exec it is this program.
        let modules = loop {
            let modules = process.modules().unwrap();
            if modules.iter().any(|module| module.name() == "libc.so.6")
                && modules
                    .first()
                    .is_some_and(|module| module.name() == "sleep")
            {
                break modules;
            }
        };
        let (mut dangers, mut elves) = (Dangers::default(), Elves::default());
        let mut decided = |modules: &[Module], only_these| {
            let facts = process.facts(modules);
            let reached = [Reached {
                process: Some(&facts),
                images: modules.iter().map(|module| &module.image).collect(),
            }];
            let (module, kernel) = (&modules[0], (6, 18));
            decide(
                module,
                &reached,
                only_these,
                kernel,
                &mut dangers,
                &mut elves,
            )
        };
        assert_eq!(decided(&modules, true), Ok(()));
        let later = decided(&modules, false).unwrap_err();
        assert!(later.contains("later processes of this file"), "{later}");
        // A file of which nobody told.
        let few: Vec<Module> = modules
            .iter()
            .filter(|module| module.name() != "libc.so.6")
            .cloned()
            .collect();
        assert!(decided(&few, true).is_err());
        let start = std::time::Instant::now();
        let still = still_allows_returns(&process);
        println!("asked again in {:?}", start.elapsed());
        assert_eq!(still, Ok(()));
        let library = modules.iter().find(|module| !module.is_main).unwrap();
        let nobody = decide(library, &[], true, (6, 18), &mut dangers, &mut elves);
        assert!(nobody.is_err(), "nobody is known");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(still_allows_returns(&process).is_err());
    }
}
