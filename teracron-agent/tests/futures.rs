//! Async functions of Rust on tokio's runtime: every call that the target wrote down is one span, from its
//! first poll to its end, whatever threads polled it, with the call that awaited it as its parent.

#[path = "support/cargo.rs"]
mod cargo;
mod support;

use std::collections::HashMap;

use support::*;

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

fn probes() -> Vec<String> {
    FUNCTIONS
        .iter()
        .flat_map(|name| ["--probe".to_owned(), format!("test:async_target::{name}")])
        .collect()
}

/// Runs the target; `errors`: what results say is known.
fn check(arguments: &[&str], workers: &str, orders: &str, errors: bool) -> Report {
    let program = cargo::build(arguments);
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
        let traces: std::collections::HashSet<&String> =
            roots.iter().map(|span| &span.trace).collect();
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

#[test]
fn not_optimised() {
    check(&[], "4", "60", true);
}

#[test]
fn optimised_and_boxed() {
    check(&["--release", "--features", "boxed"], "4", "200", true);
}

#[test]
fn one_worker() {
    check(&["--release", "--features", "boxed"], "1", "40", true);
}

#[test]
fn without_debug_information() {
    let strip = [
        "--release",
        "--features",
        "boxed",
        "--config",
        "profile.release.debug=false",
    ];
    check(&strip, "4", "60", false);
}

#[test]
fn names_of_the_newer_kind() {
    let flags = ["--release", "--features", "boxed", "--config"];
    let v0 = "build.rustflags=[\"-Csymbol-mangling-version=v0\"]";
    check(&[&flags[..], &[v0]].concat(), "4", "60", true);
}

#[test]
fn parameters_and_results_by_name() {
    for arguments in [&[][..], &["--release", "--features", "boxed"]] {
        let program = cargo::build(arguments);
        let mut target = Target::start(&program, &["4", "30"]);
        let agent = Agent::start(target.pid, &["--probe", "test:async_target::charge(order)"]);
        target.go();
        target.log();
        target.finish();
        let report = agent.finish();
        report.assert_nothing_lost();
        assert!(report.spans.iter().any(|span| span.captured["order"] == 8));
        for span in &report.spans {
            let order = span.captured["order"].as_u64().unwrap();
            let failed = order % 5 > 2;
            assert_eq!(span.status == "failed", failed, "{span:?}");
        }
    }
}

#[test]
fn what_waits_when_the_process_ends() {
    let program = cargo::build(&[]);
    let mut target = Target::start(&program, &["2", "0"]);
    let probes = probes();
    let probes: Vec<&str> = probes.iter().map(String::as_str).collect();
    let agent = Agent::start(target.pid, &probes);
    target.go();
    target.log();
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    let store = report
        .spans
        .iter()
        .find(|span| span.operation.contains("store"));
    assert_eq!(store.unwrap().status, "succeeded");
}
