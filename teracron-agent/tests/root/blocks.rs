//! Blocks of source lines count as functions do.

use crate::support::*;

/// The lines of `blocks.c` with these words.
fn line(words: &str) -> usize {
    let source = include_str!("../targets/blocks.c");
    1 + source
        .lines()
        .position(|line| line.contains(words))
        .unwrap_or_else(|| panic!("no line has {words}"))
}

#[test]
fn blocks_of_lines() {
    let block = |name: &str, mark: &str| {
        let (first, last) = (
            line(&format!("{mark}: first")),
            line(&format!("{mark}: last")),
        );
        format!("t:{name}@blocks.c:{first}-{last}")
    };
    let probes = [
        block("validation", "validation"),
        block("early exit", "early"),
        block("loop", "loop"),
        block("recursion", "recursion"),
    ];
    let arguments: Vec<&str> = probes.iter().flat_map(|probe| ["--probe", probe]).collect();
    for flags in [
        &["-g", "-O0"][..],
        &["-g", "-Og"],
        &["-g", "-O1"],
        &["-g", "-O0", "-fomit-frame-pointer"],
    ] {
        let program = compile("blocks.c", flags);
        trace_and_compare(&format!("{flags:?}"), &program, &[], &arguments);
    }
}

#[test]
fn blocks_within_functions_and_around_calls() {
    let program = compile("blocks.c", &["-g", "-O0"]);
    let first = line("validation: first");
    let mut target = Target::start(&program, &[]);
    let spec = format!("t:rest@blocks.c:{first}..");
    let agent = Agent::start(
        target.pid,
        &[
            "--probe",
            &spec,
            "--probe",
            "t:validate",
            "--probe",
            "t:step",
        ],
    );
    target.go();
    target.log();
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    let of = |name: &str| {
        report
            .spans
            .iter()
            .filter(|span| span.operation == name)
            .count()
    };
    assert_eq!((of("rest"), of("validate")), (60, 60));
    let by_id = |id: &str| report.spans.iter().find(|span| span.id == id).unwrap();
    for span in &report.spans {
        assert_eq!(span.status, "succeeded", "{span:?}");
        match (span.operation.as_str(), &span.parent) {
            ("rest", Some(parent)) => assert_eq!(by_id(parent).operation, "validate"),
            ("rest", None) => panic!("a block outside its function"),
            _ => {}
        }
    }
    let in_block = report
        .spans
        .iter()
        .filter(|span| span.operation == "step")
        .filter(|span| {
            span.parent
                .as_deref()
                .is_some_and(|id| by_id(id).operation == "rest")
        })
        .count();
    // The first statement, the loop, and the call behind it.
    let expected: usize = (0..60).map(|x| 2 + x % 4).sum();
    assert_eq!(in_block, expected);
}

#[test]
fn lines_without_code_are_refused() {
    let program = compile("blocks.c", &["-g", "-O0"]);
    let target = Target::start(&program, &[]);
    let output = agent_command(&[
        "--pid",
        &target.pid.to_string(),
        "--probe",
        "t:x@blocks.c:1-2",
    ])
    .output()
    .unwrap();
    assert_eq!(output.status.code(), Some(4));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no code comes from blocks.c:1-2"), "{said}");
}
