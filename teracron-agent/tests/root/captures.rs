//! Arguments and results by name: what the agent says of each call is what the target itself wrote down,
//! and nothing that was not asked for leaves it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::*;
use serde_json::{Map, Value};

/// What a target wrote: an object for each call, in order.
fn written(log: &[String]) -> Vec<Map<String, Value>> {
    log.iter()
        .map(|line| match serde_json::from_str(line) {
            Ok(Value::Object(object)) => object,
            other => panic!("{other:?}: {line}"),
        })
        .collect()
}

/// A span in the same form.
fn seen(span: &Span, prefix: &str) -> Map<String, Value> {
    let mut object = span.captured.as_object().cloned().unwrap_or_default();
    let name = span
        .operation
        .strip_prefix(prefix)
        .unwrap_or(&span.operation);
    object.insert("call".into(), name.into());
    let error = match (&span.error_type, &span.error_message) {
        (Some(kind), Some(message)) => format!(" {kind}|{message}"),
        (Some(kind), None) => format!(" {kind}"),
        _ => String::new(),
    };
    object.insert("status".into(), format!("{}{error}", span.status).into());
    object
}

/// Values that may be missing, because an optimiser has left nothing of them; told at the start.
fn compare(
    what: &str,
    logged: &[Map<String, Value>],
    report: &Report,
    prefix: &str,
) -> Vec<String> {
    let mut spans = report.spans.clone();
    spans.sort_by_key(|span| span.started_at_ns);
    assert_eq!(spans.len(), logged.len(), "{what}: calls");
    let mut missing: Vec<String> = Vec::new();
    for (wanted, span) in logged.iter().zip(&spans) {
        let got = seen(span, prefix);
        let call = wanted["call"].as_str().unwrap();
        for (key, value) in &got {
            assert_eq!(
                wanted.get(key),
                Some(value),
                "{what}: {call}: {key}: {span:?}"
            );
        }
        for key in wanted.keys().filter(|key| !got.contains_key(*key)) {
            // Only what was said not to be readable may be missing.
            let unreadable = format!("{key} can't be read");
            assert!(
                report
                    .said
                    .lines()
                    .any(|line| line.contains(&unreadable) && line.contains(call)),
                "{what}: {call} has no {key}, and nothing said so: {}",
                report.said
            );
            let name = format!("{call}.{key}");
            if !missing.contains(&name) {
                missing.push(name);
            }
        }
    }
    missing
}

fn check(what: &str, program: &std::path::Path, probes: &[&str], prefix: &str) -> Vec<String> {
    let arguments: Vec<&str> = probes.iter().flat_map(|probe| ["--probe", probe]).collect();
    let mut target = Target::start(program, &[]);
    let agent = Agent::start(target.pid, &arguments);
    target.go();
    let log = target.log();
    let status = target.finish();
    assert!(status.success(), "{what}: {status}");
    let report = agent.finish();
    report.assert_nothing_lost();
    let text: String = report
        .spans
        .iter()
        .map(|span| span.captured.to_string())
        .collect();
    assert!(!text.contains("CANARY"), "{what}: a neighbour was read");
    compare(what, &written(&log), &report, prefix)
}

const C: &[&str] = &[
    "t:charge(order.id, order->customer->name, order.customer.id, order.customer.code, order.color, order.price, order.ratio, order.paid, order.letter, order.inner, order.raw, order.state, order.signed_bits, order.wide, order.bit, amount, note, color, flag, count, seventh, ret) fails ret < 0",
    "t:two(pair.a, pair.b, k, ret.a, ret.b)",
    "t:find(k, ret) fails null",
    "t:hidden(ret)",
    "t:longest(text)",
];

#[test]
fn c_at_every_optimisation() {
    for flags in [
        &["-g", "-O0"][..],
        &["-g", "-O1"],
        &["-g", "-O2"],
        &["-g", "-O3"],
        &["-g", "-Og"],
        &["-gdwarf-4", "-O2"],
        &["-g", "-O2", "-fno-omit-frame-pointer"],
        &["-g", "-O0", "-fcf-protection=full"],
        &["-g", "-O2", "-gz"],
        &["-g", "-O2", "-static"],
        &["-g", "-O2", "-fstack-protector-all"],
        &["clang", "-g", "-O0"],
        &["clang", "-g", "-O2"],
    ] {
        let program = compile("captures.c", flags);
        let missing = check(&format!("{flags:?}"), &program, C, "");
        // Between the result and the return stands a check: what is set for the caller is not seen.
        let guarded = flags.contains(&"-fstack-protector-all");
        // clang drops arguments that a function known to all its callers does not need, and copies
        // structures around before it puts them where it says.
        let clang = flags.contains(&"clang");
        let allowed = |name: &String| guarded && name == "hidden.ret" || clang;
        assert!(missing.iter().all(allowed), "{flags:?}: {missing:?}");
    }
}

