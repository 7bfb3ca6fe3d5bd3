//! Who has the function where a named process has not: one that a shell or another launcher has started.

use super::prepare::prepare_with;
use crate::config::Targets;
use model::error::Error;
use planner::probe::ProbeTable;
use tracer::{
    kernel::Features,
    process::{comm_of, descendants},
};

/// Descendants that are looked at: their files have to be read.
const MOST: usize = 8;

/// An error of planning; where no function was found, with the descendants of the named processes that have it.
pub(super) fn in_family(error: Error, wanted: &Targets, features: Features) -> Error {
    let Error::NotFound(why) = error else {
        return error;
    };
    let mut others = descendants(&wanted.pids).others;
    others.truncate(MOST);
    // One by one: what one has is no function of another.
    others.retain(|pid| {
        let targets = Targets {
            pids: vec![*pid],
            executables: Vec::new(),
            follow: false,
            all_processes: false,
            ..wanted.clone()
        };
        prepare_with(&targets, features, ProbeTable::default(), true).is_ok()
    });
    Error::NotFound(match others.as_slice() {
        [] => why,
        [pid] => {
            let name = comm_of(*pid);
            format!(
                "{why}; but process {pid} ({name}), which descends from it, has what is asked for: --pid {pid}"
            )
        }
        many => {
            let many: Vec<String> = many
                .iter()
                .map(|pid| format!("{pid} ({})", comm_of(*pid)))
                .collect();
            format!(
                "{why}; but these processes, which descend from it, have what is asked for: {}",
                many.join(", ")
            )
        }
    })
}
