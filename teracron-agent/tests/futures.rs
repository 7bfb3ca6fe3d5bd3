//! Async functions of Rust on tokio's runtime: every call that the target wrote down is one span, from its
//! first poll to its end, whatever threads polled it, with the call that awaited it as its parent.

#[path = "support/futures.rs"]
mod futures;
mod support;

use futures::{build, check, probes};
use support::*;

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

#[test]
fn what_waits_when_the_process_ends() {
    let program = build(&[]);
    let mut target = Target::start(&program, &["2", "0"]);
    let probes = probes();
    let probes: Vec<&str> = probes.iter().map(String::as_str).collect();
    let agent = Agent::start(target.pid, &probes);
    target.go();
    target.log();
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    let of = |name| {
        let mut spans = report.spans.iter();
        let found = spans.find(|span| span.operation.ends_with(name)).unwrap();
        (
            found.status.as_str(),
            found.error_type.as_deref(),
            found.metadata["async.polls"].as_u64(),
        )
    };
    assert_eq!(of("store"), ("succeeded", None, Some(4)));
    assert_eq!(of("never"), ("failed", Some("process exited"), Some(4)));
}