#[test]
fn debug_information_in_other_files() {
    for flags in [
        &["-g", "-gsplit-dwarf", "-O2"][..],
        &["-gdwarf-4", "-gsplit-dwarf", "-O2"],
        &["-g", "-gsplit-dwarf", "-fdebug-types-section", "-O2"],
        &["-g", "-fdebug-types-section", "-O2"],
        &["-gdwarf-4", "-fdebug-types-section", "-O2"],
        &["clang", "-g", "-gsplit-dwarf", "-O0"],
        &["clang", "-gdwarf-4", "-gsplit-dwarf", "-O0"],
        &[
            "clang",
            "-g",
            "-gsplit-dwarf",
            "-fdebug-types-section",
            "-O0",
        ],
    ] {
        let program = compile("captures.c", flags);
        let missing = check(&format!("{flags:?}"), &program, C, "");
        // As without: see there.
        let clang = flags.contains(&"clang");
        assert!(missing.is_empty() || clang, "{flags:?}: {missing:?}");
    }
}

/// Files of a program's debug information, beside it.
fn split_files(program: &Path) -> Vec<PathBuf> {
    let name = program.file_name().unwrap().to_string_lossy().into_owned();
    let folder = program.parent().unwrap();
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let other = path.file_name().unwrap().to_string_lossy();
            other.starts_with(&format!("{name}-")) && other.ends_with(".dwo")
        })
        .collect()
}

#[test]
fn debug_information_in_a_package() {
    for flags in [
        &["-gdwarf-4", "-gsplit-dwarf", "-O2"][..],
        &["-g", "-gsplit-dwarf", "-O2"],
        &["-gdwarf-4", "-gsplit-dwarf", "-fdebug-types-section", "-O2"],
    ] {
        let program = compile("captures.c", flags);
        let files = split_files(&program);
        assert_eq!(files.len(), 1, "{flags:?}");
        let package = format!("{}.dwp", program.display());
        run(Command::new("llvm-dwp").args(&files).args(["-o", &package]));
        for file in &files {
            std::fs::remove_file(file).unwrap();
        }
        let missing = check(&format!("{flags:?}"), &program, C, "");
        assert!(missing.is_empty(), "{flags:?}: {missing:?}");
        // Without it nothing is known, and that is said.
        std::fs::remove_file(&package).unwrap();
        let target = Target::start(&program, &[]);
        let agent = Agent::start(target.pid, &["--probe", "t:find(k, ret)"]);
        assert!(
            agent
                .said
                .contains("lies in a file of its own (.dwo, .dwp), which was not found"),
            "{}",
            agent.said
        );
        target.finish();
        agent.finish();
    }
}

#[test]
fn debug_information_that_files_share() {
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        let programs = [version, "-O2"].map(|_| compile("captures.c", &[version, "-O2"]));
        let shared = format!("{}.shared", programs[0].display());
        run(Command::new("dwz").args(["-m", &shared]).args(&programs));
        let sections = Command::new("readelf")
            .args(["-SW", programs[0].to_str().unwrap()])
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&sections.stdout).contains(".gnu_debugaltlink"));
        let missing = check(version, &programs[0], C, "");
        assert!(missing.is_empty(), "{version}: {missing:?}");
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

const CPP: &[&str] = &[
    "t:shop::Shop::pay(this.calls, who, who.len, view, copy, cart.owner, cart.items, cart.total, cart.status, cart.base_id, text)",
    "t:shop::twice<long>(value, ret)",
    "t:shop::make(k, ret)",
    "t:shop::judge(ret) fails ret == Status::Declined",
    "t:shop::plain(ret.a, ret.b)",
    "t:shop::money(ret.cents, ret.currency)",
    "t:shop::counted(ret.n)",
    "t:shop::small_class(k)",
];

#[test]
fn cpp_at_every_optimisation() {
    for flags in [
        &["-std=c++17", "-g", "-O0"][..],
        &["-std=c++17", "-g", "-O2"],
        &["-std=c++17", "-g", "-O3"],
        &["-std=c++17", "-g", "-O2", "-D_GLIBCXX_USE_CXX11_ABI=0"],
        &["-std=c++17", "-g", "-O0", "-D_GLIBCXX_USE_CXX11_ABI=0"],
        &["-std=c++17", "-g", "-O2", "-gsplit-dwarf"],
        &["-std=c++17", "-g", "-O2", "-fdebug-types-section"],
        &["clang", "-std=c++17", "-g", "-O0", "-stdlib=libc++"],
        &["clang", "-std=c++17", "-g", "-O2", "-stdlib=libc++"],
    ] {
        let program = compile("captures.cpp", flags);
        let missing = check(&format!("{flags:?}"), &program, CPP, "");
        // There the optimiser knows the only texts and passes none.
        let optimised = flags.contains(&"-O3");
        let clang = flags.contains(&"clang");
        let allowed = |name: &String| {
            optimised && ["shop::Shop::pay.text", "shop::Shop::pay.view"].contains(&name.as_str())
                // Nothing says that the copy is not the compiler's.
                || name == "shop::counted.ret.n"
                || clang && flags.contains(&"-O2")
        };
        assert!(missing.iter().all(allowed), "{flags:?}: {missing:?}");
    }
}

