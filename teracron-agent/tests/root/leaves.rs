//! Frames that end without returning, and code on other stacks.

use std::{collections::BTreeMap, os::unix::process::ExitStatusExt as _};

use crate::support::*;

fn program() -> std::path::PathBuf {
    compile("leaves.c", &["-O2"])
}

fn check(what: &str, scenario: &str, flags: &[&str], probes: &[&str]) -> Report {
    let program = compile("leaves.c", flags);
    let specs: Vec<String> = probes
        .iter()
        .flat_map(|name| ["--probe".to_owned(), format!("test:{name}")])
        .collect();
    let agent: Vec<&str> = specs.iter().map(String::as_str).collect();
    trace_and_compare(what, &program, &[scenario], &agent)
}

#[test]
fn longjmp_fails_the_frames_that_it_leaves() {
    for flags in [
        &["-O0"][..],
        &["-O2"],
        &["-O2", "-static"],
        &["-O2", "-D_FORTIFY_SOURCE=2"],
    ] {
        check("longjmp", "longjmp", flags, &["jump_*", "leaf"]);
    }
}

#[test]
fn threads_that_end_inside_calls() {
    for flags in [&["-O0"][..], &["-O2"], &["-O2", "-fexceptions"]] {
        check("threads", "threads", flags, &["exit_*", "wait_*", "leaf"]);
    }
}

#[test]
fn handlers_on_their_own_stack_close_nothing() {
    for flags in [&["-O0"][..], &["-O2"]] {
        check(
            "signals",
            "signals",
            flags,
            &["signalled*", "in_handler", "leaf", "abandoned"],
        );
    }
}

#[test]
fn fibers_close_nothing() {
    check(
        "fibers",
        "fibers",
        &["-O2"],
        &["resume_all", "fiber_work", "leaf"],
    );
    check(
        "fibers",
        "fibers",
        &["-O0"],
        &["resume_all", "fiber_work", "leaf"],
    );
    check(
        "fibers in a thread",
        "fibers-in-thread",
        &["-O2"],
        &["resume_all", "fiber_work", "leaf"],
    );
}

#[test]
fn tail_calls_end_with_the_function_that_they_call() {
    let program = program();
    trace_and_compare(
        "tails",
        &program,
        &["tails"],
        &["--return-probe", "ret", "--probe", "test:tail_*"],
    );
    // A return probe sees even a jump through a pointer as a call.
    let mut target = Target::start(&program, &["tails"]);
    let agent = Agent::start(target.pid, &[UNSAFE, &["--probe", "test:tail_*"]].concat());
    target.go();
    target.log();
    target.finish();
    let trees: Vec<String> = agent.finish().trees().into_values().flatten().collect();
    let nested = "(tail_indirect succeeded(tail_last succeeded))";
    assert_eq!(
        trees.iter().filter(|tree| tree.as_str() == nested).count(),
        100
    );
    assert_eq!(trees.len(), 300);
}

#[test]
fn children_are_traced_from_their_first_call() {
    let program = compile("leaves.c", &["-O2"]);
    let probes = ["--probe", "test:child_work", "--probe", "test:leaf"];
    let args = [&["--all-processes"], &probes[..]].concat();
    trace_and_compare("forks", &program, &["forks"], &args);
}

#[test]
fn children_are_left_alone_where_asked() {
    let program = program();
    let mut target = Target::start(&program, &["forks"]);
    let pid = target.pid;
    let agent = Agent::start(pid, &["--no-follow", "--probe", "test:child_work"]);
    target.go();
    let log = target.log();
    target.finish();
    let report = agent.finish();
    assert!(log.len() > 100);
    assert_eq!(report.spans.len(), 2);
    assert!(
        report
            .spans
            .iter()
            .all(|span| span.pid == pid && span.status == "succeeded")
    );
}

#[test]
fn calls_that_ran_before_make_no_half_span() {
    check("middle", "middle", &["-O1"], &["around", "leaf"]);
}

#[test]
fn deeper_than_the_table_is_counted() {
    let program = program();
    let mut target = Target::start(&program, &["deep"]);
    let agent = Agent::start(
        target.pid,
        &["--probe", "test:dive", "--probe", "test:leaf"],
    );
    target.go();
    target.log();
    target.finish();
    let report = agent.finish();
    let dives: Vec<&Span> = report
        .spans
        .iter()
        .filter(|span| span.operation == "dive")
        .collect();
    assert_eq!(dives.len(), 10 * 64);
    assert!(report.spans.iter().all(|span| span.status == "succeeded"));
    // Nesting stays right: ten roots, each a chain of 64, and the leaves beside them.
    let trees = report.trees();
    let trees = trees.values().next().unwrap();
    assert_eq!(trees.len(), 20);
    let chain = format!("{}{}", "(dive succeeded".repeat(64), ")".repeat(64));
    for pair in trees.chunks(2) {
        assert_eq!(pair, [chain.as_str(), "(leaf succeeded)"]);
    }
    let last = report.losses.last().unwrap();
    assert_eq!(last["frames_full"], 10 * (200 - 64));
    assert_eq!(last["entered"], 10 * 200 + 10);
    assert_eq!(last["lost"], 10 * (200 - 64));
}

