//! Calls that are open on several stacks at once, and end in another order than they began in.

use std::process::Command;

use crate::support::*;

/// A number that was read of a call.
fn captured(span: &Span, key: &str) -> i64 {
    span.captured[key].as_i64().unwrap()
}

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
            assert_eq!(
                captured(span, "ret"),
                -captured(span, "number") - 1,
                "{span:?}"
            );
            captured(span, "number")
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

/// What `switches` does in a mode: the spans, and what the agent said at the end.
fn switches(mode: &str, names: &[&str]) -> Report {
    let program = compile(
        "switches.c",
        &["-O2", "-g", "-pthread", "-U_FORTIFY_SOURCE"],
    );
    let mut target = Target::start(&program, &[mode]);
    let probes: Vec<&str> = names.iter().flat_map(|name| ["--probe", name]).collect();
    let agent = Agent::start(target.pid, &probes);
    target.go();
    target.log();
    target.finish();
    agent.finish()
}

/// Number of spans by operation and their parent's.
fn families(report: &Report) -> std::collections::BTreeMap<(String, String), usize> {
    let mut families = std::collections::BTreeMap::new();
    for span in &report.spans {
        let parent = span.parent.as_ref().map(|id| {
            let parent = report.spans.iter().find(|other| other.id == *id);
            parent.map_or_else(|| "?".to_owned(), |parent| parent.operation.clone())
        });
        let family = (span.operation.clone(), parent.unwrap_or_default());
        *families.entry(family).or_default() += 1;
    }
    families
}

fn family(operation: &str, parent: &str, number: usize) -> ((String, String), usize) {
    ((operation.to_owned(), parent.to_owned()), number)
}

#[test]
fn a_fiber_that_is_thrown_away_gives_nobody_a_wrong_parent() {
    let report = switches("holes", &["t:outer", "t:parent", "t:child"]);
    assert!(report.spans.iter().all(|span| span.status == "succeeded"));
    // The fiber that was thrown away is told as lost.
    assert_eq!(report.losses.last().unwrap()["end_unknown"], 3);
    let expected = [
        family("child", "parent", 3),
        family("outer", "", 24),
        family("parent", "", 3),
    ];
    assert_eq!(families(&report), expected.into());
}

#[test]
fn coroutines_that_jump_from_stack_to_stack() {
    let report = switches("jumps", &["t:work", "t:leaf"]);
    report.assert_nothing_lost();
    assert!(report.spans.iter().all(|span| span.status == "succeeded"));
    let expected = [family("leaf", "work", 80), family("work", "", 40)];
    assert_eq!(families(&report), expected.into());
}

#[test]
fn fibers_that_go_on_in_another_thread() {
    let report = switches("moves", &["t:moving(x, ret)"]);
    let lost = report.losses.last().unwrap();
    for span in &report.spans {
        assert_eq!(span.status, "succeeded", "{span:?}");
        assert_eq!(captured(span, "ret"), 1_000_000 + captured(span, "x"));
    }
    // Whatever is not told is counted.
    let told = report.spans.len() as u64;
    assert!(told >= 30, "{told}");
    assert_eq!(told + lost["end_unknown"].as_u64().unwrap(), 120);
}

#[test]
fn handlers_beside_fibers_have_no_wrong_parent() {
    let report = switches("signals", &["t:handler", "t:raising", "t:waiting"]);
    report.assert_nothing_lost();
    let expected = [
        family("handler", "", 10),
        family("raising", "", 5),
        family("waiting", "", 5),
    ];
    assert_eq!(families(&report), expected.into());
}

/// Greenlets whose calls can't be told apart: never a mixture of two.
#[test]
fn greenlets_that_look_the_same() {
    let library = compile("same.c", &["-O2", "-g", "-shared", "-fPIC"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/targets/same.py");
    let mut command = Command::new(std::fs::canonicalize("/usr/bin/python3").unwrap());
    command.args([script, library.to_str().unwrap(), "3", "200"]);
    let mut target = Target::start_command(command);
    let name = library.file_name().unwrap().to_str().unwrap();
    let probe = format!("t:triple@{name}(x, ret)");
    let agent = Agent::start(target.pid, &["--probe", &probe]);
    target.go();
    let calls: u64 = target.log()[0].parse().unwrap();
    target.finish();
    let report = agent.finish();
    let mut told = 0;
    for span in &report.spans {
        if span.status == "succeeded" && span.metadata["ended"].is_null() {
            assert_eq!(captured(span, "ret"), 3 * captured(span, "x") + 1);
        }
        told += 1;
    }
    let lost = &report.losses.last().unwrap()["end_unknown"];
    assert_eq!(told + lost.as_u64().unwrap(), calls);
}
