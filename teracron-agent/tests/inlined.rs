//! Functions that the compiler put into their callers: they are told, and counted where asked for; counts
//! are what the target itself counted.

mod support;

use std::{collections::BTreeMap, fs, path::Path};

use support::*;

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
fn check(what: &str, program: &Path, functions: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("agent.toml");
    let probes: String = functions
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
    for function in functions.iter().map(|function| generic(function)) {
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
    report.said
}

#[test]
fn calls_are_counted_where_cpp_inlined_them() {
    for flags in [
        &["-g", "-O1"][..],
        &["-g", "-O2"],
        &["-g", "-O3"],
        &["-gdwarf-4", "-O2"],
        &["-g", "-O2", "-flto"],
        &["clang", "-g", "-O2"],
        &["clang", "-gdwarf-4", "-O3"],
    ] {
        let program = compile("inlines.cpp", flags);
        check(&format!("{flags:?}"), &program, CPP);
    }
}

#[test]
fn a_function_without_code_of_its_own_is_named() {
    let program = compile("inlines.cpp", &["-g", "-O2"]);
    let output = agent_command(&[
        "--exe",
        program.to_str().unwrap(),
        "--probe",
        "t:shop::Cart::total",
    ])
    .output()
    .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(
        said.contains("the compiler put all of its calls into the callers (2 places in inlines-"),
        "{said}"
    );
}

#[test]
fn async_functions_without_a_poll_of_their_own_are_refused_with_the_reason() {
    let program = compile("awaited.rs", &["-O", "-g"]);
    for (probe, reason) in [
        (
            "t:awaited::leaf",
            "the compiler put the polls of this async function into what awaits it (1 place in",
        ),
        // What is called is there, but it is not the call.
        (
            "t:awaited::request",
            "it is an async function, whose polls the compiler put into what awaits it",
        ),
    ] {
        let path = program.to_str().unwrap();
        let output = agent_command(&["--exe", path, "--probe", probe, "--duration", "5"])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(4), "{said}");
        assert!(said.contains(reason), "{said}");
    }
}
