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
    // Statically linked, so `auto` is `ret`; this program does nothing that return probes could harm.
    for mode in [
        &["--return-probe", "ret"][..],
        &["--return-probe", "auto"],
        UNSAFE,
    ] {
        let args = [mode, &probes].concat();
        trace_and_compare(&format!("{mode:?}"), &program, &["4", "10"], &args);
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

/// The wall clock is set for real: `cargo xtask test-kernels` runs this in a machine of its own.
#[test]
#[ignore = "sets the machine's clock"]
fn started_at_follows_steps_of_the_wall_clock() {
    let program = compile("leaves.c", &["-O2", "-static"]);
    let agent = Agent::start_with(&[
        "--output",
        "json",
        "--exe",
        program.to_str().unwrap(),
        "--probe",
        "test:fast",
    ]);
    let now = || {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
    };
    let mut runs = Vec::new();
    for step in [3600, -7200, 1, 86_400, -5] {
        let set = libc::timespec {
            tv_sec: now().as_secs() as i64 + step,
            tv_nsec: 0,
        };
        // SAFETY: a valid pointer to a local.
        let done = unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const set) };
        assert_eq!(done, 0);
        let before = now().as_millis() as u64;
        let mut target = Target::start(&program, &["burst", "50"]);
        let pid = target.pid;
        target.go();
        target.log();
        target.finish();
        runs.push((pid, before, now().as_millis() as u64));
    }
    agent.interrupt();
    let report = agent.finish();
    report.assert_nothing_lost();
    assert_eq!(report.spans.len(), 250);
    for span in &report.spans {
        let (_, before, after) = runs.iter().find(|(pid, ..)| *pid == span.pid).unwrap();
        assert!(
            (*before..=*after).contains(&span.started_at),
            "{span:?} not in {before}..{after}"
        );
    }
}
