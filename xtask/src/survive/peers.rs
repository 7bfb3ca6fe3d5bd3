//! bpftrace and perf on the same functions: beside the agent, and in its place.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use super::{
    agent::Log,
    conditions::Setup,
    memory,
    process::{Deadline, Program},
    subject::{ROUND, Subject, Untraced},
    targets::{Built, Target},
};
use crate::shell::{Result, output, run};

/// The file that has the functions, and their names in its symbol table.
fn symbols(target: &Target, subject: &Subject) -> Result<(String, Vec<String>)> {
    let pid = *subject.pids.last().ok_or("no process")?;
    let file = match target.library {
        None => fs::read_link(format!("/proc/{pid}/exe"))
            .map_err(|error| format!("/proc/{pid}/exe: {error}"))?
            .display()
            .to_string(),
        Some(library) => memory::executable(pid)?
            .into_iter()
            .map(|mapping| mapping.path)
            .find(|path| path.ends_with(library))
            .ok_or_else(|| format!("{library} is not mapped"))?,
    };
    let mut names = Vec::new();
    for kind in [&[][..], &["-D"]] {
        let nm = |more: &[&str]| {
            Command::new("nm")
                .args(kind)
                .args(more)
                .args(["--defined-only", "--without-symbol-versions", "-P"])
                .arg(&file)
                .output()
                .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
                .map_err(|error| format!("nm: {error}"))
        };
        for line in nm(&[])?.lines() {
            let mut words = line.split(' ');
            if let (Some(name), Some("T" | "t" | "W")) = (words.next(), words.next()) {
                names.push(name.to_owned());
            }
        }
        if !names.is_empty() {
            break;
        }
    }
    let input = std::env::temp_dir().join(format!("teracron-survive-{}-names", std::process::id()));
    fs::write(&input, names.join("\n")).map_err(|error| error.to_string())?;
    let stdin = fs::File::open(&input).map_err(|error| error.to_string())?;
    let demangled = output(Command::new("c++filt").stdin(stdin))?;
    let _ = fs::remove_file(input);
    let wanted = |demangled: &str| target.functions.contains(&plain(demangled).as_str());
    let mut found: Vec<String> = names
        .into_iter()
        .zip(demangled.lines())
        .filter(|(_, demangled)| wanted(demangled))
        .map(|(name, _)| name)
        .collect();
    found.sort_unstable();
    found.dedup();
    Ok((file, found))
}

/// A demangled name without parameters and hashes; nothing for the rarely used half of a split function.
fn plain(demangled: &str) -> String {
    if demangled.contains(".cold") {
        return String::new();
    }
    let name = demangled.split('(').next().unwrap_or(demangled);
    // Rust's: `crate[hash]::name` or `crate::name::h0123456789abcdef`.
    let (before, after) = name.split_once('[').unwrap_or((name, ""));
    let name = format!(
        "{before}{}",
        after.split_once(']').map_or("", |(_, rest)| rest)
    );
    match name.rsplit_once("::h") {
        Some((rest, hash)) if hash.len() == 16 => rest.to_owned(),
        _ => name,
    }
}

/// A script of bpftrace that counts the functions' entries, and returns; `None` if the file has no such symbols.
pub(super) fn script(target: &Target, subject: &Subject, returns: bool) -> Result<Option<String>> {
    let (file, names) = symbols(target, subject)?;
    if names.is_empty() {
        return Ok(None);
    }
    let mut script = String::new();
    for name in &names {
        let _ = write!(script, "uprobe:{file}:{name} {{ @entries = count(); }} ");
        if returns {
            let _ = write!(script, "uretprobe:{file}:{name} {{ @returns = count(); }} ");
        }
    }
    // When this is heard, all before it is in place.
    script.push_str("interval:ms:200 { printf(\"attached\\n\"); }");
    Ok(Some(script))
}

/// Starts it and waits until it is in place.
pub(super) fn start_bpftrace(script: &str, pid: u32, deadline: Deadline) -> Result<Program> {
    let arguments = ["-B", "line", "-p", &pid.to_string(), "-e", script];
    let mut program = Program::start(Command::new("bpftrace").args(arguments))?;
    loop {
        match program.line(deadline) {
            Some(line) if line.contains("attached") => return Ok(program),
            Some(_) => {}
            None => {
                let errors = program.errors(deadline.or_after(0.5));
                return Err(format!(
                    "bpftrace did not attach: {}",
                    errors.last().cloned().unwrap_or_default()
                ));
            }
        }
    }
}

/// A peer's cell.
pub(super) enum Peer {
    Lived(String),
    Harmed(String),
    NotAttached(String),
}

/// What becomes of the target when bpftrace watches entries and returns.
pub(super) fn bpftrace(setup: &Setup, built: &Built, untraced: &Untraced) -> Peer {
    let cell = judge(setup, built, untraced, |subject, deadline| {
        let script = script(built.target, subject, true)?.ok_or("no symbols")?;
        start_bpftrace(&script, *subject.pids.last().ok_or("no process")?, deadline)
    });
    super::process::kill_all();
    cell
}

