//! Calls that are counted where functions were inlined.

use std::{collections::BTreeMap, fs, path::Path};

use crate::support::*;

const CPP: &[&str] = &[
    "shop::price",
    "shop::rounded<*>",
    "shop::Cart::total",
    "shop::tax",
];

/// All instances of a template count together.
fn generic(name: &str) -> &str {
    name.split('<').next().unwrap()
}

/// Counts calls in a run of a program that prints its own counts.
pub fn check(what: &str, program: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("agent.toml");
    let probes: String = CPP
        .iter()
        .map(|function| {
            format!("[[probe]]\nworkflow = \"t\"\nfunction = \"{function}\"\ninlined = \"count\"\n")
        })
        .collect();
    fs::write(&config, probes).unwrap();
    let mut target = Target::start(program, &[]);
    let agent = Agent::start(target.pid, &["--config", config.to_str().unwrap()]);
    target.go();
    let counted: BTreeMap<String, u64> = target
        .log()
        .iter()
        .map(|line| {
            let (name, count) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), count.parse().unwrap())
        })
        .collect();
    assert!(target.finish().success(), "{what}");
    let report = agent.finish();
    report.assert_nothing_lost();
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for span in &report.spans {
        *seen.entry(generic(&span.operation)).or_default() += 1;
    }
    for calls in &report.inlined {
        let name = generic(calls["operation"].as_str().unwrap());
        *seen.entry(name).or_default() += calls["calls"].as_u64().unwrap();
    }
    for function in CPP.iter().map(|function| generic(function)) {
        // What can't be counted right is said, and left out.
        let passed_over = report
            .said
            .split("; ")
            .collect::<Vec<_>>()
            .windows(2)
            .any(|told| told[0].contains(function) && told[1].contains("more can't be counted"));
        let (seen, wanted) = (seen.get(function).copied().unwrap_or(0), counted[function]);
        assert!(wanted > 0, "{what}: {function}");
        if passed_over {
            assert!(seen < wanted, "{what}: {function}: {seen}, not {wanted}");
        } else {
            assert_eq!(seen, wanted, "{what}: {function}: {}", report.said);
        }
    }
}
