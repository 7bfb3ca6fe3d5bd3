//! The manual page and shell completions, which the agent itself writes.

use std::{fs, path::Path, process::Command};

use crate::shell::{Result, build_agent, run, target_dir};

pub(crate) fn write() -> Result<()> {
    let folder = target_dir().join("manual");
    write_to(&build_agent()?, &folder)?;
    println!(
        "wrote the manual pages and completions to {}",
        folder.display()
    );
    Ok(())
}

/// Has an agent write them into a folder, which is made.
pub(crate) fn write_to(agent: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    run(Command::new(agent).arg("manual").arg(folder))
}
