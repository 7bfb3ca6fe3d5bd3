//! Binaries as they are in production: stripped, with their symbols and debug information elsewhere.

use std::{path::Path, process::Command};

use crate::support::*;

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Traces two functions by name, one with a parameter, and compares the number of calls.
fn check(what: &str, program: &Path) {
    let mut target = Target::start(program, &[]);
    let agent = Agent::start(
        target.pid,
        &["--probe", "t:charge(amount)", "--probe", "t:hidden(k)"],
    );
    target.go();
    target.log();
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    let of = |name: &'static str| {
        report
            .spans
            .iter()
            .filter(move |span| span.operation == name)
    };
    assert_eq!(of("charge").count(), 40, "{what}");
    assert_eq!(of("hidden").count(), 40, "{what}");
    for (n, span) in of("hidden").enumerate() {
        assert_eq!(span.captured["k"], n as u64, "{what}: {}", report.said);
    }
}

#[test]
fn a_debug_file_beside_the_program() {
    for build_id in ["-Wl,--build-id=sha1", "-Wl,--build-id=none"] {
        let program = compile("captures.c", &["-g", "-O1", build_id]);
        let path = program.to_str().unwrap();
        let debug = format!("{path}.debug");
        run("objcopy", &["--only-keep-debug", path, &debug]);
        run("strip", &["--strip-all", path]);
        run("objcopy", &[&format!("--add-gnu-debuglink={debug}"), path]);
        check(build_id, &program);
    }
}

#[test]
fn a_debug_file_by_build_id() {
    let program = compile("captures.c", &["-g", "-O1", "-Wl,--build-id=sha1"]);
    let path = program.to_str().unwrap();
    let notes = Command::new("readelf").args(["-n", path]).output().unwrap();
    let notes = String::from_utf8(notes.stdout).unwrap();
    let id = notes.split("Build ID: ").nth(1).unwrap();
    let id = id.split_whitespace().next().unwrap();
    let folder = format!("/usr/lib/debug/.build-id/{}", &id[..2]);
    std::fs::create_dir_all(&folder).unwrap();
    let debug = format!("{folder}/{}.debug", &id[2..]);
    run("objcopy", &["--only-keep-debug", path, &debug]);
    run("strip", &["--strip-all", path]);
    check("by build ID", &program);
    std::fs::remove_file(&debug).unwrap();
    let _ = std::fs::remove_dir(&folder);
}

