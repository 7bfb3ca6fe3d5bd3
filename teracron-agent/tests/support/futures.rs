//! The async target, built by cargo because it needs tokio, and its spans beside what it wrote down.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::*;

/// Builds the async target with cargo's arguments; answers the program.
pub fn build(arguments: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/targets/async");
    let name: String = std::iter::once("async")
        .chain(arguments.iter().copied())
        .flat_map(str::chars)
        .filter(|character| character.is_alphanumeric())
        .collect();
    // On another kernel there is no cargo: the target comes from a run that had one.
    let prebuilt =
        std::env::var_os("TERACRON_PREBUILT").map(|folder| PathBuf::from(folder).join(&name));
    if let Some(path) = &prebuilt
        && path.exists()
    {
        return path.clone();
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let output = Command::new("cargo")
        .current_dir(source)
        .args(["build", "--locked", "--target-dir"])
        .arg(&folder)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("cargo is needed: {error}"));
    assert!(
        output.status.success(),
        "cargo build {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let profile = if arguments.contains(&"--release") {
        "release"
    } else {
        "debug"
    };
    let mut place = arguments
        .iter()
        .skip_while(|argument| **argument != "--target");
    let folder = folder.join(place.nth(1).unwrap_or(&""));
    let out = folder.join(profile).join("async-target");
    if let Some(path) = prebuilt {
        std::fs::copy(&out, path).unwrap();
    }
    out
}

const FUNCTIONS: &[&str] = &[
    "charge", "store", "large", "never", "explode", "checkout", "task", "faulty",
];

/// A call as the target wrote it down.
struct Call {
    id: u64,
    parent: u64,
    name: String,
    polls: u64,
    end: String,
}

fn calls(log: &[String]) -> Vec<Call> {
    log.iter()
        .filter_map(|line| {
            let mut words = line.strip_prefix("call ")?.splitn(5, ' ');
            let mut next = || words.next().unwrap();
            Some(Call {
                id: next().parse().unwrap(),
                parent: next().parse().unwrap(),
                name: next().to_owned(),
                polls: next().parse().unwrap(),
                end: next().to_owned(),
            })
        })
        .collect()
}

/// Calls below `parent` as text, each with its polls and end, in an order that does not depend on time.
fn logged(calls: &HashMap<u64, Vec<&Call>>, parent: u64) -> Vec<String> {
    let mut out: Vec<String> = calls
        .get(&parent)
        .into_iter()
        .flatten()
        .map(|call| {
            let Call {
                name, polls, end, ..
            } = call;
            format!("{name} {polls} {end}{:?}", logged(calls, call.id))
        })
        .collect();
    out.sort();
    out
}

fn traced(spans: &HashMap<Option<String>, Vec<&Span>>, parent: Option<String>) -> Vec<String> {
    let mut out: Vec<String> = spans
        .get(&parent)
        .into_iter()
        .flatten()
        .map(|span| {
            let name = span.operation.trim_start_matches("async_target::");
            let name = name.split("::<").next().unwrap();
            let polls = &span.metadata["async.polls"];
            let end = match &span.error_type {
                Some(error) => format!("{} {error}", span.status),
                None => span.status.clone(),
            };
            format!(
                "{name} {polls} {end}{:?}",
                traced(spans, Some(span.id.clone()))
            )
        })
        .collect();
    out.sort();
    out
}

/// Probes for everything that the target writes down.
fn probes() -> Vec<String> {
    FUNCTIONS
        .iter()
        .flat_map(|name| ["--probe".to_owned(), format!("test:async_target::{name}")])
        .collect()
}

/// Runs the target; `errors`: what results say is known.
pub fn check(arguments: &[&str], workers: &str, orders: &str, errors: bool) -> Report {
    let program = build(arguments);
    let mut target = Target::start(&program, &[workers, orders]);
    let probes = probes();
    let probes: Vec<&str> = probes.iter().map(String::as_str).collect();
    let agent = Agent::start(target.pid, &probes);
    target.go();
    let log = target.log();
    assert!(target.finish().success(), "{arguments:?}");
    let report = agent.finish();
    report.assert_nothing_lost();
    let mut calls = calls(&log);
    if !errors {
        for call in &mut calls {
            if call.end.starts_with("failed PaymentError") {
                call.end = "succeeded".to_owned();
            }
        }
    }
    let mut by_parent: HashMap<u64, Vec<&Call>> = HashMap::new();
    for call in &calls {
        by_parent.entry(call.parent).or_default().push(call);
    }
    let mut spans: HashMap<Option<String>, Vec<&Span>> = HashMap::new();
    for span in &report.spans {
        spans.entry(span.parent.clone()).or_default().push(span);
    }
    let (logged, traced) = (logged(&by_parent, 0), traced(&spans, None));
    for (a, b) in logged.iter().zip(&traced) {
        assert_eq!(b, a, "{arguments:?} (left: traced, right: logged)");
    }
    assert_eq!(traced.len(), logged.len(), "{arguments:?}");
    assert_eq!(report.spans.len(), calls.len(), "{arguments:?}");
    // A trace is a task.
    for roots in spans.get(&None).into_iter() {
        let traces: HashSet<&String> = roots.iter().map(|span| &span.trace).collect();
        assert_eq!(traces.len(), roots.len());
    }
    for span in &report.spans {
        let busy = span.metadata["async.busy_ms"].as_f64().unwrap();
        assert!(
            busy >= 0.0 && busy <= span.duration_ns as f64 / 1e6,
            "{span:?}"
        );
    }
    report
}