#[test]
fn the_process_ends_inside_calls() {
    let program = program();
    for (kind, error, check) in [
        (1, "", None),
        (7, "process exited|exit code 3", None),
        (2, "SIGABRT", Some(6)),
        (3, "SIGSEGV", Some(11)),
        (4, "exec", None),
        (5, "SIGKILL", Some(9)),
        (6, "SIGTERM", Some(15)),
    ] {
        let mut target = Target::start(&program, &["end", &kind.to_string()]);
        let agent = Agent::start(target.pid, &["--probe", "test:end_*"]);
        target.go();
        if kind == 5 {
            wait_for_sleep(target.pid);
            target.child.kill().unwrap();
        }
        let status = target.finish();
        assert_eq!(status.signal(), check, "{kind}");
        // Somebody asked for SIGTERM; other signals are a failure.
        let failed = !matches!(check, None | Some(15));
        let report = agent.finish_with(i32::from(failed));
        assert_eq!(report.deaths.len(), usize::from(check.is_some()), "{kind}");
        let trees: Vec<String> = report.trees().into_values().flatten().collect();
        let end = match error {
            "" => "succeeded".to_owned(),
            _ => format!("failed {error}"),
        };
        assert_eq!(trees, [format!("(end_outer {end}(end_inner {end}))")]);
        for span in &report.spans {
            let ended = span.metadata["ended"].as_str();
            assert_eq!(ended, error.is_empty().then_some("process exit"));
        }
        report.assert_nothing_lost();
    }
}

/// Waits until the process sleeps in pause().
fn wait_for_sleep(pid: u32) {
    for _ in 0..10_000 {
        let system_call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap();
        if system_call.starts_with("34 ") {
            return;
        }
        std::thread::yield_now();
    }
    panic!("the target does not sleep");
}

#[test]
fn noexcept_dies_as_it_does_untraced() {
    let program = compile("noexcept.cpp", &["-O2"]);
    for kind in ["0", "1", "2"] {
        let mut alone = Target::start(&program, &[kind]);
        alone.go();
        alone.log();
        let untraced = alone.finish();
        let mut target = Target::start(&program, &[kind]);
        let agent = Agent::start(target.pid, &["--probe", "test:shop::*"]);
        target.go();
        target.log();
        let traced = target.finish();
        assert_eq!(traced, untraced, "{kind}");
        let report = agent.finish_with(i32::from(traced.signal().is_some()));
        let trees: Vec<String> = report.trees().into_values().flatten().collect();
        let before = "(shop::guarded succeeded(shop::throws succeeded))".to_owned();
        let expected = match kind {
            "1" => vec![
                before,
                "(shop::guarded failed SIGABRT(shop::throws failed SIGABRT))".to_owned(),
            ],
            "2" => vec![
                before,
                "(shop::open_call failed SIGABRT(shop::throws failed SIGABRT))".to_owned(),
            ],
            _ => vec![before],
        };
        assert_eq!(trees, expected, "{kind}");
    }
}

#[test]
fn what_is_open_at_the_end_is_shown_as_started() {
    let program = program();
    let mut target = Target::start(&program, &["end", "5"]);
    let agent = Agent::start(target.pid, &["--probe", "test:end_*"]);
    target.go();
    wait_for_sleep(target.pid);
    agent.interrupt();
    let report = agent.finish();
    assert!(target.is_running(), "the target must go on");
    let trees: BTreeMap<u32, Vec<String>> = report.trees();
    assert_eq!(
        trees[&target.pid],
        ["(end_outer started(end_inner started))"]
    );
    target.child.kill().unwrap();
    target.finish();
}

/// Beginnings of a caller and of its callees are not detached at once: from one instant on nothing counts, and what is
/// told to have returned has all its callees.
#[test]
fn a_stop_is_one_instant() {
    let mut target = Target::start(&compile("steady.c", &["-O2"]), &[]);
    target.go();
    target.expect("running");
    let mut open = 0;
    for _ in 0..12 {
        let agent = Agent::start(
            target.pid,
            &["outer", "kept", "added", "tail"]
                .map(|name| ["--probe".to_owned(), format!("t:{name}")])
                .concat()
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        );
        agent.interrupt();
        let report = agent.finish();
        report.assert_nothing_lost();
        for tree in report.trees().into_values().flatten() {
            if tree.contains("started") {
                open += 1;
            // What ran when the probes came has no span, its callees have.
            } else if tree.starts_with("(outer ") {
                assert_eq!(
                    tree.replace(" succeeded", ""),
                    "(outer(kept)(added)(tail(kept)))"
                );
            }
        }
    }
    println!("{open} traces were open");
    target.say("stop");
    assert!(target.line().starts_with("outer "));
    assert!(target.finish().success());
}
