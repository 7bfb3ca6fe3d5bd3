//! A target that dies by a signal is told, with the place; where our breakpoints may have been the cause
//! they are taken out of the file. A breakpoint that the target removed is told.

use std::os::unix::process::ExitStatusExt as _;

use crate::support::*;

const PROBE: &[&str] = &["--probe", "test:work"];

/// Lets a target die in the way that it is told; answers what the agent says, and the target's signal.
fn dies(kind: &str, code: i32) -> (Report, Option<i32>, u32) {
    let program = compile("deaths.c", &["-O2", "-g"]);
    let mut target = Target::start(&program, &[kind]);
    let pid = target.pid;
    let agent = Agent::start(pid, PROBE);
    target.go();
    target.expect("called");
    target.go();
    let signal = target.child.wait().unwrap().signal();
    (agent.finish_with(code), signal, pid)
}

#[test]
fn deaths_in_a_probed_function_may_be_ours() {
    for (kind, number, name) in [
        ("1", 5, "SIGTRAP"),
        ("2", 11, "SIGSEGV"),
        ("3", 4, "SIGILL"),
    ] {
        let (report, signal, pid) = dies(kind, 1);
        assert_eq!(signal, Some(number));
        let [death] = report.deaths.as_slice() else {
            panic!("{:?}", report.deaths);
        };
        assert_eq!(death["signal"], name);
        assert_eq!(death["pid"], pid);
        assert_eq!(death["function"], "work");
        assert_eq!(death["probes_suspected"], true);
        let said = &report.said;
        let killed = said
            .lines()
            .find(|line| line.contains("was killed by"))
            .unwrap();
        assert!(
            killed.contains(&format!("process {pid} (deaths-")),
            "{said}"
        );
        assert!(
            killed.contains(&format!("was killed by {name} at 0x")),
            "{said}"
        );
        assert!(killed.contains(", in or after work)"), "{said}");
        assert!(
            said.contains("may have been the cause; all probes are taken out of"),
            "{said}"
        );
        assert!(said.contains("1 process was killed by a signal"), "{said}");
        assert!(
            said.contains(&format!(
                "no target is left: the last one was killed by {name}"
            )),
            "{said}"
        );
        // A thousand calls that returned, and the one that did not.
        assert_eq!(report.spans.len(), 1001);
        assert_eq!(
            report.spans.last().unwrap().error_type.as_deref(),
            Some(name)
        );
    }
}

#[test]
fn other_deaths_are_told_and_not_blamed() {
    for (kind, number, name, has_address, code) in [
        ("4", 6, "SIGABRT", true, 1),
        ("11", 5, "SIGTRAP", true, 1),
        ("12", 11, "SIGSEGV", true, 1),
        ("13", 5, "SIGTRAP", true, 1),
        ("14", 15, "SIGTERM", false, 0),
        ("15", 9, "SIGKILL", false, 1),
    ] {
        let (report, signal, _) = dies(kind, code);
        assert_eq!(signal, Some(number), "{kind}");
        let [death] = report.deaths.as_slice() else {
            panic!("{kind}: {:?}", report.deaths);
        };
        assert_eq!(death["signal"], name);
        assert_eq!(death["probes_suspected"], false, "{kind}: {death}");
        assert_eq!(death["address"].is_string(), has_address, "{kind}: {death}");
        let how = if code == 0 { "stopped" } else { "killed" };
        assert!(
            report.said.contains(&format!("was {how} by {name}")),
            "{}",
            report.said
        );
        assert!(
            !report.said.contains("may have been the cause"),
            "{}",
            report.said
        );
        report.assert_nothing_lost();
    }
}

/// Text that was moved into anonymous memory takes our breakpoints along, and the process dies of it. The
/// agent says so, takes its probes out of that file, and goes on elsewhere without a gap.
#[test]
fn text_that_was_moved() {
    for kind in ["21", "22"] {
        let mover = compile("deaths.c", &["-O2", "-g"]);
        let other = compile("deaths.c", &["-O2", "-g", "-DOTHER"]);
        let mut dying = Target::start(&mover, &[kind]);
        let mut same_file = Target::start(&mover, &["0"]);
        let mut living = Target::start(&other, &["0"]);
        let pids = [same_file.pid.to_string(), living.pid.to_string()];
        let mut agent = Agent::start(
            dying.pid,
            &[PROBE, &["--pid", &pids[0], "--pid", &pids[1]]].concat(),
        );
        for target in [&mut dying, &mut same_file, &mut living] {
            target.go();
            target.expect("called");
        }
        dying.go();
        assert_eq!(dying.child.wait().unwrap().signal(), Some(libc::SIGTRAP));
        // Meanwhile and after it.
        for _ in 0..5 {
            living.go();
            living.expect("called");
        }
        let said = agent.hear("was killed by SIGTRAP");
        assert!(
            said.contains("may have been the cause; all probes are taken out of"),
            "{said}"
        );
        assert!(said.contains(mover.to_str().unwrap()), "{said}");
        for _ in 0..5 {
            living.go();
            living.expect("called");
        }
        // The breakpoints are gone from the other process of that file.
        wait_for_text(same_file.pid, &mover, false);
        wait_for_text(living.pid, &other, true);
        same_file.go();
        same_file.expect("called");
        agent.interrupt();
        let report = agent.finish();
        let of = |pid: u32| report.spans.iter().filter(|span| span.pid == pid).count();
        assert_eq!(of(living.pid), 11_000);
        assert_eq!(of(same_file.pid), 1_000);
        assert!(
            report
                .said
                .contains("calls not seen in files that probes were taken out of (1)")
        );
        assert!(!report.said.contains("none lost"), "{}", report.said);
        assert!(same_file.is_running() && living.is_running());
    }
}

/// Waits until a process's function `work` has breakpoints, or none.
fn wait_for_text(pid: u32, program: &std::path::Path, breakpoints: bool) {
    use std::os::unix::fs::FileExt as _;
    let output = std::process::Command::new("nm")
        .arg(program)
        .output()
        .unwrap();
    let symbols = String::from_utf8(output.stdout).unwrap();
    let line = symbols
        .lines()
        .find(|line| line.ends_with(" T work"))
        .unwrap();
    let address = u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let base = maps
        .lines()
        .find(|line| line.contains(program.to_str().unwrap()))
        .unwrap();
    let base = u64::from_str_radix(base.split('-').next().unwrap(), 16).unwrap();
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let file = std::fs::read(program).unwrap();
    let mut text = [0u8; 16];
    for _ in 0..1_000_000 {
        memory.read_exact_at(&mut text, base + address).unwrap();
        let same = text == file[address as usize..address as usize + 16];
        if same != breakpoints {
            return;
        }
        std::thread::yield_now();
    }
    panic!("breakpoints: not {breakpoints} in process {pid}");
}

#[test]
fn a_breakpoint_that_the_target_removed_is_told() {
    let program = compile("deaths.c", &["-O2", "-g"]);
    let mut target = Target::start(&program, &["30"]);
    let agent = Agent::start(target.pid, PROBE);
    target.go();
    target.expect("called");
    target.expect("called");
    agent.interrupt();
    let report = agent.finish();
    let said = &report.said;
    assert!(
        said.contains(&format!("process {} (deaths-", target.pid))
            && said.contains("has removed or replaced")
            && said.contains("(first: function work)"),
        "{said}"
    );
    assert!(
        said.contains("calls not seen at breakpoints that a target has removed"),
        "{said}"
    );
    assert!(!said.contains("none lost"), "{said}");
    assert_eq!(report.spans.len(), 1000);
    assert!(target.is_running());
}
