//! Programs without an unwinder that return probes would kill all the same.

use std::process::Stdio;

use crate::support::*;

const KINDS: [(&str, &str, &str); 5] = [
    ("SWITCHES", "-O2", "switches stacks"),
    ("SIGNALS", "-O2", "on another stack"),
    ("LOADS", "-O2", "can load an unwinder"),
    ("OWN_STACK", "-O2", "sets its stack pointer"),
    ("CLEANS_UP", "-fexceptions", "handlers for exceptions"),
];

fn program(kind: &str, flag: &str) -> std::path::PathBuf {
    compile("stacks.c", &["-O2", flag, &format!("-DKIND={kind}")])
}

#[test]
fn auto_does_them_no_harm() {
    for (kind, flag, _) in KINDS {
        let mut target = Target::start(&program(kind, flag), &[]);
        let agent = Agent::start(target.pid, &["--probe", "a:outer", "--probe", "a:work"]);
        target.go();
        target.log();
        let status = target.finish();
        assert!(status.success(), "{kind}: {status}");
        let report = agent.finish();
        report.assert_nothing_lost();
        let of = |name: &str| {
            report
                .spans
                .iter()
                .filter(|span| span.operation == name && span.status == "succeeded")
                .count()
        };
        let (outer, work) = match kind {
            "SWITCHES" => (1, 3),
            "OWN_STACK" => (40, 40),
            "LOADS" => (20, 20),
            _ => (20, 40),
        };
        assert_eq!((of("outer"), of("work")), (outer, work), "{kind}");
    }
}

#[test]
fn return_probes_are_refused_with_the_reason() {
    for (kind, flag, reason) in KINDS {
        let target = Target::start(&program(kind, flag), &[]);
        let output = agent_command(&["--pid", &target.pid.to_string(), "--probe", "a:outer"])
            .args(["--return-probe", "uretprobe", "--duration", "0.1"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{kind}: {said}");
        assert!(said.contains(reason), "{kind}: {said}");
    }
}

#[test]
fn an_executable_that_does_not_run_yet_is_asked_too() {
    let program = compile("throws.cpp", &["-O2"]);
    let output = agent_command(&["--exe", program.to_str().unwrap(), "--probe"])
        .args([
            "a:shop::deep",
            "--return-probe",
            "uretprobe",
            "--duration",
            "0.1",
        ])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("unwinds the stack"), "{said}");
}

/// A C program without an unwinder loads a plugin in C++ that throws through a traced call.
#[test]
fn an_unwinder_that_comes_later_is_watched() {
    let plugin = compile("plugin.cpp", &["-O2", "-shared", "-fPIC"]);
    let program = compile("host.c", &["-O2", "-fexceptions"]);
    let mut target = Target::start(&program, &[plugin.to_str().unwrap()]);
    let agent = Agent::start(target.pid, &["--probe", "a:through", "--probe", "a:leaf"]);
    target.go();
    target.log();
    let status = target.finish();
    assert!(status.success(), "{status}");
    let report = agent.finish();
    report.assert_nothing_lost();
    let failed: Vec<&Span> = report
        .spans
        .iter()
        .filter(|span| span.operation == "through" && span.status == "failed")
        .collect();
    assert_eq!(failed.len(), 10, "{:?}", report.spans);
    for span in failed {
        assert_eq!(span.error_type.as_deref(), Some("std::runtime_error"));
        assert_eq!(span.error_message.as_deref(), Some("from the plugin"));
    }
}
