//! Running commands, and saying so.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

/// A step that takes longer says every so often that it goes on.
const PATIENCE: Duration = Duration::from_secs(10);

/// What went wrong, for people.
pub(crate) type Result<T> = std::result::Result<T, String>;

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Cargo, as it called us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // What `cargo run` set for us is not meant for another cargo.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name.as_ref());
        }
    }
    command
}

/// Runs a command; an exit code other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command
        .status()
        .map_err(|error| format!("cannot run {shown}: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{shown}: {status}"))
    }
}

/// Runs a command and answers what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run {shown}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{shown}: {}", output.status))
    }
}

/// Does one step of a task, and says when it begins, that it goes on, and what it took.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    eprintln!("xtask: {what}…");
    let (ended, end) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while let Err(mpsc::RecvTimeoutError::Timeout) = end.recv_timeout(PATIENCE) {
                eprintln!("xtask: {what}: {} s so far", began.elapsed().as_secs());
            }
        });
        let result = work();
        drop(ended);
        let outcome = if result.is_ok() { "done" } else { "failed" };
        eprintln!(
            "xtask: {what}: {outcome} after {:.1} s",
            began.elapsed().as_secs_f64()
        );
        result
    })
}

fn show(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Where a program is on the PATH.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// Runs the same task again through sudo where we are not root; `true` if that was done.
pub(crate) fn again_as_root() -> Result<bool> {
    if is_root() {
        return Ok(false);
    }
    if which("sudo").is_none() {
        return Err("this needs root, and there is no sudo: run it as root".to_owned());
    }
    eprintln!("xtask: this needs root: running again through sudo");
    let exe = env::current_exe().map_err(|error| format!("cannot find myself: {error}"))?;
    // The compiler and its caches stay the user's.
    let keep = [
        "PATH",
        "HOME",
        "CARGO",
        "CARGO_HOME",
        "RUSTUP_HOME",
        "RUSTUP_TOOLCHAIN",
        "CI",
    ];
    let mut command = Command::new("sudo");
    command.arg("env");
    for name in keep {
        if let Some(value) = env::var_os(name) {
            let mut pair = std::ffi::OsString::from(name);
            pair.push("=");
            pair.push(value);
            command.arg(pair);
        }
    }
    command.arg(exe).args(env::args_os().skip(1));
    run(&mut command)?;
    Ok(true)
}

/// Installs Debian packages for the given programs that are missing.
pub(crate) fn need(programs: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = programs
        .iter()
        .filter(|(program, _)| which(program).is_none() && !Path::new(program).exists())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if which("apt-get").is_none() {
        return Err(format!(
            "missing: {}; install them with your distribution's package manager",
            missing.join(", ")
        ));
    }
    step(&format!("installing {}", missing.join(", ")), || {
        run(Command::new("apt-get").args(["update", "-qq"]))?;
        run(Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(&missing)
            .stdout(Stdio::null()))
    })
}

/// Builds the agent with optimisation and answers its path.
pub(crate) fn build_agent() -> Result<PathBuf> {
    step("building the agent with optimisation", || {
        run(cargo().args([
            "build",
            "--release",
            "--locked",
            "--package",
            "teracron-agent",
        ]))
    })?;
    Ok(target_dir().join("release/teracron-agent"))
}

/// Builds the agent in the shortest time, to be looked at, not measured; answers its path.
pub(crate) fn build_agent_quickly() -> Result<PathBuf> {
    step("building the agent", || {
        run(cargo()
            .args(["build", "--profile", "quick", "--locked"])
            .args(["--package", "teracron-agent"]))
    })?;
    Ok(target_dir().join("quick/teracron-agent"))
}

/// The path of the executable in the line of cargo's messages (`--message-format=json`) that contains `mark`.
pub(crate) fn executable(messages: &str, mark: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter(|line| line.contains(mark) && line.contains("\"reason\":\"compiler-artifact\""))
        .find_map(|line| {
            let start = line.find("\"executable\":\"")? + "\"executable\":\"".len();
            let rest = line.get(start..)?;
            Some(PathBuf::from(rest.get(..rest.find('"')?)?))
        })
}

/// Cargo's output folder.
pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}
