//! Calls in C and C++, compiled in many ways: every call that the target wrote down is a span, with
//! the right parent and the right end.

use crate::support::*;

const CALLS: &[&str] = &[
    "leaf",
    "leaf_with_branches",
    "middle",
    "switching",
    "factorial",
    "with_array",
    "many",
    "variadic",
    "mostly_good",
    "top",
];

fn probes(names: &[&str]) -> Vec<String> {
    names
        .iter()
        .flat_map(|name| ["--probe".to_owned(), format!("test:{name}")])
        .collect()
}

fn check(flags: &[&str], args: &[&str], agent: &[&str]) {
    let program = compile("calls.c", flags);
    let probes = probes(CALLS);
    let mut all: Vec<&str> = probes.iter().map(String::as_str).collect();
    all.extend_from_slice(agent);
    trace_and_compare(&format!("{flags:?} {agent:?}"), &program, args, &all);
}

#[test]
fn c_at_every_optimisation() {
    for level in ["-O0", "-O1", "-O2", "-O3", "-Os"] {
        for return_probe in ["auto", "ret"] {
            check(&[level], &[], &["--return-probe", return_probe]);
        }
    }
}

#[test]
fn c_with_other_code_generation() {
    for flags in [
        &["-O2", "-fno-omit-frame-pointer"][..],
        &["-O2", "-fomit-frame-pointer", "-fcf-protection=none"],
        &["-O0", "-fcf-protection=none"],
        &["-O2", "-fcf-protection=full"],
        &["-O2", "-no-pie", "-fno-pie"],
        &["-O0", "-no-pie", "-fno-pie"],
        &["-O2", "-static"],
        &["-O2", "-flto"],
        &["-O2", "-fstack-protector-all"],
        &["-O2", "-freorder-blocks-and-partition", "-fno-inline"],
        &["-O3", "-march=native"],
        &["-O2", "-fno-jump-tables"],
    ] {
        check(flags, &[], &["--return-probe", "ret"]);
        check(flags, &[], &[]);
    }
}

#[test]
fn sixty_four_threads() {
    check(&["-O2"], &["64", "20"], &[]);
    check(&["-O2"], &["64", "20"], &["--return-probe", "ret"]);
}

#[test]
fn exceptions_caught_at_every_depth() {
    for flags in [
        &["-O0"][..],
        &["-O1"],
        &["-O2"],
        &["-O3"],
        &["-O2", "-fno-omit-frame-pointer"],
        &["-O2", "-fcf-protection=none"],
        &["-O2", "-no-pie", "-fno-pie"],
        &["-O2", "-static-libgcc", "-static-libstdc++"],
        &["-O2", "-static"],
        &["-O2", "-flto"],
        &["clang", "-O2"],
    ] {
        let program = compile("throws.cpp", flags);
        trace_and_compare(&format!("{flags:?}"), &program, &[], THROWS);
    }
}

/// libc++ and LLVM's unwinder.
#[test]
fn exceptions_of_another_runtime() {
    for flags in [
        &["clang", "-O0", "-stdlib=libc++"][..],
        &["clang", "-O2", "-stdlib=libc++"],
    ] {
        let program = compile("throws.cpp", flags);
        trace_and_compare(&format!("{flags:?}"), &program, &[], THROWS);
    }
    let program = compile("throws.cpp", &["clang", "-O2", "-stdlib=libc++"]);
    let mut target = Target::start(&program, &[]);
    let probes = ["--probe", "a:shop::keeps", "--probe", "a:shop::nests"];
    let agent = Agent::start(target.pid, &probes);
    target.go();
    target.log();
    assert!(target.finish().success());
    let report = agent.finish();
    report.assert_nothing_lost();
    let mut seen: Vec<String> = report
        .spans
        .iter()
        .map(|span| {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let (kind, message) = (text(&span.error_type), text(&span.error_message));
            format!("{} {kind}|{message}", span.operation)
        })
        .collect();
    seen.sort();
    // Five rounds.
    let wanted = [
        "shop::keeps shop::Declined|card declined",
        "shop::keeps std::out_of_range|index 7",
        "shop::nests shop::Declined|card declined",
    ];
    assert_eq!(seen, wanted.map(|line| vec![line; 5]).concat());
}

#[test]
fn exceptions_in_many_threads() {
    let program = compile("throws.cpp", &["-O2"]);
    trace_and_compare("threads", &program, &["16"], THROWS);
}
