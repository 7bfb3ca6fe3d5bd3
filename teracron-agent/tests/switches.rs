//! Calls that are open on several stacks at once, and end in another order than they began in.

mod support;

use std::process::Command;

use support::*;

/// Every call of `fibers` fibers is a span with what it got and gave back, and has failed by the rule.
fn fibers(fibers: &str, calls: &str) {
    let program = compile("fibers.c", &["-O2", "-g"]);
    let mut target = Target::start(&program, &[fibers, calls]);
    let probe = ["--probe", "t:work(number, ret) fails ret < 0"];
    let agent = Agent::start(target.pid, &probe);
    target.go();
    let mut log: Vec<i64> = target
        .log()
        .iter()
        .map(|line| line.parse().unwrap())
        .collect();
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    let mut told: Vec<i64> = report
        .spans
        .iter()
        .map(|span| {
            assert_eq!(span.status, "failed", "{span:?}");
            let value = |key: &str| span.captured[key].as_i64().unwrap();
            assert_eq!(value("ret"), -value("number") - 1, "{span:?}");
            value("number")
        })
        .collect();
    told.sort_unstable();
    log.sort_unstable();
    assert_eq!(told, log);
    let all: usize = fibers.parse::<usize>().unwrap() * calls.parse::<usize>().unwrap();
    assert_eq!(told.len(), all);
}

#[test]
fn two_fibers() {
    fibers("2", "3000");
}

#[test]
fn many_fibers() {
    fibers("48", "120");
}

#[test]
fn greenlets() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/targets/greenlets.py");
    let mut command = Command::new(std::fs::canonicalize("/usr/bin/python3").unwrap());
    command.args([script, "7", "300"]);
    let mut target = Target::start_command(command);
    let agent = Agent::start(target.pid, &["--probe", "t:PyObject_Str"]);
    target.go();
    let mut calls: Vec<[u64; 4]> = target
        .log()
        .iter()
        .map(|line| {
            let mut words = line.split(' ').map(|word| word.parse().unwrap());
            std::array::from_fn(|_| words.next().unwrap())
        })
        .collect();
    target.finish();
    let report = agent.finish();
    assert!(report.said.contains("greenlets"), "{}", report.said);
    report.assert_nothing_lost();
    // None begins between the first two times of another: they are told in the same order.
    calls.sort_unstable();
    let mut spans = report.spans.clone();
    spans.sort_by_key(|span| span.started_at_ns);
    assert_eq!(spans.len(), calls.len());
    for ([begin, inside, inner, end], span) in calls.iter().zip(&spans) {
        assert_eq!((span.status.as_str(), &span.parent), ("succeeded", &None));
        let duration = span.duration_ns;
        assert!(
            inner - inside <= duration && duration <= end - begin,
            "{span:?}"
        );
    }
}