/// The same of perf: `perf probe` and `perf stat`.
pub(super) fn perf(setup: &Setup, built: &Built, untraced: &Untraced) -> Peer {
    let cell = judge(setup, built, untraced, |subject, deadline| {
        let (file, names) = symbols(built.target, subject)?;
        if names.is_empty() {
            return Err("no symbols".to_owned());
        }
        forget();
        let mut events = Vec::new();
        for (number, name) in names.iter().enumerate() {
            for (kind, what) in [("entry", ""), ("return", "%return")] {
                let event = format!("survive:{kind}{number}");
                let added = Command::new("timeout")
                    .args([
                        "20",
                        "perf",
                        "probe",
                        "-q",
                        "--no-demangle",
                        "-x",
                        &file,
                        "--add",
                    ])
                    .arg(format!("{event}={name}{what}"))
                    .output()
                    .map_err(|error| format!("perf: {error}"))?;
                if !added.status.success() {
                    let text = String::from_utf8_lossy(&added.stderr);
                    return Err(text
                        .lines()
                        .next()
                        .unwrap_or("perf probe failed")
                        .trim()
                        .to_owned());
                }
                // perf adds to the names of return probes.
                let suffix = if what.is_empty() { "" } else { "__return" };
                events.push(event + suffix);
            }
        }
        let pids: Vec<String> = subject.pids.iter().map(u32::to_string).collect();
        let mut program = Program::start(Command::new("perf").args([
            "stat",
            "-x",
            ";",
            "-e",
            &events.join(","),
            "-p",
            &pids.join(","),
        ]))?;
        // It says nothing when it is ready; if it can't, it ends.
        if program.wait(deadline.or_after(1.5)).is_some() {
            let errors = program.errors(deadline.or_after(0.5));
            let text = errors.iter().find(|line| line.len() > 8).cloned();
            return Err(text.unwrap_or_else(|| "it ended".to_owned()));
        }
        Ok(program)
    });
    super::process::kill_all();
    forget();
    cell
}

/// Takes perf's events out again.
fn forget() {
    let _ = Command::new("timeout")
        .args(["20", "perf", "probe", "-q", "--del", "survive:*"])
        .output();
}

/// perf's probes live in the kernel's tracing file system.
pub(super) fn mount_tracing() -> Result<()> {
    if Path::new("/sys/kernel/tracing/uprobe_events").exists() {
        return Ok(());
    }
    run(Command::new("mount").args(["-t", "tracefs", "tracefs", "/sys/kernel/tracing"]))
}

fn judge(
    setup: &Setup,
    built: &Built,
    untraced: &Untraced,
    attach: impl FnOnce(&Subject, Deadline) -> Result<Program>,
) -> Peer {
    let deadline = Deadline::after(setup.seconds);
    let mut subject = match Subject::start(&built.launch, &setup.folder.join("target"), deadline) {
        Ok(subject) => subject,
        Err(text) => return Peer::NotAttached(text),
    };
    let mut program = match attach(&subject, deadline) {
        Ok(program) => program,
        Err(text) => return Peer::NotAttached(text),
    };
    let mut log = Log::default();
    let mut work = || -> Result<()> {
        for _ in 0..2 {
            // A target that hangs under a peer need not hang for long.
            subject.round(ROUND, untraced, &mut log, deadline.or_after(20.0))?;
        }
        Ok(())
    };
    let worked = work();
    program.signal(libc::SIGINT);
    let mut said = program.rest(deadline.or_after(10.0));
    said.extend(program.errors(deadline.or_after(1.0)));
    drop(program);
    if let Err(text) = worked.and_then(|()| subject.end_as(untraced, deadline)) {
        return Peer::Harmed(text);
    }
    let (entries, returns) = (count(&said, "entr"), count(&said, "return"));
    Peer::Lived(format!(
        "{entries} entries, {returns} returns of {}",
        log.total()
    ))
}

/// The sum of bpftrace's or perf's figures for what begins so.
fn count(said: &[String], what: &str) -> u64 {
    let mut sum = 0;
    for line in said {
        if let Some(rest) = line.strip_prefix('@')
            && rest.starts_with(what)
        {
            sum += rest
                .split(": ")
                .nth(1)
                .and_then(|number| number.parse().ok())
                .unwrap_or(0);
        } else if line.contains(&format!("survive:{what}")) {
            sum += line
                .split(';')
                .next()
                .and_then(|number| number.parse().ok())
                .unwrap_or(0);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_found_however_they_are_mangled() {
        assert_eq!(super::plain("shop::work(int)"), "shop::work");
        assert_eq!(super::plain("shop::work(int) [clone .cold]"), "");
        assert_eq!(super::plain("panics[1f2e]::leaf"), "panics::leaf");
        assert_eq!(
            super::plain("panics::leaf::h0123456789abcdef"),
            "panics::leaf"
        );
        assert_eq!(super::plain("main.Work"), "main.Work");
    }

    #[test]
    fn figures_of_both_tools_are_read() {
        let said = [
            "@entries: 12",
            "@returns: 11",
            "5;;survive:entry0;1;100",
            "x",
        ]
        .map(str::to_owned);
        assert_eq!(super::count(&said, "entr"), 17);
        assert_eq!(super::count(&said, "return"), 11);
    }
}