#[test]
fn a_debug_file_of_another_build_is_not_believed() {
    let program = compile("captures.c", &["-g", "-O1", "-Wl,--build-id=none"]);
    let path = program.to_str().unwrap();
    let debug = format!("{path}.debug");
    run("objcopy", &["--only-keep-debug", path, &debug]);
    run("strip", &["--strip-all", path]);
    run("objcopy", &[&format!("--add-gnu-debuglink={debug}"), path]);
    // Another program's, by the same name.
    let other = compile("captures.c", &["-g", "-O3", "-Wl,--build-id=none"]);
    run(
        "objcopy",
        &["--only-keep-debug", other.to_str().unwrap(), &debug],
    );
    let target = Target::start(&program, &[]);
    let output = agent_command(&["--pid", &target.pid.to_string(), "--probe", "t:hidden"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
}

#[test]
fn compressed_symbols() {
    let program = compile("captures.c", &["-g", "-O1"]);
    let path = program.to_str().unwrap();
    let mini = format!("{path}.mini");
    run("objcopy", &["--strip-debug", path, &mini]);
    run("xz", &["-f", &mini]);
    run("strip", &["--strip-all", path]);
    run(
        "objcopy",
        &["--add-section", &format!(".gnu_debugdata={mini}.xz"), path],
    );
    let mut target = Target::start(&program, &[]);
    let agent = Agent::start(target.pid, &["--probe", "t:hidden(k=arg1:i64)"]);
    target.go();
    target.log();
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    assert_eq!(report.spans.len(), 40);
    assert_eq!(report.spans[7].captured["k"], 7);
}

#[test]
fn a_coroutine_is_refused_and_what_it_calls_is_traced() {
    for flags in [
        &["-std=c++20", "-fcoroutines", "-O1"][..],
        &["clang", "-std=c++20", "-O0"],
    ] {
        let program = compile("coroutine.cpp", flags);
        let mut target = Target::start(&program, &[]);
        let agent = Agent::start(target.pid, &["--probe", "t:shop::*"]);
        assert!(
            agent.said.contains("shop::checkout (it is a C++ coroutine"),
            "{}",
            agent.said
        );
        target.go();
        target.log();
        assert!(target.finish().success());
        let report = agent.finish();
        report.assert_nothing_lost();
        assert_eq!(
            report
                .spans
                .iter()
                .filter(|span| span.operation == "shop::step")
                .count(),
            2
        );
    }
}

#[test]
fn where_a_function_was_inlined_is_listed() {
    let program = compile("inlined.c", &["-g", "-O2"]);
    let list = |json: &[&str]| {
        let path = program.to_str().unwrap();
        let output = agent_command(&[&["symbols", "--file", path, "helper"], json].concat())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let text = list(&[]);
    assert!(text.contains("(inlined in main+0x"), "{text}");
    let row: serde_json::Value = serde_json::from_str(&list(&["--json"])).unwrap();
    let places = row["inlined"].as_array().unwrap();
    assert_eq!(places.len(), 1, "{row}");
    assert_eq!(places[0]["within"], "main");
}

#[test]
fn what_was_inlined_is_told() {
    let program = compile("inlined.c", &["-g", "-O2"]);
    let target = Target::start(&program, &[]);
    let agent = Agent::start(target.pid, &["--probe", "t:helper"]);
    assert!(
        agent
            .said
            .contains("calls that the compiler inlined are not seen: helper (1 place)"),
        "{}",
        agent.said
    );
    target.finish();
    agent.finish();
}

/// What the agent says of a probe that it refuses.
fn refused(program: &Path, probe: &str) -> String {
    let path = program.to_str().unwrap();
    let output = agent_command(&["--exe", path, "--probe", probe, "--duration", "5"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn versions_of_a_function() {
    let script = Path::new(env!("CARGO_TARGET_TMPDIR")).join("versions.map");
    std::fs::write(
        &script,
        "SHOP_1 { global: pay; local: *; };\nSHOP_2 { global: pay; } SHOP_1;\n",
    )
    .unwrap();
    let script = format!("-Wl,--version-script={}", script.display());
    for strip in [false, true] {
        let library = compile("versioned.c", &["-shared", "-fPIC", "-O1", &script]);
        if strip {
            run("strip", &[library.to_str().unwrap()]);
        }
        let program = compile_with("uses_versions.c", &["-O1"], &[library.to_str().unwrap()]);
        let name = library.file_name().unwrap().to_str().unwrap();
        for (probe, calls) in [
            ("t:pay@SHOP_1".to_owned(), 200),
            ("t:pay@SHOP_2".to_owned(), 100),
            (format!("t:pay@SHOP_1@{name}"), 200),
            ("t:pay".to_owned(), 300),
        ] {
            let mut target = Target::start(&program, &[]);
            let agent = Agent::start(target.pid, &["--probe", &probe]);
            target.go();
            target.log();
            target.finish();
            let report = agent.finish();
            report.assert_nothing_lost();
            assert_eq!(
                report.spans.len(),
                calls,
                "{probe} {strip}: {}",
                report.said
            );
            assert!(report.spans.iter().all(|span| span.operation == "pay"));
        }
    }
}

#[test]
fn equal_functions_that_the_linker_merged_are_told() {
    let program = compile(
        "folded.cpp",
        &[
            "-O1",
            "-ffunction-sections",
            "-fuse-ld=gold",
            "-Wl,--icf=all",
        ],
    );
    let mut target = Target::start(&program, &[]);
    let agent = Agent::start(target.pid, &["--probe", "t:shop::refund"]);
    assert!(
        agent
            .said
            .contains("shop::refund is one code with shop::charge: equal functions were merged"),
        "{}",
        agent.said
    );
    target.go();
    target.log();
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    assert_eq!(report.spans.len(), 200);
    assert!(
        report
            .spans
            .iter()
            .all(|span| span.operation == "shop::refund")
    );
}

#[test]
fn aliases_are_one_function_and_that_is_no_news() {
    let program = compile("folded.cpp", &["-O1"]);
    let target = Target::start(&program, &[]);
    let agent = Agent::start(
        target.pid,
        &[
            "--probe",
            "t:malloc@libc.so.6",
            "--probe",
            "t:read@libc.so.6",
        ],
    );
    assert!(!agent.said.contains("one code with"), "{}", agent.said);
    target.finish();
    agent.finish();
}

#[test]
fn what_is_no_function_of_a_file_is_refused_with_the_reason() {
    let program = compile("folded.cpp", &["-O1"]);
    for (probe, reason) in [
        (
            "t:clock_gettime@[vdso]",
            "belongs to no file, and probes need one",
        ),
        (
            "t:__vdso_clock_gettime@linux-vdso.so.1",
            "belongs to no file",
        ),
        ("t:printf@plt", "probe the function without `@plt`"),
        (
            "t:strlen@libc.so.6",
            "it chooses one of several functions when the program starts",
        ),
    ] {
        let said = refused(&program, probe);
        assert!(said.contains(reason), "{probe}: {said}");
    }
    let sections = Command::new("readelf")
        .args(["-SW", program.to_str().unwrap()])
        .output()
        .unwrap();
    let sections = String::from_utf8(sections.stdout).unwrap();
    let stub = sections
        .lines()
        .find_map(|line| {
            let after = line.split(" .plt ").nth(1)?;
            after.split_whitespace().nth(1).map(str::to_owned)
        })
        .unwrap();
    let said = refused(&program, &format!("t:0x{}", stub.trim_start_matches('0')));
    assert!(
        said.contains("is a stub that jumps to a function of another file"),
        "{said}"
    );
}
