//! The Debian package in roots of its own, layers over this machine's: once booted by its systemd, once beside the host's
//! processes, so that the unit traces with all that it forbids.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{Shop, source};
use crate::{
    package::{Built, PERF_EVENTS},
    shell::{Result, run},
};

/// Seconds until one that hangs is given up.
const TIME_LIMIT: &str = "100";

/// Installs it, starts the unit, removes it.
pub(super) fn check(built: &Built, work: &Path) -> Result<()> {
    let given = work.join("given");
    fs::create_dir_all(&given).map_err(|error| error.to_string())?;
    for (from, to) in [
        (built.deb.as_path(), "teracron-agent.deb"),
        (&source("installed.sh"), "installed.sh"),
    ] {
        fs::copy(from, given.join(to)).map_err(|error| format!("{}: {error}", from.display()))?;
    }
    fs::write(given.join("api-key"), super::api_key()?).map_err(|error| error.to_string())?;
    Shop::compile("gcc", &given.join("shop"))?;
    // What the booted system says is told through a file; the other one prints it.
    in_layer(work, "boot", &[&given])?;
    let told = fs::read_to_string(given.join("told")).unwrap_or_default();
    let last = told.lines().last().unwrap_or_default();
    if !last.starts_with("  installed") {
        return Err(told);
    }
    println!("{last}");
    if super::is_before_6_12()? {
        // The user's manager reads no drop-in of the system's.
        println!("  the unit is not tried: this kernel wants CAP_{PERF_EVENTS}");
        return Ok(());
    }
    let cgroup = PathBuf::from(format!("teracron-check-{}", std::process::id()));
    let result = in_layer(work, "unit", &[&given, &cgroup]);
    for hierarchy in ["systemd", "unified", ""] {
        let top = Path::new("/sys/fs/cgroup").join(hierarchy).join(&cgroup);
        if top.is_dir() {
            // Folders from the innermost on: files in them are the kernel's.
            let _ = run(Command::new("find")
                .arg(&top)
                .args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]));
        }
    }
    print!("{}", result?);
    Ok(())
}

/// Runs one of the scripts beside this file in a mount namespace of its own; answers what it said.
fn in_layer(work: &Path, name: &str, arguments: &[&Path]) -> Result<String> {
    let log = work.join(format!("{name}.log"));
    let file = fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    let same = file.try_clone().map_err(|error| error.to_string())?;
    let ended = run(Command::new("timeout")
        .args(["--signal=KILL", TIME_LIMIT])
        .args(["unshare", "--mount", "--propagation", "private", "sh"])
        .arg(source(&format!("{name}.sh")))
        .arg(work.join(name))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(same));
    let said = fs::read_to_string(&log).unwrap_or_default();
    match ended {
        Ok(()) => Ok(said),
        Err(error) => {
            let told = fs::read_to_string(work.join("given/told")).unwrap_or_default();
            Err(format!("{told}{said}\n{error}"))
        }
    }
}
