//! The manual pages and shell completions: packages take them from the program itself, so that they are of its version.

use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Cli;
use model::error::{Error, Result};

const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// Writes them into a folder: a page for each command (`teracron-agent-doctor.1`), a file for each shell.
///
/// # Errors
/// Where that folder can't be written to.
pub(super) fn write(folder: &Path) -> Result<()> {
    let failed = |error: std::io::Error| {
        Error::Failed(format!(
            "cannot write into {}: {error}",
            model::text::shown(&folder.to_string_lossy())
        ))
    };
    let mut command = Cli::command();
    command.build();
    for shell in SHELLS {
        clap_complete::generate_to(shell, &mut command, "teracron-agent", folder)
            .map_err(failed)?;
    }
    // A page for `help` and each command's `help` would say nothing.
    let command = Cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, folder).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_page_for_each_command_and_a_file_for_each_shell() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        let page = fs::read_to_string(folder.path().join("teracron-agent.1")).unwrap();
        assert!(page.contains("\\-\\-probe") && page.contains("doctor"));
        for name in [
            "teracron-agent.bash",
            "_teracron-agent",
            "teracron-agent.fish",
        ] {
            let completions = fs::read_to_string(folder.path().join(name)).unwrap();
            assert!(completions.contains("whoami"), "{name}");
        }
        // What packages alone use is no page.
        for none in ["teracron-agent-manual.1", "teracron-agent-help.1"] {
            assert!(!folder.path().join(none).exists(), "{none}");
        }
        assert!(write(&folder.path().join("nowhere")).is_err());
    }
}
