//! The survival matrix: targets of many kinds under many conditions, compared with their untraced selves.

mod agent;
mod conditions;
mod kernel_log;
mod memory;
mod peers;
mod process;
mod report;
mod subject;
mod targets;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use clap::ValueEnum as _;

use crate::shell::{Result, again_as_root, build_agent, need, root, run, target_dir};
use conditions::{Cell, Condition, Outcome, Setup};
use kernel_log::KernelLog;
use peers::Peer;
use process::Deadline;
use report::Row;
use subject::{Subject, Untraced};
use targets::{Built, Target};

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this target, or this cell of it; may be repeated.
    #[arg(long, value_name = "TARGET[:CONDITION]")]
    only: Vec<String>,
    /// Fewer repetitions.
    #[arg(long)]
    quick: bool,
    /// This agent, and don't build one.
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// Without bpftrace and perf in the agent's place.
    #[arg(long)]
    no_peers: bool,
    /// Seconds that a cell may take.
    #[arg(long, default_value_t = 60.0)]
    cell_seconds: f64,
    /// Minutes that attaching and detaching again and again may take; then it has been done less often.
    #[arg(long, default_value_t = 15.0)]
    detach_minutes: f64,
    /// Where the page goes [default: docs/survival.md, with --only target/survival.md].
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Options {
    fn wants(&self, target: &Target, condition: Condition) -> bool {
        self.only.is_empty()
            || self.only.iter().any(|only| {
                let (key, cell) = only.split_once(':').unwrap_or((only, ""));
                key == target.key && (cell.is_empty() || named(condition) == cell)
            })
    }

    /// A misspelt name would be a matrix that is green because it is empty.
    fn check(&self) -> Result<()> {
        for only in &self.only {
            let (key, cell) = only.split_once(':').unwrap_or((only, ""));
            if !targets::ALL.iter().any(|target| target.key == key) {
                let keys: Vec<&str> = targets::ALL.iter().map(|target| target.key).collect();
                return Err(format!("no target {key}; there are {}", keys.join(", ")));
            }
            if !cell.is_empty() && !Condition::ALL.iter().any(|&one| named(one) == cell) {
                let names: Vec<String> = Condition::ALL.iter().map(|&one| named(one)).collect();
                return Err(format!(
                    "no condition {cell}; there are {}",
                    names.join(", ")
                ));
            }
        }
        Ok(())
    }
}