const RUST: &[&str] = &[
    "t:captures::charge(order.id, order.customer.id, order.customer.name, order.tags, order.note, order.kind, order.pair.0, order.pair.1, amount, who, maybe, text, ret)",
    "t:captures::parse(text)",
    "t:captures::message(k)",
    "t:captures::owned(text)",
    "t:captures::boxed",
    "t:captures::option(ret) fails none",
    "t:captures::kind",
    "t:captures::unit",
    "t:captures::panics(k)",
];

#[test]
fn rust_at_every_optimisation() {
    for flags in [
        &["-g"][..],
        &["-g", "-O"],
        &["-g", "-O", "-Csymbol-mangling-version=v0"],
    ] {
        let program = compile("captures.rs", flags);
        let missing = check(&format!("{flags:?}"), &program, RUST, "captures::");
        // rustc keeps no location of some parameters that it passes in two registers.
        let optimised = flags.contains(&"-O");
        let allowed = |name: &String| optimised && name.starts_with("charge.");
        assert!(missing.iter().all(allowed), "{flags:?}: {missing:?}");
    }
}

#[test]
fn by_position_without_debug_information() {
    let program = compile("captures.c", &["-O2", "-s", "-Wl,--export-dynamic"]);
    let mut target = Target::start(&program, &[]);
    let agent = Agent::start(
        target.pid,
        &[
            "--probe",
            "t:charge(amount=arg2:i64, note=arg3:str, flag=arg5:char, count=arg6:u32, seventh=arg7:i64, ret=ret:i32)",
            "--probe",
            "t:find(k) fails null",
        ],
    );
    assert!(
        agent.said.contains("find: k can't be read"),
        "{}",
        agent.said
    );
    target.go();
    let logged = written(&target.log());
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    let mut spans = report.spans.clone();
    spans.sort_by_key(|span| span.started_at_ns);
    let wanted = logged
        .iter()
        .filter(|call| call["call"] == "charge" || call["call"] == "find");
    for (wanted, span) in wanted.zip(&spans) {
        if wanted["call"] == "find" {
            assert_eq!(span.status == "failed", wanted["ret"] == "null", "{span:?}");
            continue;
        }
        for key in ["amount", "note", "flag", "count", "seventh", "ret"] {
            assert_eq!(span.captured[key], wanted[key], "{key}: {span:?}");
        }
    }
    assert_eq!(spans.len(), 80);
}

#[test]
fn what_cannot_be_read_is_missing_and_counted() {
    let program = compile("captures.c", &["-g", "-O2"]);
    let mut target = Target::start(&program, &[]);
    let agent = Agent::start(target.pid, &["--probe", "t:longest(text, unreadable)"]);
    target.go();
    target.log();
    target.finish();
    let report = agent.finish();
    assert_eq!(report.spans.len(), 40);
    for span in &report.spans {
        assert_eq!(span.captured["text"].as_str().unwrap().len(), 512);
        assert!(span.captured["unreadable"].is_null());
    }
    assert_eq!(report.losses.last().unwrap()["captures"], 40);
}

/// Twelve threads call a function at once: what is read of each call is that call's own.
#[test]
fn many_threads_at_once() {
    for (source, flags, probe, error) in [
        (
            "threads.cpp",
            &["-std=c++17", "-g", "-O2"][..],
            "t:shop::pay(thread, n, who, ret)",
            "std::runtime_error",
        ),
        (
            "threads.rs",
            &["-g", "-O"],
            "t:threads::pay(thread, n, who)",
            "String",
        ),
    ] {
        let program = compile(source, flags);
        let mut target = Target::start(&program, &[]);
        let agent = Agent::start(target.pid, &["--probe", probe]);
        target.go();
        target.log();
        target.finish();
        let report = agent.finish();
        report.assert_nothing_lost();
        let mut seen = std::collections::HashSet::new();
        for span in &report.spans {
            let number = |key: &str| span.captured[key].as_i64().unwrap();
            let (thread, n) = (number("thread"), number("n"));
            let who = format!("thread {thread} call {n}");
            assert_eq!(span.captured["who"], who.as_str(), "{source}: {span:?}");
            assert!(seen.insert((thread, n)), "{source}: twice: {span:?}");
            if n % 10 == 9 {
                assert_eq!(span.error_type.as_deref(), Some(error), "{source}");
                let message = format!("no money in {who}");
                assert_eq!(span.error_message.as_ref(), Some(&message), "{source}");
            } else {
                assert_eq!(span.status, "succeeded", "{source}: {span:?}");
                if probe.contains("ret") {
                    assert_eq!(number("ret"), thread * 100_000 + n, "{source}");
                }
            }
        }
        assert_eq!(seen.len(), 12 * 1000, "{source}");
    }
}
