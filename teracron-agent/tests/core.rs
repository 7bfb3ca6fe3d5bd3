//! The core of the end-to-end tests: what is also run on other kernels (`cargo xtask test-kernels`),
//! where programs are emulated and slow.

mod support;

use support::*;

#[test]
fn nested_calls() {
    let program = compile("calls.c", &["-O2", "-static"]);
    let probes = [
        "--probe",
        "test:top",
        "--probe",
        "test:middle",
        "--probe",
        "test:leaf*",
        "--probe",
        "test:switching",
        "--probe",
        "test:with_array",
        "--probe",
        "test:many",
        "--probe",
        "test:variadic",
        "--probe",
        "test:mostly_good",
        "--probe",
        "test:factorial",
    ];
    for mode in ["ret", "auto"] {
        let mut args = vec!["--return-probe", mode];
        args.extend_from_slice(&probes);
        trace_and_compare(mode, &program, &["4", "10"], &args);
    }
}

#[test]
fn exceptions() {
    let program = compile("throws.cpp", &["-O2", "-static"]);
    trace_and_compare("exceptions", &program, &[], THROWS);
}

#[test]
fn longjmp_and_ends_of_threads() {
    let program = compile("leaves.c", &["-O2", "-static"]);
    trace_and_compare(
        "longjmp",
        &program,
        &["longjmp"],
        &["--probe", "test:jump_*", "--probe", "test:leaf"],
    );
    trace_and_compare(
        "fibers",
        &program,
        &["fibers"],
        &[
            "--probe",
            "test:resume_all",
            "--probe",
            "test:fiber_work",
            "--probe",
            "test:leaf",
        ],
    );
}

#[test]
fn forked_children() {
    let program = compile("leaves.c", &["-O2", "-static"]);
    trace_and_compare(
        "forks",
        &program,
        &["forks"],
        &["--probe", "test:child_work", "--probe", "test:leaf"],
    );
}

#[test]
fn one_process_only() {
    let program = compile("leaves.c", &["-O2", "-static"]);
    let mut target = Target::start(&program, &["forks"]);
    let agent = Agent::start(target.pid, &["--no-follow", "--probe", "test:child_work"]);
    target.go();
    target.log();
    target.finish();
    assert_eq!(agent.finish().spans.len(), 2);
}

#[test]
fn loss_counts() {
    check_losses(&["-O2", "-static"], 100_000);
}
