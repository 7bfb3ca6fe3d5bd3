//! Unit and manifests: against systemd, Kubernetes' and Compose's schemas, and what was measured.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use super::source;
use crate::{
    package::{CAPABILITIES, PERF_EVENTS},
    shell::{Result, root, run, target_dir},
};

/// The schemas come in Python packages: Kubernetes' of this version, Compose's of that release.
const KUBERNETES: &str = "kubernetes-validate==1.37.0";
const COMPOSE: &str = "docker-compose==1.29.2";

/// Checks all of them.
pub(super) fn check(work: &Path) -> Result<()> {
    let packaging = root().join("packaging");
    let unit = |name: &str| {
        std::fs::read_to_string(packaging.join(name)).map_err(|error| format!("{name}: {error}"))
    };
    let (main, drop_in) = (unit("teracron-agent.service")?, unit("before-6.12.conf")?);
    let asked = capabilities(&main);
    if asked != CAPABILITIES {
        return Err(format!("the unit asks for {asked:?}, not {CAPABILITIES:?}"));
    }
    let more = capabilities(&drop_in);
    if more != [PERF_EVENTS] {
        return Err(format!("before-6.12.conf asks for {more:?}"));
    }
    // Of 100: without what perf events want.
    run(Command::new("systemd-analyze")
        .args(["security", "--no-pager", "--offline=yes", "--threshold=33"])
        .arg(packaging.join("teracron-agent.service"))
        .stdout(Stdio::null()))?;
    let tools = target_dir().join("package/schemas");
    let python = tools.join("bin/python3");
    if !tools.join("complete").is_file() {
        let _ = std::fs::remove_dir_all(&tools);
        run(Command::new("python3").args(["-m", "venv"]).arg(&tools))?;
        let pip = |command: &[&str]| {
            run(Command::new(&python)
                .args(["-m", "pip", "--quiet", "--disable-pip-version-check"])
                .args(command)
                .current_dir(&tools)
                .stdout(Stdio::null()))
        };
        pip(&["install", KUBERNETES, "jsonschema", "pyyaml"])?;
        // The schema alone; the program is of another time.
        pip(&["download", "--no-deps", "--dest", ".", COMPOSE])?;
        std::fs::write(tools.join("complete"), "").map_err(|error| error.to_string())?;
    }
    run(Command::new(&python)
        .arg(source("manifests.py"))
        .arg(root().join("deploy"))
        .arg(&tools)
        .arg(CAPABILITIES.join(","))
        .current_dir(work))
}

/// Names in the lines `CapabilityBoundingSet=` of a unit.
fn capabilities(unit: &str) -> Vec<&str> {
    unit.lines()
        .filter_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .flat_map(str::split_whitespace)
        .map(|name| name.trim_start_matches("CAP_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::capabilities;

    #[test]
    fn the_bounding_set() {
        let unit = "# CapabilityBoundingSet=CAP_X\nCapabilityBoundingSet=CAP_A CAP_B\nUMask=0\n";
        assert_eq!(capabilities(unit), ["A", "B"]);
    }
}
