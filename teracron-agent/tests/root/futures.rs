//! Async functions of Rust on tokio's runtime: every call that the target wrote down is one span, from its
//! first poll to its end, whatever threads polled it, with the call that awaited it as its parent.

use crate::support::futures::{build, check};
use crate::support::*;

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
        let program = build(arguments);
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

/// How the calls of these functions ended in a process that ends while some wait.
fn ends(program: &std::path::Path) -> Vec<(String, String, Option<u64>)> {
    let mut target = Target::start(program, &["2", "0"]);
    let probes = ["store", "never", "idle"].map(|name| format!("a:async_target::{name}"));
    let arguments: Vec<&str> = probes.iter().flat_map(|probe| ["--probe", probe]).collect();
    let agent = Agent::start(target.pid, &arguments);
    target.go();
    target.log();
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    let mut ends: Vec<_> = report
        .spans
        .iter()
        .map(|span| {
            let name = span.operation.rsplit("::").next().unwrap();
            let ended = span.metadata["ended"].as_str().map(str::to_owned);
            let end = span
                .error_type
                .clone()
                .or(ended)
                .unwrap_or(span.status.clone());
            (name.to_owned(), end, span.metadata["async.polls"].as_u64())
        })
        .collect();
    ends.sort();
    ends
}

#[test]
fn what_waits_when_the_process_ends() {
    let program = build(&[]);
    let end = |name: &str, end: &str, polls| (name.to_owned(), end.to_owned(), Some(polls));
    let never = end("never", "process exit", 4);
    let store = end("store", "succeeded", 4);
    assert_eq!(
        ends(&program),
        [end("idle", "cancelled", 2), never.clone(), store.clone()]
    );
    // Without the function that drops it nobody can tell when that was.
    let undropped = program.with_file_name("undropped");
    let status = std::process::Command::new("objcopy")
        .args(["--wildcard", "--strip-symbol=*drop_in_place*4idle*"])
        .args(["--strip-symbol=*drop_in_place*..idle..*"])
        .arg(&program)
        .arg(&undropped)
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(ends(&undropped), [end("idle", "unwound", 2), never, store]);
}

#[test]
fn what_waits_when_its_probe_is_taken_away() {
    let program = build(&[]);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("agent.toml");
    let write = |names: &[&str]| {
        let probes: String = names
            .iter()
            .map(|name| {
                format!("[[probe]]\nworkflow = \"a\"\nfunction = \"async_target::{name}\"\n")
            })
            .collect();
        std::fs::write(&config, probes).unwrap();
    };
    write(&["store", "never"]);
    let mut target = Target::start(&program, &["2", "0"]);
    let mut agent = Agent::start(target.pid, &["--config", config.to_str().unwrap()]);
    target.go();
    target.log();
    write(&["store"]);
    agent.hang_up();
    agent.hear("tracing 2 functions now");
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    let never: Vec<&Span> = report
        .spans
        .iter()
        .filter(|span| span.operation == "async_target::never")
        .collect();
    // Whether it would have ended by itself is not known any more.
    assert_eq!(never.len(), 1, "{}", report.said);
    assert_eq!(never[0].status, "started");
    assert_eq!(never[0].metadata["async.polls"], 4);
}
