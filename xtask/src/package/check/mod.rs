//! Installs and starts what was packaged.

mod deb;
mod image;
mod manifests;
mod runtime;

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{Built, CAPABILITIES, PERF_EVENTS};
use crate::shell::{Result, need, root, run, step};

/// Everything, in `work`.
pub(super) fn check(built: &Built, work: &Path) -> Result<()> {
    need(&[
        ("musl-gcc", "musl-tools"),
        ("openssl", "openssl"),
        ("python3", "python3"),
        ("ip", "iproute2"),
        ("setpriv", "util-linux"),
        ("systemd-analyze", "systemd"),
        ("systemd-nspawn", "systemd-container"),
        ("podman", "podman"),
        ("/usr/sbin/runc", "runc"),
    ])?;
    let _ = fs::remove_dir_all(work);
    fs::create_dir_all(work).map_err(|error| format!("{}: {error}", work.display()))?;
    step("checking unit and manifests", || manifests::check(work))?;
    step("tracing from the image", || image::check(built, work))?;
    step("running the image in a container", || runtime::check(work))?;
    step("installing the Debian package", || deb::check(built, work))?;
    println!("the packages install, start and trace");
    Ok(())
}

/// A script or source beside this file.
fn source(name: &str) -> PathBuf {
    root().join("xtask/src/package/check").join(name)
}

/// Whether breakpoints of one process are perf events on this kernel.
fn is_before_6_12() -> Result<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").map_err(|e| e.to_string())?;
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map(|number| number.parse::<u32>().unwrap_or(0));
    Ok((numbers.next(), numbers.next()) < (Some(6), Some(12)))
}

/// Capabilities that this kernel asks for.
fn needed() -> Result<Vec<&'static str>> {
    let mut needed = CAPABILITIES.to_vec();
    if is_before_6_12()? {
        needed.push(PERF_EVENTS);
    }
    Ok(needed)
}

/// The test project's API key.
fn api_key() -> Result<String> {
    let path = root().join("crates/wire/tests/vectors.json");
    let vectors =
        fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    vectors
        .split('"')
        .find(|word| word.starts_with("tcn_") && word.len() > 500)
        .map(str::to_owned)
        .ok_or_else(|| format!("{} holds no API key", path.display()))
}

/// The traced program, running; killed at the end.
struct Shop {
    child: Child,
    /// Its process id, as seen from here.
    pid: String,
}

impl Shop {
    /// Starts a command that becomes, or has as its only child, that program.
    fn start(command: &mut Command) -> Result<Self> {
        let shown = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{shown}: {error}"))?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or("no stdout")?;
        BufReader::new(stdout)
            .read_line(&mut line)
            .map_err(|error| error.to_string())?;
        let id = child.id();
        let mut shop = Self {
            child,
            pid: id.to_string(),
        };
        if line.trim() != "ready" {
            return Err(format!("{shown} said {line:?}"));
        }
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        if let Some(inner) = children.unwrap_or_default().split_whitespace().next() {
            shop.pid = inner.to_owned();
        }
        Ok(shop)
    }

    /// The program itself, built with a compiler.
    fn compile(compiler: &str, program: &Path) -> Result<()> {
        run(Command::new(compiler)
            .args(["-O2", "-o"])
            .arg(program)
            .arg(source("shop.c")))
    }

    /// In namespaces of its own, on overlayfs, with musl.
    fn in_container(work: &Path) -> Result<Self> {
        let (folder, program) = (work.join("container"), work.join("shop-musl"));
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        Self::compile("musl-gcc", &program)?;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--fork", "--kill-child", "sh"])
            .arg(source("container.sh"))
            .args([&folder, &program]);
        Self::start(&mut command)
    }

    fn lives(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            other => Err(format!("the traced program ended: {other:?}")),
        }
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        // It would outlive its parent: a change of user makes it forget that it was to die with that (prctl(2),
        // PR_SET_PDEATHSIG).
        let _ = run(Command::new("kill").args(["-KILL", &self.pid]));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a run of the agent said.
struct Told {
    success: bool,
    stdout: String,
    stderr: String,
}

impl Told {
    /// Runs a command to its end.
    fn by(command: &mut Command) -> Result<Self> {
        let output = command
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{command:?}: {error}"))?;
        Ok(Self {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// That it traced `pay`, its argument too, and lost nothing.
    fn traced(&self, what: &str) -> Result<()> {
        let spans = self
            .stdout
            .lines()
            .filter(|line| line.contains("pay") && line.contains("\"order\""))
            .count();
        if self.success && spans >= 100 && self.stderr.contains("none lost") {
            println!("  {what}: {spans} spans, none lost");
            Ok(())
        } else {
            Err(format!(
                "{what}: {spans} spans of a second in which about 900 calls were made\n{}\n{}",
                self.stderr,
                self.stdout.lines().next().unwrap_or_default()
            ))
        }
    }
}

/// Arguments for a second of tracing a shop.
fn arguments(pid: &str) -> Vec<&str> {
    vec![
        "--pid",
        pid,
        "--probe",
        "shop:pay(order=arg1:i64)",
        "--output",
        "json",
        "--duration",
        "1",
    ]
}

/// A command in a shell that first joins a cgroup.
fn in_cgroup(procs: &Path, command: &Command) -> Command {
    let mut outer = Command::new("sh");
    outer
        .args(["-c", "echo 0 > \"$0\" && exec \"$@\""])
        .arg(procs)
        .arg(command.get_program())
        .args(command.get_args().map(OsStr::to_owned));
    outer
}
