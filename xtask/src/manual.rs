//! The manual page and shell completions.

use std::fs;

use clap_complete::Shell;

use crate::shell::{Result, target_dir};

pub fn write() -> Result<()> {
    let folder = target_dir().join("manual");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut command = teracron_agent::cli::command();
    command.build();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "teracron-agent", &folder)
            .map_err(|error| format!("completions: {error}"))?;
    }
    clap_mangen::generate_to(command, &folder).map_err(|error| format!("manual: {error}"))?;
    println!(
        "wrote the manual pages and completions to {}",
        folder.display()
    );
    Ok(())
}
