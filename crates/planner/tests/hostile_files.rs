//! Files that were made to hurt whoever reads them: about 2,000, each structure's size, count and offset at its
//! limits, and bombs of all kinds. They are read in a child that may have 300 MB of address space and a bounded time
//! for each; it must answer something for each file. No privileges needed.

#![allow(unreachable_pub)] // nothing is outside

#[path = "hostile_files/cases.rs"]
mod cases;
#[path = "hostile_files/elf.rs"]
mod elf;

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{fs::FileExt as _, process::CommandExt as _},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use cases::Case;
use image::{
    debug::{DebugInfo, Lines, frame_rows},
    foreign::{Budget, FILE_LIMITS, FileLimits},
    symbol::{Elf, Starts},
};
use planner::{find::Functions, probe_spec::FunctionPattern};

/// Bytes of address space of the child: the agent's own limit is what the whole may take with all its children.
const ADDRESS_SPACE: u64 = 300 << 20;
/// How long one file may be read here.
const TIME: Duration = Duration::from_secs(2);
/// How long the child may take for a file, with everything around it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Set in the child.
const CHILD: &str = "TERACRON_TEST_HOSTILE_CHILD";
/// Children that read at the same time.
const PARTS: usize = 2;

/// Reads all that the agent reads of a file; says how that ended.
fn read(file: &File) -> String {
    let room = Budget::default().limits().memory;
    let budget = Budget::with(FileLimits {
        time: TIME,
        memory: room,
        ..FILE_LIMITS
    });
    let elf = match Elf::read_within(file, budget) {
        Ok(elf) => elf,
        Err(error) => return error.to_string(),
    };
    let mut said = String::new();
    if let Err(error) = image::symbol::unpacked(file, &elf) {
        said = error.to_string();
    }
    let functions = Functions::of(&elf);
    let all = functions.matching(&FunctionPattern::Glob("*".to_owned()));
    let left = elf.budget.take_not_demangled();
    if left > 0 {
        said = format!("{left} names were not demangled");
    }
    let starts = Starts::of(&elf, file);
    for function in all.iter().take(20) {
        let _ = function.code(&starts);
        let _ = functions.containing(function.address);
        let _ = frame_rows(file, function.address);
    }
    match DebugInfo::open_within(file, None, &elf.budget) {
        Ok(Some(debug)) => {
            for function in all.iter().take(5) {
                let _ = debug.inlined_places(function.address);
                match debug.function(function.address) {
                    Ok(Some(found)) => {
                        for parameter in &found.parameters {
                            let _ = found.home(parameter, function.address);
                            let _ = parameter.type_ref.map(|it| found.type_of(it).is_ok());
                        }
                    }
                    Ok(None) => {}
                    Err(error) => said = error.to_string(),
                }
            }
            if let Err(error) = debug.inlined_functions(|_| true) {
                said = error.to_string();
            }
            let lines = Lines {
                file: "a.c",
                first: 1,
                last: None,
            };
            if let Err(error) = debug.lines(&lines, None) {
                said = error.to_string();
            }
        }
        Ok(None) => {}
        Err(error) => said = error.to_string(),
    }
    if said.is_empty() {
        format!("read, {} functions", elf.symbols.len())
    } else {
        said
    }
}

/// The child: reads the files that it is told, and answers a line for each.
fn child() {
    for path in std::io::stdin().lines().map_while(Result::ok) {
        let file = File::open(path).unwrap();
        println!("-{}", read(&file).replace('\n', " "));
    }
    println!("done");
}

fn limited() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "no_file_hurts",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: only system calls between fork and exec.
    unsafe {
        command.pre_exec(|| {
            for (what, most) in [
                (libc::RLIMIT_AS, ADDRESS_SPACE),
                (libc::RLIMIT_CPU, 120),
                (libc::RLIMIT_CORE, 0),
            ] {
                let limit = libc::rlimit {
                    rlim_cur: most,
                    rlim_max: most,
                };
                libc::setrlimit(what, &raw const limit);
            }
            Ok(())
        })
    };
    command
}

#[test]
fn no_file_hurts() {
    if std::env::var_os(CHILD).is_some() {
        return child();
    }
    let began = Instant::now();
    let children: Vec<_> = (0..PARTS)
        .map(|part| std::thread::spawn(move || watch(part)))
        .collect();
    let results: Vec<(String, String, Duration)> = children
        .into_iter()
        .flat_map(|child| child.join().unwrap())
        .collect();
    let cases: Vec<Case> = cases::all().collect();
    assert_eq!(results.len(), cases.len());
    assert!(cases.len() > 2000, "{}", cases.len());
    // What is said is what was too much.
    for case in cases.iter().filter(|case| !case.says.is_empty()) {
        let (_, said, _) = results
            .iter()
            .find(|(name, ..)| *name == case.name)
            .unwrap();
        assert!(said.contains(case.says), "{}: {said}", case.name);
    }
    let (slowest, said, took) = results.iter().max_by_key(|(.., took)| *took).unwrap();
    println!(
        "{} files in {:?}; slowest {slowest}: {took:?} ({said})",
        results.len(),
        began.elapsed()
    );
}

/// Has a child read every second case; answers each case's name, what was said of it, and how long that took.
fn watch(part: usize) -> Vec<(String, String, Duration)> {
    let mut child = limited().spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let (send, lines) = std::sync::mpsc::channel();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            // The test harness writes lines of its own, and into the first answer.
            let answer = line.split_once('-').map(|(_, answer)| answer.to_owned());
            let is_answer = line.starts_with('-') || line.contains("... -");
            if let Some(answer) = answer.filter(|_| is_answer)
                && send.send(answer).is_err()
            {
                break;
            }
        }
    });
    let mut results = Vec::new();
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    for case in cases::all().skip(part).step_by(PARTS) {
        let name = case.name.clone();
        let file = File::create(&path).unwrap();
        {
            let (pieces, length) = case.make();
            for (at, bytes) in &pieces {
                file.write_all_at(bytes, *at).unwrap();
            }
            file.set_len(length).unwrap();
        }
        let since = Instant::now();
        let told = writeln!(stdin, "{}", path.display());
        match lines.recv_timeout(PATIENCE) {
            Ok(said) if told.is_ok() => results.push((name, said, since.elapsed())),
            other => {
                let _ = child.kill();
                let mut stderr = String::new();
                let _ = child.stderr.take().unwrap().read_to_string(&mut stderr);
                panic!("{name}: {other:?}, {:?}\n{stderr}", child.wait());
            }
        }
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
    results
}
