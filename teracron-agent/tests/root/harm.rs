//! Programs that probes of other tools kill or change (`targets/harm.c`): outputs, exit codes and spans are right.

use std::path::Path;

use crate::support::*;

/// What each program ends with where nothing happened to it; 78 where it saw something foreign.
const UNCHANGED: i32 = 7;

/// Traces a program to its end; its exit code, its calls by its own log and those that were traced.
fn trace(what: &str, program: &Path, agent_args: &[&str]) -> Report {
    let mut command = std::process::Command::new(program);
    // Where its profiler may leave a file.
    command.current_dir(env!("CARGO_TARGET_TMPDIR"));
    let mut target = Target::start_command(command);
    let agent = Agent::start(target.pid, agent_args);
    target.go();
    let log = target.log();
    let status = target.finish();
    let report = agent.finish();
    assert_eq!(
        status.code(),
        Some(UNCHANGED),
        "{what}: {status}; {}",
        report.said
    );
    assert!(!log.is_empty(), "{what}: no log");
    report
}

fn program(kind: &str, flags: &[&str]) -> std::path::PathBuf {
    let kind = format!("-DKIND={kind}");
    compile("harm.c", &[&["-O2", "-g", &kind][..], flags].concat())
}

/// Both what reaches this process alone and what reaches each that runs the file.
const SCOPES: [&[&str]; 2] = [&["--no-follow"], &["--all-processes"]];

#[test]
fn code_that_is_made_later_may_switch_stacks() {
    // Kinds of code for which a return probe is the cheapest.
    for flags in [&[][..], &["-fcf-protection"], &["-O1"]] {
        let program = program("JIT", flags);
        for scope in SCOPES {
            let args = [&["--probe", "a:work"], scope].concat();
            let report = trace("jit", &program, &args);
            let of = |status: &str| {
                let spans = report.spans.iter();
                spans.filter(|span| span.status == status).count()
            };
            // What a place on a stack that was left has cost is counted.
            let lost = report
                .losses
                .last()
                .map_or(0, |loss| loss["lost"].as_u64().unwrap());
            assert_eq!(of("succeeded") as u64 + lost, 100, "{:?}", report.losses);
        }
    }
}

#[test]
fn a_function_sees_its_own_return_address() {
    for flags in [
        &[][..],
        &["-O0"],
        &["-fno-omit-frame-pointer"],
        &["-fcf-protection"],
    ] {
        let program = program("CALLER", flags);
        for scope in SCOPES {
            let args = [&["--probe", "a:work"], scope].concat();
            let report = trace("caller", &program, &args);
            report.assert_nothing_lost();
            assert_eq!(report.spans.len(), 150);
        }
        // outer() ends with a jump to it.
        trace("caller", &program, &["--probe", "a:outer", "--no-follow"]);
    }
}

#[test]
fn a_walk_along_frame_pointers_sees_what_is_there() {
    for flags in [&["-fno-omit-frame-pointer"][..], &["-O0"]] {
        let program = program("WALKS", flags);
        for scope in SCOPES {
            let report = trace("walks", &program, &[&["--probe", "a:work"], scope].concat());
            report.assert_nothing_lost();
            assert_eq!(report.spans.len(), 100);
        }
    }
}

#[test]
fn forked_children_live_where_a_probe_could_sit_on_a_long_nop() {
    let program = program(
        "FORKS",
        &["-pg", "-mfentry", "-mnop-mcount", "-fno-pie", "-no-pie"],
    );
    for mode in ["auto", "ret"] {
        let args = ["--probe", "a:work", "--return-probe", mode];
        // Children that are followed one by one make their only call before they are: they must live.
        trace("forks", &program, &args);
        let report = trace(
            "forks",
            &program,
            &[&args[..], &["--all-processes"]].concat(),
        );
        report.assert_nothing_lost();
        let succeeded = report
            .spans
            .iter()
            .filter(|span| span.status == "succeeded");
        assert_eq!(succeeded.count(), 20, "{mode}: parent and ten children");
    }
}

/// The kernel replaces the nop under a return probe as well.
#[test]
fn a_return_probe_on_a_long_nop_harms_no_child() {
    let program = program(
        "FORKS",
        &["-pg", "-mfentry", "-mnop-mcount", "-fno-pie", "-no-pie"],
    );
    let report = trace(
        "forks",
        &program,
        &[&["--probe", "a:work"], UNSAFE, &["--all-processes"]].concat(),
    );
    assert_eq!(report.spans.len(), 20);
}

#[test]
fn dlsym_knows_its_caller() {
    let program = program("NEXT", &[]);
    for scope in SCOPES {
        let args = [&["--probe", "a:dlsym@libc.so.6"], scope].concat();
        let report = trace("dlsym", &program, &args);
        let spans = report
            .spans
            .iter()
            .filter(|span| span.status == "succeeded");
        assert_eq!(spans.count(), 100);
    }
}

#[test]
fn a_backtrace_is_as_long_as_untraced() {
    let program = program("BACKTRACE", &["-fasynchronous-unwind-tables"]);
    for scope in SCOPES {
        let report = trace(
            "backtrace",
            &program,
            &[&["--probe", "a:work"], scope].concat(),
        );
        assert_eq!(report.spans.len(), 180);
    }
}

/// What is safe keeps the cheap way: a plain C program's functions with `endbr64` and a stack protector.
#[test]
fn plain_programs_still_get_return_probes() {
    let usual = ["-O2", "-fstack-protector-strong", "-fcf-protection"];
    let program = compile("calls.c", &usual);
    let target = Target::start(&program, &[]);
    let output = agent_command(&["symbols", "--json", "--pid", &target.pid.to_string()])
        .output()
        .unwrap();
    let listed = String::from_utf8_lossy(&output.stdout);
    let name = program.file_name().unwrap().to_str().unwrap();
    let by_return = listed
        .lines()
        .filter(|line| line.contains(name) && line.contains("return_probe"));
    assert!(by_return.count() > 0, "{listed}");
}

/// A return probe that was asked for is refused with the reason.
#[test]
fn what_forbids_return_probes_is_told() {
    for (kind, probe, reason) in [
        ("JIT", "a:work", "can make code while it runs (mmap)"),
        ("CALLER", "a:work", "may look at its own return address"),
        ("CALLER", "a:outer", "may look at its own return address"),
        ("WALKS", "a:work", "along the frame pointers"),
        ("BACKTRACE", "a:work", "walks the stack"),
        ("FORKS", "a:work", "looks at the return addresses"),
    ] {
        // Without its profiler's start code nothing but the function itself speaks against it.
        let flags: &[&str] = if kind == "FORKS" {
            &["-pg"]
        } else {
            &["-fno-omit-frame-pointer"]
        };
        let target = Target::start(&program(kind, flags), &[]);
        let output = agent_command(&["--no-follow", "--pid", &target.pid.to_string()])
            .args([
                "--probe",
                probe,
                "--return-probe",
                "uretprobe",
                "--duration",
                "0.1",
            ])
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{kind}: {said}");
        assert!(said.contains(reason), "{kind}: {said}");
    }
}
