//! Goroutines that belong to the span that started them.

use std::collections::BTreeMap;

use crate::support::*;

/// Compares whom each call belongs to with what the target wrote down; `rounds`: of each of its four workers.
pub fn check(version: &str, rounds: &str) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("agent.toml");
    let probe = |function: &str, more: &str| {
        format!(
            "[[probe]]\nworkflow = \"test\"\nfunction = \"main.{function}\"\ncapture = [\"n\"]\n{more}\n"
        )
    };
    let probes = [
        probe("request", "go_spawn = \"child\""),
        probe("inner", ""),
        probe("spawned", ""),
        probe("alone", ""),
    ];
    std::fs::write(&config, probes.concat()).unwrap();
    let program = golang::build(version, &[]);
    let mut target = Target::start(&program, &["spawn", rounds]);
    let agent = Agent::start(target.pid, &["--config", config.to_str().unwrap()]);
    target.go();
    let mut logged = target.log();
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    let by_id: BTreeMap<&str, &Span> = report
        .spans
        .iter()
        .map(|span| (span.id.as_str(), span))
        .collect();
    let mut seen: Vec<String> = report
        .spans
        .iter()
        .map(|span| {
            let parent = span.parent.as_deref().map(|parent| by_id[parent]);
            if let Some(parent) = parent {
                assert_eq!(parent.trace, span.trace, "Go {version}");
                assert_eq!(parent.captured["n"], span.captured["n"], "Go {version}");
            }
            format!(
                "{} {} {}",
                span.operation,
                span.captured["n"],
                parent.map_or("-", |parent| parent.operation.as_str())
            )
        })
        .collect();
    seen.sort();
    logged.sort();
    assert_eq!(seen.len(), logged.len(), "Go {version}");
    for (seen, logged) in seen.iter().zip(&logged) {
        assert_eq!(seen, logged, "Go {version} (left: traced, right: logged)");
    }
}
