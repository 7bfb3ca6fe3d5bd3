//! A stranger is not touched: what a run changes is the named process, its descendants, and nothing else.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::support::*;

/// The program, and the file that its processes write to.
fn family(name: &str) -> (PathBuf, PathBuf) {
    let program = compile("family.c", &["-O2"]);
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("family-{name}.log"));
    let _ = fs::remove_file(&log);
    (program, log)
}

/// What a process wrote: its id, when it was forked, and when it was about to call, wall clock in nanoseconds.
struct Life {
    pid: u32,
    forked: u64,
    calls: Vec<u64>,
}

fn lives(log: &Path) -> Vec<Life> {
    fs::read_to_string(log)
        .unwrap()
        .lines()
        .map(|line| {
            let mut words = line.split(' ').map(|word| word.parse::<u64>().unwrap());
            Life {
                pid: words.next().unwrap() as u32,
                forked: words.next().unwrap(),
                calls: words.collect(),
            }
        })
        .collect()
}

#[test]
fn no_byte_of_a_stranger_changes() {
    let (program, log) = family("strangers");
    let arg = log.to_str().unwrap();
    // The same program, the same C library, the same dynamic linker; and another with the unwinder.
    let mut stranger = Target::start(&program, &[arg]);
    let thrower = Target::start(&compile("throws.cpp", &["-O2"]), &["1", "1"]);
    let mut target = Target::start(&program, &[arg]);
    let own = std::process::id();
    let before: Vec<_> = [stranger.pid, thrower.pid, own].map(code_of).into();
    let in_target = code_of(target.pid);
    let agent = Agent::start(
        target.pid,
        &["--probe", "t:work", "--probe", "t:getenv@libc.so.6"],
    );
    let during: Vec<_> = [stranger.pid, thrower.pid, own].map(code_of).into();
    for (before, during) in before.iter().zip(&during) {
        assert_eq!(changed(before, during), 0);
    }
    // The comparison can see breakpoints.
    assert!(changed(&in_target, &code_of(target.pid)) > 2);
    stranger.say("call 100");
    target.say("call 100");
    stranger.log();
    target.log();
    agent.interrupt();
    let report = agent.finish();
    report.assert_nothing_lost();
    assert_eq!(report.spans.len(), 100);
    assert!(report.spans.iter().all(|span| span.pid == target.pid));
    assert_eq!(changed(&in_target, &code_of(target.pid)), 0);
    for (pid, before) in [stranger.pid, thrower.pid, own].into_iter().zip(&before) {
        assert_eq!(changed(before, &code_of(pid)), 0);
    }
}

/// Calls of children are seen from an instant on that is told; before it none is.
#[test]
fn forked_children_are_followed_and_what_was_missed_is_told() {
    let (program, log) = family("followed");
    let mut target = Target::start(&program, &[log.to_str().unwrap()]);
    let agent = Agent::start(target.pid, &["--probe", "t:work"]);
    target.say("fork 6 600");
    target.log();
    target.say("call 10");
    target.log();
    let pid = target.pid;
    target.finish();
    let report = agent.finish();
    let unseen = report.unseen.clone().expect("what was missed is told");
    assert_eq!(unseen["processes"], 6);
    assert_eq!(unseen["ended_before"], 0);
    let longest = unseen["longest_ns"].as_u64().unwrap();
    assert!(
        report.said.contains("not seen: calls of 6 new processes"),
        "{}",
        report.said
    );
    assert!(!report.said.contains("none lost"), "{}", report.said);
    let lives = lives(&log);
    assert_eq!(lives.len(), 7);
    for life in &lives {
        let mut seen: Vec<u64> = report
            .spans
            .iter()
            .filter(|span| span.pid == life.pid)
            .map(|span| span.started_at_ns)
            .collect();
        seen.sort_unstable();
        if life.pid == pid {
            assert_eq!(seen.len(), 10);
            continue;
        }
        // The last ones, without a hole.
        let missed = life.calls.len() - seen.len();
        for (call, seen) in life.calls[missed..].iter().zip(&seen) {
            assert!(call <= seen, "{}: {call} {seen}", life.pid);
        }
        for (seen, next) in seen.iter().zip(&life.calls[missed + 1..]) {
            assert!(seen <= next, "{}: {seen} {next}", life.pid);
        }
        assert!(seen.len() > 50, "{} of {}", seen.len(), life.calls.len());
        if let Some(last) = missed.checked_sub(1) {
            // The clock of the fork was read before it, the kernel's event comes after.
            let blind = life.calls[last] - life.forked;
            let slack = Duration::from_millis(5).as_nanos() as u64;
            assert!(blind <= longest + slack, "{blind} ns of {longest} ns");
        }
    }
    println!("{unseen}");
}

#[test]
fn workers_that_were_there_before_are_traced() {
    let (program, log) = family("workers");
    let mut target = Target::start(&program, &[log.to_str().unwrap()]);
    target.say("stay");
    let child: u32 = target
        .line()
        .strip_prefix("child ")
        .and_then(|pid| pid.parse().ok())
        .unwrap();
    let agent = Agent::start(target.pid, &["--probe", "t:work"]);
    assert!(
        agent.said.contains(&format!(
            "descend from what is named and run the same program: {child}"
        )),
        "{}",
        agent.said
    );
    target.say("go");
    target.log();
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    assert_eq!(report.spans.len(), 50);
    assert!(report.spans.iter().all(|span| span.pid == child));
}

/// A thousand children that come and go: nothing hangs, nothing leaks, nobody dies.
#[test]
fn a_storm_of_forks() {
    let (program, log) = family("storm");
    let mut target = Target::start(&program, &[log.to_str().unwrap()]);
    let agent = Agent::start(target.pid, &["--probe", "t:work"]);
    target.say("storm 1000");
    target.log();
    target.say("call 10");
    target.log();
    let pid = target.pid;
    assert!(target.finish().success());
    let report = agent.finish();
    let unseen = report.unseen.clone().unwrap();
    assert_eq!(unseen["processes"], 1000);
    let own = report.spans.iter().filter(|span| span.pid == pid).count();
    assert_eq!(own, 10);
    println!(
        "{} of 1000 children's calls seen; {unseen}",
        report.spans.len() - own
    );
}

/// With --no-follow a child is not traced, and soon has no breakpoint left that it would pay for.
#[test]
fn children_that_are_not_followed_are_cleared() {
    let (program, log) = family("cleared");
    let mut target = Target::start(&program, &[log.to_str().unwrap()]);
    let clean = code_of(target.pid);
    let agent = Agent::start(target.pid, &["--no-follow", "--probe", "t:work"]);
    target.say("stay");
    let child: u32 = target
        .line()
        .strip_prefix("child ")
        .and_then(|pid| pid.parse().ok())
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while changed(&clean, &code_of(child)) > 0 {
        assert!(Instant::now() < deadline, "the child keeps breakpoints");
        std::thread::yield_now();
    }
    assert!(changed(&clean, &code_of(target.pid)) > 0);
    target.say("go");
    target.log();
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    assert_eq!(report.spans.len(), 0);
}
