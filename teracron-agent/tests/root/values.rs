//! What is told of calls is right or missing with its reason: generated programs, whose true arguments and results are
//! known, by every compiler at every optimisation.
//!
//! `VALUES` is how many functions there are in all (440), `VALUES_SEED` another seed, `VALUES_ONLY` words of the compilers' command
//! lines that are tried; with `VALUES_KEEP` programs and what is true of them are kept. A long proof: `VALUES=10000 cargo test -p teracron-agent --test root -- values:: --nocapture`.

mod program;

use std::{collections::BTreeMap, path::PathBuf, process::Command};

use crate::support::*;
use program::{Language, Program, program};
use serde_json::Value;

/// Functions of a program.
const FUNCTIONS: usize = 40;

const CONFIGURATIONS: &[(Language, &[&str])] = &[
    (Language::C, &["gcc", "-O0"]),
    (Language::C, &["gcc", "-O1"]),
    (Language::C, &["gcc", "-O2"]),
    (Language::C, &["gcc", "-O3"]),
    (Language::C, &["gcc", "-Os"]),
    (Language::C, &["gcc", "-O2", "-flto"]),
    (Language::C, &["clang", "-O0"]),
    (Language::C, &["clang", "-O2"]),
    (Language::C, &["clang", "-O3"]),
    (Language::C, &["clang", "-Os"]),
    (Language::Cpp, &["g++", "-std=c++17", "-O0"]),
    (Language::Cpp, &["g++", "-std=c++17", "-O1"]),
    (Language::Cpp, &["g++", "-std=c++17", "-O2"]),
    (Language::Cpp, &["g++", "-std=c++17", "-O3"]),
    (Language::Cpp, &["clang++", "-std=c++17", "-O0"]),
    (Language::Cpp, &["clang++", "-std=c++17", "-O1"]),
    (Language::Cpp, &["clang++", "-std=c++17", "-O2"]),
    (Language::Cpp, &["clang++", "-std=c++17", "-O3"]),
    (Language::Rust, &["rustc"]),
    (Language::Rust, &["rustc", "-Copt-level=1"]),
    (Language::Rust, &["rustc", "-Copt-level=2"]),
    (Language::Rust, &["rustc", "-Copt-level=3"]),
];

/// What became of values: each is one of a function, of all its calls.
#[derive(Default)]
struct Tally {
    right: usize,
    missing: usize,
    wrong: Vec<String>,
    /// Functions of which no call was seen: inlined.
    unseen: usize,
    reasons: BTreeMap<String, usize>,
}

