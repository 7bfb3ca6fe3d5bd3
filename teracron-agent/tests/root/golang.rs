//! Go: every call that the target wrote down, goroutine by goroutine, is a span with the right parent
//! and the right end, while goroutines move between threads, their stacks are copied and the garbage
//! collector runs all the time.

use std::collections::BTreeMap;

use crate::support::golang::GO_VERSIONS;
use crate::support::*;

const FUNCTIONS: &[&str] = &[
    "(*Server).handle",
    "leaf",
    "deep",
    "thrower",
    "between",
    "catcher",
    "afterwards",
    "nested",
    "outer",
    "leaves",
    "exits",
    "Process",
    "adder.func1",
];

/// All call trees, whatever thread or goroutine they ran on.
fn forest(trees: BTreeMap<u32, Vec<String>>) -> Vec<String> {
    let mut all: Vec<String> = trees.into_values().flatten().collect();
    all.sort();
    all
}

fn check(version: &str, flags: &[&str], args: &[&str]) {
    let what = format!("Go {version} {flags:?}");
    let program = golang::build(version, flags);
    let probes: Vec<String> = FUNCTIONS
        .iter()
        .flat_map(|name| ["--probe".to_owned(), format!("test:main.{name}")])
        .collect();
    let probes: Vec<&str> = probes.iter().map(String::as_str).collect();
    let mut target = Target::start(&program, args);
    let agent = Agent::start(target.pid, &probes);
    target.go();
    let log = target.log();
    let status = target.finish();
    assert!(status.success(), "{what}: the target: {status}");
    let report = agent.finish();
    let stripped = flags.iter().any(|flag| flag.contains("-s"));
    let mut logged = forest(log_trees(&log));
    let traced = forest(report.trees());
    assert!(!logged.is_empty());
    if flags.iter().any(|flag| flag.contains("-N")) {
        // Code that is not optimised moves everything through the stack: that a method gives back its field is not
        // seen then, and what is not seen is not told.
        for tree in &mut logged {
            for text in ["|a text", "|plain", "|by value"] {
                *tree = tree.replace(text, "");
            }
        }
        logged.sort();
    }
    // What nobody asked for.
    assert!(!format!("{:?}", report.spans).contains("canary"), "{what}");
    if stripped {
        // Without debug information nothing says which results are errors, nor where their text is.
        let count = |trees: &[String], what: &str| -> usize {
            trees.iter().map(|tree| tree.matches(what).count()).sum()
        };
        assert_eq!(traced.len(), logged.len(), "{what}: trees");
        for name in [
            "main.thrower failed string|boom",
            "main.deep succeeded",
            "main.exits failed",
        ] {
            assert_eq!(count(&traced, name), count(&logged, name), "{what}: {name}");
        }
    } else {
        for (a, b) in logged.iter().zip(&traced) {
            assert_eq!(b, a, "{what} (left: traced, right: logged)");
        }
        assert_eq!(traced.len(), logged.len(), "{what}: trees");
    }
    report.assert_nothing_lost();
}

#[test]
fn every_version() {
    for version in GO_VERSIONS {
        check(version, &[], &[]);
    }
}

#[test]
fn not_optimised_and_not_inlined() {
    for version in [GO_VERSIONS[0], GO_VERSIONS[3]] {
        check(version, &["-gcflags=all=-N -l"], &["2", "6"]);
    }
}

#[test]
fn position_independent() {
    check(GO_VERSIONS[0], &["-buildmode=pie"], &["2", "6"]);
}

#[test]
fn stripped() {
    for version in [GO_VERSIONS[0], GO_VERSIONS[3]] {
        check(version, &["-ldflags=-s -w"], &["2", "6"]);
    }
}

#[test]
fn many_goroutines() {
    check(GO_VERSIONS[0], &[], &["64", "20"]);
}

#[test]
fn arguments_and_results_by_name() {
    let program = golang::build(GO_VERSIONS[0], &[]);
    let mut target = Target::start(&program, &["1", "6"]);
    let agent = Agent::start(
        target.pid,
        &[
            "--probe",
            "test:main.(*Server).handle(s.name, o.ID, o.Name, o.Items, o.Next, n, ret)",
            "--probe",
            "test:main.leaf(n, ret) fails ret == 1",
        ],
    );
    target.go();
    target.log();
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    let mut seen = 0;
    for span in &report.spans {
        let captured = &span.captured;
        if span.operation == "main.(*Server).handle" {
            let n = captured["n"].as_i64().unwrap();
            assert_eq!(captured["s.name"], "s");
            assert_eq!(captured["o.ID"], 7);
            assert_eq!(captured["o.Name"], "ord");
            assert_eq!(captured["o.Items"], 3);
            assert_eq!(captured["o.Next"], "0x0");
            let expected = if n % 6 == 0 { n * 3 + 1 + 3 } else { 0 };
            assert_eq!(captured["ret"], expected, "{span:?}");
            seen += 1;
        } else {
            let n = captured["n"].as_i64().unwrap();
            assert_eq!(captured["ret"], n * 3 + 1);
            assert_eq!(span.status == "failed", n == 0, "{span:?}");
            if n == 0 {
                assert_eq!(span.error_type.as_deref(), Some("ret == 1"));
            }
        }
    }
    assert_eq!(seen, 6);
}

#[test]
fn goroutines_that_never_return_end_with_the_process() {
    let program = golang::build(GO_VERSIONS[0], &[]);
    let mut target = Target::start(&program, &["abandon"]);
    let agent = Agent::start(target.pid, &["--probe", "test:main.hang"]);
    target.go();
    target.log();
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    assert_eq!(report.spans.len(), 1, "{report:?}");
    // By `exit(0)`, as Go's main function does.
    assert_eq!(report.spans[0].status, "succeeded");
    assert_eq!(report.spans[0].metadata["ended"], "process exit");
}

#[test]
fn goroutines_belong_to_the_span_that_started_them_where_asked() {
    for version in GO_VERSIONS {
        spawned::check(version, "300");
    }
}
