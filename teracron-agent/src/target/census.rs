//! Who else runs a file? A return probe reaches every process that does, so each is asked whether it
//! could harm it.

use teracron_common::config::FileId;

use super::{Module, all_pids, executable_id};

/// Ids of the processes whose main program is this file.
pub fn runs_file(module: &Module) -> Vec<u32> {
    let wanted = FileId::from_stat(module.key.dev, module.key.ino);
    all_pids()
        .into_iter()
        .filter(|pid| executable_id(*pid) == Some(wanted))
        .collect()
}