fn built(program: &Program, language: Language, flags: &[&str], name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let ending = match language {
        Language::C => "c",
        Language::Cpp => "cpp",
        Language::Rust => "rs",
    };
    let (source, out) = (folder.join(format!("{name}.{ending}")), folder.join(name));
    std::fs::write(&source, &program.source).unwrap();
    let mut command = Command::new(flags[0]);
    command.args(&flags[1..]).arg("-g").arg("-w");
    if language == Language::Rust {
        command = Command::new("rustc");
        command.args(&flags[1..]).args(["-g", "--edition=2021"]);
    }
    let output = command.arg("-o").arg(&out).arg(&source).output().unwrap();
    assert!(
        output.status.success(),
        "{source:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    out
}

fn traced(program: &Program, path: &std::path::Path, tally: &mut Tally) {
    let arguments: Vec<&str> = program
        .probes
        .iter()
        .flat_map(|probe| ["--probe", probe])
        .collect();
    // What was inlined everywhere is no function, which ends a run: those are found out first.
    let mut target = Target::start(path, &[]);
    let agent = Agent::start(target.pid, &arguments);
    target.go();
    target.log();
    assert!(target.finish().success());
    let report = agent.finish();
    let mut spans = report.spans.clone();
    spans.sort_by_key(|span| span.started_at_ns);
    // (function, key) → what became of it.
    let mut found: BTreeMap<(usize, &str), Result<bool, String>> = BTreeMap::new();
    let mut marked: Option<usize> = None;
    let mut seen = std::collections::BTreeSet::new();
    for span in &spans {
        if span.operation.ends_with("mark") {
            let id = span.captured["id"]
                .as_u64()
                .unwrap_or_else(|| panic!("{path:?}: {}", report.said));
            marked = Some(id as usize);
            continue;
        }
        let call = &program.calls[marked
            .take()
            .unwrap_or_else(|| panic!("{path:?}: {span:?}"))];
        seen.insert(call.function);
        for (key, wanted) in &call.captured {
            let got = span.captured.get(key).unwrap_or(&Value::Null);
            let entry = found.entry((call.function, key)).or_insert(Ok(true));
            let verdict = match got {
                Value::Null => Ok(false),
                got if got == wanted => Ok(true),
                // Numbers that JSON's readers may not hold are texts.
                Value::String(text) if text.parse().ok().is_some_and(|it: u64| *wanted == it) => {
                    Ok(true)
                }
                got => Err(format!(
                    "{path:?}: {}: {key} is told as {got}, but {wanted}",
                    span.operation
                )),
            };
            match (&entry, &verdict) {
                (Err(_), _) => {}
                (_, Err(_)) | (Ok(true), _) => *entry = verdict,
                (Ok(false), Ok(_)) => {}
            }
        }
        if span.status == "failed" && !call.fails {
            tally.wrong.push(format!(
                "{path:?}: {} did not fail: {span:?}",
                span.operation
            ));
        }
    }
    let functions: std::collections::BTreeSet<usize> =
        program.calls.iter().map(|call| call.function).collect();
    tally.unseen += functions.difference(&seen).count();
    if std::env::var_os("VALUES_KEEP").is_some() {
        keep(program, path, &found);
    }
    let mut missing = 0;
    let mut absent = Vec::new();
    for ((function, key), verdict) in found {
        match verdict {
            Ok(true) => tally.right += 1,
            Ok(false) => {
                missing += 1;
                absent.push((function, key.to_owned()));
            }
            Err(wrong) => tally.wrong.push(wrong),
        }
    }
    tally.missing += missing;
    let mut told = 0;
    let mut is_all = true;
    for line in report.said.lines() {
        if let Some((_, reason)) = line.split_once(" can't be read: ") {
            // The same of several functions is one line: `(3 functions: f1; f2; f3)`.
            let many = reason.rsplit_once(" functions: ").and_then(|(head, _)| {
                let number = head.rsplit_once('(')?.1.parse::<usize>().ok()?;
                Some((head.rsplit_once(" (")?.0, number))
            });
            let (reason, count) = many.unwrap_or((reason, 1));
            told += count;
            *tally.reasons.entry(reason.to_owned()).or_default() += count;
        }
        is_all &= !line.contains("more that can't be read");
    }
    // Pages that were not in memory are counted, each with its call.
    let losses = report.losses.last();
    let unread = losses.map_or(0, |loss| loss["captures"].as_u64().unwrap_or(0)) as usize;
    if is_all && told + unread < missing {
        tally.wrong.push(format!(
            "{path:?}: {missing} are missing, {told} told, {unread} not in memory: {}",
            report.said
        ));
    }
    if unread == 0 {
        assert_planned(program, path, &absent);
    }
}

/// Asks for the plan of one function of what is missing: it has the reason of each.
fn assert_planned(program: &Program, path: &std::path::Path, absent: &[(usize, String)]) {
    let Some((function, _)) = absent.first() else {
        return;
    };
    let calls = [
        format!("f{function}("),
        format!("f{function}<int>("),
        format!("S{function}::f("),
    ];
    let mut probes = program.probes.iter();
    let probe = probes.find(|probe| {
        let name = probe.trim_start_matches("t:").trim_start_matches("*::");
        calls.iter().any(|call| name.starts_with(call.as_str()))
    });
    let probe = probe.unwrap_or_else(|| panic!("{path:?}: f{function}"));
    let file = path.to_str().unwrap();
    let output = agent_command(&["symbols", "--file", file, "--plan", probe])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    for (_, key) in absent.iter().filter(|(other, _)| other == function) {
        assert!(
            said.contains(&format!("{key} can't be read: ")),
            "{path:?}: {probe}: {key} is missing without a word: {said}"
        );
    }
}

/// Writes down what is true and what was told, beside the program: to compare with what a debugger says.
fn keep(
    program: &Program,
    path: &std::path::Path,
    found: &BTreeMap<(usize, &str), Result<bool, String>>,
) {
    let lines = program.calls.iter().enumerate().map(|(id, call)| {
        let told: BTreeMap<&str, bool> = call
            .captured
            .iter()
            .map(|(key, _)| {
                let verdict = found.get(&(call.function, key.as_str()));
                (key.as_str(), verdict == Some(&Ok(true)))
            })
            .collect();
        let captured: BTreeMap<&str, &Value> = call
            .captured
            .iter()
            .map(|(key, value)| (key.as_str(), value))
            .collect();
        serde_json::json!({ "id": id, "function": call.function, "captured": captured, "told": told })
            .to_string()
            + "\n"
    });
    std::fs::write(path.with_extension("truth"), lines.collect::<String>()).unwrap();
}

/// Functions that there are to probe: the others were inlined.
fn keep_existing(program: &mut Program, path: &std::path::Path) {
    let output = Command::new("nm").arg("-C").arg(path).output().unwrap();
    let symbols = String::from_utf8_lossy(&output.stdout).into_owned();
    program.probes.retain(|probe| {
        let name = probe
            .trim_start_matches("t:")
            .trim_start_matches("*::")
            .trim_start_matches('*');
        let name = name.split('(').next().unwrap();
        symbols.lines().any(|line| {
            let symbol = line.splitn(3, ' ').last().unwrap_or_default();
            let symbol = symbol.rsplit_once("::h").map_or(symbol, |(name, _)| name);
            let symbol = symbol
                .split('(')
                .next()
                .unwrap()
                .split(" [clone")
                .next()
                .unwrap();
            let symbol = symbol.rsplit(' ').next().unwrap();
            let symbol = symbol.split('.').next().unwrap();
            symbol == name || symbol.ends_with(&format!("::{name}"))
        })
    });
}

#[test]
fn generated_functions() {
    let number = |name: &str, usual: usize| {
        std::env::var(name).map_or(usual, |value| value.parse().unwrap())
    };
    let functions = number("VALUES", 440);
    let seed = number("VALUES_SEED", 14) as u64;
    let only = std::env::var("VALUES_ONLY").unwrap_or_default();
    let per_program = FUNCTIONS.min(functions.div_ceil(CONFIGURATIONS.len()));
    let rounds = functions.div_ceil(per_program * CONFIGURATIONS.len());
    let mut all: BTreeMap<String, Tally> = BTreeMap::new();
    let mut wrong = Vec::new();
    for round in 0..rounds {
        for (place, (language, flags)) in CONFIGURATIONS.iter().enumerate() {
            let name = flags.join(" ");
            if !name.contains(&only) {
                continue;
            }
            let seed = seed + (round * CONFIGURATIONS.len() + place) as u64;
            let mut program = program(*language, seed, per_program, (round + place) % 3 != 0);
            let path = built(
                &program,
                *language,
                flags,
                &format!("values-{}-{seed}", std::process::id()),
            );
            keep_existing(&mut program, &path);
            let tally = all.entry(name).or_default();
            traced(&program, &path, tally);
            wrong.append(&mut tally.wrong.clone());
            if tally.wrong.is_empty() && std::env::var_os("VALUES_KEEP").is_none() {
                let _ = std::fs::remove_file(&path);
            }
            tally.wrong.clear();
        }
    }
    for (name, tally) in &all {
        println!(
            "{name}: {} right, {} missing, {} functions inlined",
            tally.right, tally.missing, tally.unseen
        );
        for (reason, count) in &tally.reasons {
            println!("    {count} {reason}");
        }
    }
    let (right, missing) = all.values().fold((0, 0), |(right, missing), tally| {
        (right + tally.right, missing + tally.missing)
    });
    println!("{right} right, {missing} missing, {} wrong", wrong.len());
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(right > missing, "{right} right, {missing} missing");
}
