//! Names: what the source calls a function finds it, in `--probe` and `symbols` alike, and who asks for something else is
//! told what there is. Needs root.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::{golang::GO_VERSIONS, *};

fn agent(args: &[&str]) -> (i32, String, String) {
    let output = agent_command(args).stdin(Stdio::null()).output().unwrap();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn refused(pid: u32, probe: &str) -> String {
    let pid = pid.to_string();
    let (code, stdout, said) = agent(&["--pid", &pid, "--probe", probe, "--duration", "1"]);
    assert_eq!(code, 4, "{probe}: {stdout} {said}");
    said
}

/// Plain names of what `symbols` lists.
fn listed(program: &Path, name: &str) -> Vec<String> {
    let path = program.to_str().unwrap();
    let (code, stdout, said) = agent(&["symbols", "--json", "--file", path, name]);
    assert!(code == 0 || code == 4 && stdout.is_empty(), "{said}");
    let rows = stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.map(|row| row["plain_name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn functions_are_found_by_the_names_of_their_source() {
    let program = compile("names.cpp", &["-O2", "-g"]);
    // What is asked for, and what the target calls it.
    for (name, logged) in [
        ("outer::anon", "anon"),
        ("anon", "anon"),
        ("app::hidden", "hidden"),
        ("app::Box<*>::get", "get"),
        ("Box::get", "get"),
        ("get", "get"),
        ("app::Box<std::string, 1>::get", "get_string"),
        ("*Box<std::string*>::get", "get_string"),
        ("fetch(std::string const&)", "fetch"),
        ("*operator<", "less"),
        ("*operator int", "number"),
        ("*operator[]", "at"),
        ("*operator()", "call"),
        ("operator()", "call"),
    ] {
        let mut target = Target::start(&program, &[]);
        let agent = Agent::start(target.pid, &["--probe", &format!("t:{name}")]);
        target.go();
        let log = target.log();
        target.finish();
        let report = agent.finish();
        report.assert_nothing_lost();
        let ending = format!(" {logged}");
        let calls = log.iter().filter(|line| line.ends_with(&ending)).count();
        assert_eq!(report.spans.len(), calls, "{name}: {}", report.said);
        assert!(calls >= 20, "{name}");
        // `symbols` means the same functions by it.
        let operations: BTreeSet<String> = report
            .spans
            .into_iter()
            .map(|span| span.operation)
            .collect();
        let listed: BTreeSet<String> = listed(&program, name).into_iter().collect();
        assert_eq!(listed, operations, "{name}");
    }
}

#[test]
fn the_last_parts_are_enough_in_go_and_rust() {
    let rust = compile("captures.rs", &["-g"]);
    let go = golang::build(GO_VERSIONS[0], &[]);
    let stripped = golang::build(GO_VERSIONS[0], &["-ldflags=-s -w"]);
    for (program, name, short) in [
        (&rust, "captures::charge", "charge"),
        (&go, "main.(*Server).handle", "handle"),
        (&go, "main.(*Server).handle", "(*Server).handle"),
        (&stripped, "main.(*Server).handle", "Server.handle"),
        // Not the runtime's.
        (&go, "main.main", "main"),
    ] {
        let plan = |name: &str| {
            let path = program.to_str().unwrap();
            let (code, stdout, said) =
                agent(&["symbols", "--plan", &format!("t:{name}"), "--file", path]);
            assert_eq!(code, 0, "{name}: {said}");
            (stdout, said)
        };
        let (by_short, said) = plan(short);
        assert_eq!(by_short, plan(name).0, "{short}");
        assert!(
            said.contains(&format!("t:{short} stands for 1 function: {name}")),
            "{said}"
        );
        assert!(listed(program, short).contains(&name.to_owned()), "{short}");
    }
}

#[test]
fn a_word_lists_all_names_that_have_it() {
    let program = compile("names.cpp", &["-O2", "-g"]);
    // What is called so comes first.
    assert_eq!(
        listed(&program, "hidde"),
        ["app::(anonymous namespace)::hidden"]
    );
    assert_eq!(listed(&program, "e").len(), listed(&program, "*e*").len());
    for (name, is_there) in [
        ("_init", true),
        ("init", false),
        ("*_init*", false),
        ("*~*", true),
        ("*Box*", true),
    ] {
        assert_eq!(!listed(&program, name).is_empty(), is_there, "{name}");
    }
    assert!(
        listed(&program, "*Box*")
            .iter()
            .all(|name| !name.contains('~'))
    );
    let path = program.to_str().unwrap();
    let (_, all, _) = agent(&["symbols", "--file", path]);
    for glue in ["frame_dummy", "_init", "_start", "deregister_tm_clones"] {
        assert!(!all.contains(glue), "{all}");
    }
    let (code, _, said) = agent(&["symbols", "--file", path, "fetsch"]);
    assert!(
        code == 4 && said.contains("did you mean app::fetch?"),
        "{said}"
    );
}

#[test]
fn what_may_be_several_functions_is_refused_with_their_names() {
    let program = compile("calls.c", &["-O1"]);
    let target = Target::start(&program, &[]);
    let said = refused(target.pid, "t:switchin");
    assert!(said.contains("did you mean switching?"), "{said}");
    let program = compile("names.cpp", &["-O2"]);
    let target = Target::start(&program, &[]);
    let said = refused(target.pid, "t:checked");
    assert!(said.contains("app::checked; stock::checked"), "{said}");
}

#[test]
fn a_failure_rule_that_can_not_be_evaluated_is_refused() {
    let program = compile("names.cpp", &["-O2", "-g"]);
    let mut target = Target::start(&program, &[]);
    let said = refused(target.pid, "t:app::described fails ret < 0");
    assert!(
        said.contains("which of its calls fail can't be told"),
        "{said}"
    );
    // Those of which it can be told are traced.
    let probe = "t:app::*(nothing_of_the_kind) fails ret < 0";
    let agent = Agent::start(target.pid, &["--probe", probe]);
    for words in [
        "app::described (which of its calls fail",
        "nothing_of_the_kind can't be read: no parameter is called so (",
    ] {
        assert!(agent.said.contains(words), "{}", agent.said);
    }
    target.go();
    target.log();
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    let of = |name: &str| {
        let spans = report.spans.iter().filter(|span| span.operation == name);
        spans.map(|span| span.status.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("app::checked"), vec!["failed"; 20]);
    assert_eq!(of("app::fetch"), vec!["succeeded"; 20]);
    assert!(of("app::described").is_empty());
}

#[test]
fn a_shells_child_that_has_the_function_is_named() {
    let program = compile("names.cpp", &["-O2"]);
    let mut command = Command::new("/bin/sh");
    // Not its last command, or the shell would become it.
    let script = format!("{}; exit 0", program.display());
    command.args(["-c", &script]);
    // What it says is its child's.
    let child = Target::start_command(command);
    let shell = child.child.id();
    assert_ne!(shell, child.pid);
    let said = refused(shell, "t:app::checked");
    assert!(said.contains(&format!("--pid {}", child.pid)), "{said}");
    let said = refused(shell, "t:app::no_such_function");
    assert!(!said.contains("--pid"), "{said}");
    child.finish();
}

/// A program that waits.
fn waiting(program: &Path, args: &[&str]) -> Target {
    let mut command = Command::new(program);
    command.args(args);
    Target::start_command(command)
}

#[test]
fn who_runs_scripts_is_named() {
    let script = "import os, sys\ndef charge(): pass\nprint('ready', os.getpid(), flush=True)\nsys.stdin.readline()";
    let python = std::fs::canonicalize("/usr/bin/python3").unwrap();
    let target = waiting(&python, &["-c", script]);
    let said = refused(target.pid, "t:charge");
    assert!(said.contains("is CPython: functions of Python"), "{said}");
    // What it names as an example is there.
    let example = said.split("`--probe ").nth(1).unwrap();
    let example = example.split('`').next().unwrap();
    let agent = Agent::start(target.pid, &["--probe", example]);
    target.finish();
    agent.finish();
    // A name makes nobody an interpreter.
    let program = compile("steady.c", &["-O1"]);
    let folder = tempfile::tempdir().unwrap();
    let named: PathBuf = folder.path().join("python3");
    copy(&program, &named);
    let target = waiting(&named, &[]);
    let said = refused(target.pid, "t:charge");
    assert!(!said.contains("CPython"), "{said}");
}
