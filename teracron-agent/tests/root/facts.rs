//! What is kept of a process by address is that process's: every one of a run has its own `errno`, its own constants.

use std::time::Duration;

use crate::support::*;

const CALLS: usize = 20;

/// Messages of a process's failed calls, of each operation so many.
fn messages(report: &Report, pid: u32, operation: &str) -> Vec<Option<String>> {
    report
        .spans
        .iter()
        .filter(|span| span.pid == pid && span.operation == operation)
        .map(|span| span.error_message.clone())
        .collect()
}

fn call(target: &mut Target) {
    target.say(&CALLS.to_string());
    target.expect("done");
}

fn assert_no_space(report: &Report, target: &Target, what: &str) {
    let found = messages(report, target.pid, "pay");
    let right = Some("ENOSPC: No space left on device".to_owned());
    assert_eq!(found, vec![right; CALLS], "{what}");
}

#[test]
fn errno_of_each_process_is_its_own() {
    let plain = compile("facts.c", &["-g", "-O2"]);
    let own = compile("facts.c", &["-g", "-O2", "-DOWN"]);
    let fixed = compile("facts.c", &["-g", "-O2", "-static", "-DOWN"]);
    // Whoever comes first must not stand for the others.
    for order in [[&plain, &own, &fixed], [&fixed, &own, &plain]] {
        let mut targets = order.map(|program| Target::start(program, &[]));
        let pids = targets.each_ref().map(|target| target.pid.to_string());
        let [a, b, c] = pids.each_ref().map(String::as_str);
        let agent = Agent::start_with(&[
            "--output",
            "json",
            "--pid",
            a,
            "--pid",
            b,
            "--pid",
            c,
            "--probe",
            "t:pay fails ret < 0",
        ]);
        targets.iter_mut().for_each(call);
        agent.interrupt();
        let report = agent.finish();
        report.assert_nothing_lost();
        for (target, program) in targets.iter().zip(order) {
            assert_no_space(&report, target, &program.display().to_string());
        }
    }
}

#[test]
fn errno_of_a_process_that_comes_later() {
    let program = compile("facts.c", &["-g", "-O2", "-DOWN"]);
    let path = program.to_str().unwrap();
    let mut first = Target::start(&program, &[]);
    let agent = Agent::start_with(&[
        "--output",
        "json",
        "--exe",
        path,
        "--probe",
        "t:pay fails ret < 0",
    ]);
    call(&mut first);
    let mut later = Target::start(&program, &[]);
    // What it has mapped is looked at when that has settled (100 ms), which nobody tells: calls before that say that
    // their errno is not known.
    for _ in 0..20 {
        call(&mut later);
        std::thread::sleep(Duration::from_millis(50));
    }
    call(&mut later);
    agent.interrupt();
    let report = agent.finish();
    assert_no_space(&report, &first, "from before");
    let of_later = messages(&report, later.pid, "pay");
    let right = Some("ENOSPC: No space left on device".to_owned());
    // Right, or missing.
    assert!(of_later.iter().all(|text| text.is_none() || *text == right));
    assert_eq!(of_later.last(), Some(&right));
}

fn assert_panics(report: &Report, target: &Target, what: &str) {
    let constant = messages(report, target.pid, "facts::pay_constant");
    assert_eq!(
        constant,
        vec![Some("card declined".to_owned()); CALLS],
        "{what}"
    );
    let plain = messages(report, target.pid, "pay_plain");
    assert_eq!(
        plain,
        vec![Some("plain declined".to_owned()); CALLS],
        "{what}"
    );
    let string = messages(report, target.pid, "facts::pay_string");
    let expected: Vec<Option<String>> = (1..=CALLS)
        .map(|n| Some(format!("card {n} declined")))
        .collect();
    assert_eq!(string, expected, "{what}");
}

#[test]
fn panics_of_every_process_have_their_text() {
    let program = compile(
        "facts.rs",
        &[
            "-O",
            "-C",
            "symbol-mangling-version=v0",
            "--crate-name",
            "facts",
        ],
    );
    // The same file at other addresses.
    let mut targets = [(); 3].map(|()| Target::start(&program, &[]));
    let pids = targets.each_ref().map(|target| target.pid.to_string());
    let mut arguments = vec![
        "--output",
        "json",
        "--probe",
        "t:facts::pay_*",
        "--probe",
        "t:pay_plain",
    ];
    for pid in &pids {
        arguments.extend(["--pid", pid]);
    }
    let agent = Agent::start_with(&arguments);
    targets.iter_mut().for_each(call);
    agent.interrupt();
    let report = agent.finish();
    report.assert_nothing_lost();
    for target in &targets {
        assert_panics(&report, target, &format!("{pids:?}"));
    }
}

#[test]
fn a_plain_name_is_no_reason_to_lose_a_panics_text() {
    let program = compile("facts.rs", &["-O", "--crate-name", "facts"]);
    let mut target = Target::start(&program, &[]);
    let agent = Agent::start(target.pid, &["--probe", "t:pay_plain"]);
    call(&mut target);
    agent.interrupt();
    let report = agent.finish();
    let plain = messages(&report, target.pid, "pay_plain");
    assert_eq!(plain, vec![Some("plain declined".to_owned()); CALLS]);
}