fn named(condition: Condition) -> String {
    condition
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Runs the matrix and writes its page.
pub(crate) fn survive(options: &Options) -> Result<()> {
    options.check()?;
    if again_as_root()? {
        return Ok(());
    }
    let began = Instant::now();
    let wanted: Vec<&'static Target> = targets::ALL
        .iter()
        .filter(|target| Condition::ALL.iter().any(|&one| options.wants(target, one)))
        .collect();
    let agent = match &options.agent {
        Some(path) => path
            .canonicalize()
            .map_err(|error| format!("{}: {error}", path.display()))?,
        None => build_agent()?,
    };
    need(&[
        ("gdb", "gdb"),
        ("strace", "strace"),
        ("bpftrace", "bpftrace"),
        ("perf", "linux-perf"),
        ("git", "git"),
    ])?;
    targets::install(&wanted)?;
    peers::mount_tracing()?;
    process::adopt_orphans();
    let made = target_dir().join("survive");
    fs::create_dir_all(&made).map_err(|error| format!("{}: {error}", made.display()))?;
    // Where users that are not root may enter, too.
    let folder = std::env::temp_dir().join(format!("teracron-survive-{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let bystander = made.join("bystander");
    run(std::process::Command::new("gcc")
        .args(["-O2", "-o"])
        .arg(&bystander)
        .arg(root().join("xtask/survive-targets/bystander.c")))?;
    let log = KernelLog::from_now()?;
    let setup = Setup {
        agent: agent.clone(),
        bystander,
        folder: folder.clone(),
        seconds: options.cell_seconds,
        detaches: if options.quick { 5 } else { 50 },
        detach_seconds: options.detach_minutes * 60.0,
    };
    let mut rows: Vec<(&'static Target, Row)> = Vec::new();
    let mut ready: Vec<Option<(Built, Untraced)>> = Vec::new();
    for target in wanted {
        let prepared = prepare(&setup, target, &made);
        let mut row = Row::default();
        match prepared {
            Ok((built, untraced)) => {
                cells(options, &setup, &built, &untraced, &mut row);
                ready.push(Some((built, untraced)));
            }
            Err(text) => {
                eprintln!("survive: {}: {text}", target.key);
                row.failed = Some(text);
                ready.push(None);
            }
        }
        rows.push((target, row));
    }
    detach(options, &setup, &mut rows, &ready);
    let _ = fs::remove_dir_all(&folder);
    let leaked = log.leaked()?;
    write(options, &agent, began, &rows, leaked)?;
    verdict(&rows, leaked)
}

fn prepare(setup: &Setup, target: &'static Target, made: &Path) -> Result<(Built, Untraced)> {
    let built = targets::build(target, made)?;
    let mut tried = 0;
    loop {
        let deadline = Deadline::after(setup.seconds);
        let untraced = Subject::calibrate(&built.launch, &setup.folder.join("target"), deadline);
        process::kill_all();
        tried += 1;
        match untraced {
            Ok(untraced) => return Ok((built, untraced)),
            // Somebody else's tracer may harm it.
            Err(text) if tried < 3 => eprintln!("survive: {} untraced, again: {text}", target.key),
            Err(text) => return Err(format!("untraced: {text}")),
        }
    }
}

/// All cells of a row but "detach".
fn cells(options: &Options, setup: &Setup, built: &Built, untraced: &Untraced, row: &mut Row) {
    let key = built.target.key;
    for condition in Condition::ALL {
        if condition == Condition::Detach || !options.wants(built.target, condition) {
            continue;
        }
        let began = Instant::now();
        let cell = conditions::run(setup, built, untraced, condition);
        progress(key, condition, &cell, began);
        row.cells.insert(condition, cell);
    }
    if options.no_peers || !options.wants(built.target, Condition::Attach) {
        return;
    }
    for (name, peer) in [("bpftrace", &mut row.bpftrace), ("perf", &mut row.perf)] {
        let began = Instant::now();
        let cell = if name == "perf" {
            peers::perf(setup, built, untraced)
        } else {
            peers::bpftrace(setup, built, untraced)
        };
        let (Peer::Lived(text) | Peer::Harmed(text) | Peer::NotAttached(text)) = &cell;
        println!(
            "{key} under {name} alone: {text} ({:.1} s)",
            began.elapsed().as_secs_f64()
        );
        *peer = Some(cell);
    }
}

/// The column "detach": all at once.
fn detach(
    options: &Options,
    setup: &Setup,
    rows: &mut [(&'static Target, Row)],
    ready: &[Option<(Built, Untraced)>],
) {
    let mut places = Vec::new();
    let mut all = Vec::new();
    for (place, one) in ready.iter().enumerate() {
        let Some((built, untraced)) = one else {
            continue;
        };
        if !options.wants(built.target, Condition::Detach) {
            continue;
        }
        let attach = rows[place]
            .1
            .cells
            .get(&Condition::Attach)
            .map(|cell| &cell.outcome);
        match attach {
            // One that is refused alone would have all refused.
            Some(Outcome::Refused(why)) => {
                let cell = Cell {
                    outcome: Outcome::Refused(why.clone()),
                    strangers: None,
                    notes: Vec::new(),
                };
                rows[place].1.cells.insert(Condition::Detach, cell);
            }
            _ => {
                places.push(place);
                all.push((built, untraced));
            }
        }
    }
    if all.is_empty() {
        return;
    }
    let began = Instant::now();
    let cells = conditions::detach(setup, &all, |cycle| {
        if cycle % 5 == 0 {
            println!(
                "attached and detached {cycle} times ({:.0} s)",
                began.elapsed().as_secs_f64()
            );
        }
    });
    for (place, cell) in places.into_iter().zip(cells) {
        progress(rows[place].0.key, Condition::Detach, &cell, began);
        rows[place].1.cells.insert(Condition::Detach, cell);
    }
}

fn progress(key: &str, condition: Condition, cell: &Cell, began: Instant) {
    let strangers = cell.strangers.filter(|&bytes| bytes > 0);
    let strangers = strangers.map_or_else(String::new, |bytes| {
        format!(", {bytes} bytes changed in strangers")
    });
    let text = report::brief(cell);
    println!(
        "{key}:{}: {text}{strangers} ({:.1} s)",
        named(condition),
        began.elapsed().as_secs_f64()
    );
}

fn write(
    options: &Options,
    agent: &Path,
    began: Instant,
    rows: &[(&'static Target, Row)],
    leaked: usize,
) -> Result<()> {
    // A part of the matrix does not replace the whole.
    let out = options.out.clone().unwrap_or_else(|| {
        if options.only.is_empty() && !options.quick {
            root().join("docs/survival.md")
        } else {
            target_dir().join("survival.md")
        }
    });
    if let Some(folder) = out.parent() {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    let page = report::page(&agent.display().to_string(), minutes, rows, leaked);
    fs::write(&out, page).map_err(|error| format!("{}: {error}", out.display()))?;
    println!("written to {}", out.display());
    Ok(())
}

/// An error where something was harmed or could not be judged.
fn verdict(rows: &[(&'static Target, Row)], leaked: usize) -> Result<()> {
    let (mut harmed, mut failed) = (Vec::new(), Vec::new());
    for (target, row) in rows {
        if row.failed.is_some() {
            failed.push(target.key.to_owned());
        }
        for (condition, cell) in &row.cells {
            let name = format!("{}:{}", target.key, named(*condition));
            match cell.outcome {
                Outcome::Harmed(_) => harmed.push(name),
                Outcome::Failed(_) => failed.push(name),
                Outcome::Lived(_) | Outcome::Refused(_) => {}
            }
        }
    }
    if !harmed.is_empty() {
        return Err(format!(
            "harmed in {} cells: {}",
            harmed.len(),
            harmed.join(", ")
        ));
    }
    if leaked > 0 {
        return Err(format!(
            "the kernel keeps {leaked} breakpoints in its books"
        ));
    }
    if !failed.is_empty() {
        return Err(format!(
            "not judged in {} cells: {}",
            failed.len(),
            failed.join(", ")
        ));
    }
    Ok(())
}
