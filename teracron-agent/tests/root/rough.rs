//! What happens in production and should not matter: bad input, targets and agents that are killed,
//! replaced files, other namespaces, many probes, attaching again and again.

use std::{
    io::{BufRead, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use crate::support::*;
use planner::probe::ProbeTable;
use teracron_agent::{cli::Cli, run::prepare, shut_in};
use teracron_common::Counter;
use tracer::kernel::{Features, Options, Scope, Session};

/// Runs the agent to its end: exit code and what it said.
fn agent(args: &[&str]) -> (i32, String, String) {
    let output = agent_command(args).stdin(Stdio::null()).output().unwrap();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn refused(args: &[&str], code: i32, words: &str) {
    let (got, stdout, said) = agent(args);
    assert_eq!(got, code, "{args:?}: {said}");
    assert!(said.contains(words), "{args:?}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    assert!(stdout.is_empty(), "{stdout}");
}

#[test]
fn wrong_usage_is_explained() {
    refused(&["--pid", "1"], 2, "no probe");
    refused(&["--probe", "a:b"], 2, "no target");
    refused(&["--pid", "1", "--probe", "pay(order"], 2, "parenthesis");
    refused(
        &["--pid", "1", "--probe", "a:b\x1b[2J"],
        2,
        "control characters",
    );
    refused(
        &["--pid", "1", "--probe", "a:b", "--frobnicate"],
        2,
        "frobnicate",
    );
    refused(
        &["--pid", &std::process::id().to_string(), "--probe", "a:"],
        2,
        "empty",
    );
}

#[test]
fn pids_that_can_not_be_traced() {
    refused(&["--pid", "4194304", "--probe", "a:b"], 4, "no process");
    refused(&["--pid", "0", "--probe", "a:b"], 2, "not a process id");
    // The kernel's thread that makes the others.
    refused(&["--pid", "2", "--probe", "a:b"], 4, "kernel thread");
    let mut zombie = Command::new("/bin/true").spawn().unwrap();
    while !std::fs::read_to_string(format!("/proc/{}/stat", zombie.id()))
        .unwrap()
        .contains(") Z ")
    {
        std::thread::yield_now();
    }
    refused(
        &["--pid", &zombie.id().to_string(), "--probe", "a:b"],
        4,
        "zombie",
    );
    zombie.wait().unwrap();
}

#[test]
fn a_workflow_is_the_programs_name_where_none_is_given() {
    let program = compile("leader.c", &["-O2", "-pthread"]);
    let name = program.file_name().unwrap().to_str().unwrap();
    for (probe, workflow) in [("work", name), ("w:work", "w")] {
        let mut target = Target::start(&program, &["stays"]);
        let agent = Agent::start(target.pid, &["--probe", probe]);
        target.go();
        assert_eq!(target.log(), ["300"]);
        target.finish();
        let report = agent.finish();
        report.assert_nothing_lost();
        assert_eq!(report.spans.len(), 300);
        assert!(report.spans.iter().all(|span| span.workflow == workflow));
    }
}

#[test]
fn names_that_are_not_there() {
    let program = compile("calls.c", &["-O1"]);
    let target = Target::start(&program, &[]);
    let pid = target.pid.to_string();
    refused(
        &["--pid", &pid, "--probe", "a:switchin"],
        4,
        "did you mean switching?",
    );
    refused(
        &["--pid", &pid, "--probe", "a:zzzzzzz"],
        4,
        "no such function",
    );
    refused(
        &["--pid", &pid, "--probe", "a:zzz*"],
        4,
        "no function matches",
    );
    refused(
        &["--pid", &pid, "--probe", "a:leaf@libc.so.7"],
        4,
        "no file called libc.so.7",
    );
    refused(&["--pid", &pid, "--probe", "a:0x3"], 4, "no such function");
    refused(
        &["--pid", &pid, "--probe", "a:strlen@libc.so.6"],
        4,
        "ifunc",
    );
    refused(
        &["--exe", "/etc/passwd", "--probe", "a:b"],
        4,
        "not a usable ELF file",
    );
    refused(
        &["--exe", "/nonexistent", "--probe", "a:b"],
        4,
        "No such file",
    );
}

#[test]
fn unsafe_return_probes_are_refused() {
    let program = compile("throws.cpp", &["-O2"]);
    let target = Target::start(&program, &[]);
    let pid = target.pid.to_string();
    refused(
        &[
            "--pid",
            &pid,
            "--probe",
            "a:shop::deep",
            "--return-probe",
            "uretprobe",
        ],
        2,
        "could kill the target",
    );
}

#[test]
fn a_pattern_that_matches_too_much_has_a_limit() {
    let mut source = String::from("#include \"log.h\"\n");
    for number in 0..10_000 {
        source.push_str(&format!(
            "int many_{number}(int x) {{ return x + {number}; }}\n"
        ));
    }
    source.push_str("int main(void) { log_start(); log_finish(); return 0; }\n");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join("many.c");
    std::fs::write(&path, source).unwrap();
    let include = concat!("-I", env!("CARGO_MANIFEST_DIR"), "/tests/targets");
    let program = compile(path.to_str().unwrap(), &["-O0", include]);
    let mut target = Target::start(&program, &[]);
    let pid = target.pid.to_string();
    refused(&["--pid", &pid, "--probe", "a:many_*"], 2, "5000");
    // A tenth of them at once is fine.
    let agent = Agent::start(target.pid, &["--probe", "a:many_1???"]);
    assert!(
        agent.said.contains("1,000 functions at 2,000 sites"),
        "{}",
        agent.said
    );
    target.go();
    target.log();
    assert!(target.finish().success());
    agent.finish().assert_nothing_lost();
}

#[test]
fn libraries_and_clones() {
    let library = compile("library.c", &["-O2", "-shared", "-fPIC"]);
    let folder = library.parent().unwrap();
    let renamed = folder.join("libpay.so.1.2");
    copy(&library, &renamed);
    let run_path = format!("-Wl,-rpath,{}", folder.display());
    let program = compile_with(
        "uses_library.c",
        &["-O2", &run_path],
        &[renamed.to_str().unwrap()],
    );
    trace_and_compare(
        "by file name",
        &program,
        &[],
        &["--probe", "a:pay*@libpay.so.1.2"],
    );
    trace_and_compare(
        "by name",
        &program,
        &[],
        &["--probe", "a:pay", "--probe", "b:pay_inner"],
    );
    for level in ["-O2", "-O3"] {
        let program = compile("clones.c", &[level]);
        let report = trace_and_compare(
            level,
            &program,
            &[],
            &[
                "--probe",
                "a:scaled",
                "--probe",
                "a:amount_of",
                "--probe",
                "a:halved",
                "--probe",
                "a:parted",
                "--probe",
                "a:calls_parted_*",
            ],
        );
        assert!(
            report
                .spans
                .iter()
                .all(|span| !span.operation.contains('.'))
        );
    }
}

#[test]
fn a_replaced_binary_is_traced_by_what_runs() {
    let program = compile("leaves.c", &["-O2"]);
    let mut target = Target::start(&program, &["longjmp"]);
    // As an update does: the name now means another file.
    std::fs::remove_file(&program).unwrap();
    copy("/bin/true", &program);
    let agent = Agent::start(
        target.pid,
        &["--probe", "test:jump_*", "--probe", "test:leaf"],
    );
    target.go();
    let log = target.log();
    target.finish();
    let report = agent.finish();
    assert_same("replaced", &report.trees(), &log_trees(&log));
}

#[test]
fn another_mount_and_pid_namespace() {
    let program = compile("leaves.c", &["-O2", "-static"]);
    let root = tempfile::tempdir().unwrap();
    std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    copy(&program, root.path().join("service"));
    std::fs::create_dir(root.path().join("proc")).unwrap();
    // The same path outside is another file.
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--pid", "--fork", "--kill-child", "--root"])
        .arg(root.path())
        .args(["/service", "longjmp"]);
    let mut target = Target::start_command(command);
    assert_eq!(target.pid, 1, "it sees itself as the first process");
    let pid = child_of(target.child.id());
    let agent = Agent::start(pid, &["--probe", "test:jump_*", "--probe", "test:leaf"]);
    target.go();
    let log = target.log();
    target.finish();
    let report = agent.finish();
    assert!(report.spans.iter().all(|span| span.pid == pid));
    let traced: Vec<String> = report.trees().into_values().flatten().collect();
    let logged: Vec<String> = log_trees(&log).into_values().flatten().collect();
    assert_eq!(traced, logged);
}

fn child_of(parent: u32) -> u32 {
    std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

#[test]
fn every_process_of_an_executable() {
    let program = compile("leaves.c", &["-O2"]);
    let path = program.to_str().unwrap();
    let mut before = Target::start(&program, &["longjmp"]);
    let agent = Agent::start_with(&[
        "--output",
        "json",
        "--exe",
        path,
        "--probe",
        "test:jump_*",
        "--probe",
        "test:leaf",
    ]);
    before.go();
    let mut logs = before.log();
    before.finish();
    for _ in 0..3 {
        let mut later = Target::start(&program, &["longjmp"]);
        // The program's own calls are seen from the first on; the C library is watched a moment later.
        await_watchers(later.pid, "libc.so");
        later.go();
        logs.extend(later.log());
        later.finish();
    }
    agent.interrupt();
    let report = agent.finish();
    assert_same("exe", &report.trees(), &log_trees(&logs));
    report.assert_nothing_lost();
}

/// A target that runs at full speed for ever.
fn endless() -> Target {
    let program = compile("leaves.c", &["-O2"]);
    let mut target = Target::start(&program, &["endless"]);
    target.go();
    target.expect("running");
    target
}

/// Most rounds share one loaded kernel side: the verifier's seconds are not what is tested.
#[test]
fn attached_and_detached_two_hundred_times() {
    if processes::done_alone("rough::attached_and_detached_two_hundred_times") {
        return;
    }
    let mut target = endless();
    let pid = target.pid.to_string();
    for modes in [&[][..], UNSAFE] {
        let base = ["teracron-agent", "--pid", &pid, "--probe", "a:fast"];
        let cli = Cli::read(base.iter().chain(modes)).unwrap();
        let features = Features::detect();
        shut_in::use_agent(env!("CARGO_BIN_EXE_teracron-agent").into());
        let prepared = prepare(
            &cli.settings().unwrap().targets,
            features,
            ProbeTable::default(),
        )
        .unwrap();
        let options = Options {
            follow: true,
            debug: false,
            span_memory: true,
            sample_rate: 1.0,
        };
        let mut session = Session::load(features, options).unwrap();
        for round in 0..90 {
            for plan in prepared.plans() {
                session
                    .attach(&plan.module, &plan.sites, Scope::OneProcess(target.pid))
                    .unwrap();
            }
            session.add_target(target.pid).unwrap();
            session.detach();
            assert!(target.is_running(), "{modes:?}, round {round}");
        }
        let counters = session.counters().unwrap();
        assert!(counters.get(Counter::Sent) > 0, "{counters:?}");
        let whole = [
            &base[1..],
            modes,
            &["--output", "none", "--duration", "0.01"],
        ]
        .concat();
        for round in 0..10 {
            let (code, _, said) = agent(&whole);
            assert_eq!(code, 0, "{round}: {said}");
            assert!(target.is_running(), "{modes:?}, whole agent {round}");
        }
    }
}

#[test]
fn a_killed_agent_leaves_nothing_behind() {
    let mut target = endless();
    for mode in [&[][..], UNSAFE, &[], UNSAFE] {
        let mut agent = Agent::start(target.pid, &[&["--probe", "a:fast"], mode].concat());
        agent.child.kill().unwrap();
        agent.child.wait().unwrap();
        assert!(target.is_running());
        // No breakpoint is left: the code in memory is the file's again.
        let left = breakpoints(target.pid);
        assert_eq!(left, 0, "{mode:?}");
    }
}

/// Breakpoints in the main program's code, beyond those that the file has itself.
fn breakpoints(pid: u32) -> usize {
    use std::os::unix::fs::FileExt as _;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let line = maps
        .lines()
        .find(|line| line.contains("r-xp") && line.contains("leaves-"))
        .unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let (start, end) = words[0].split_once('-').unwrap();
    let (start, end) = (
        u64::from_str_radix(start, 16).unwrap(),
        u64::from_str_radix(end, 16).unwrap(),
    );
    let offset = u64::from_str_radix(words[2], 16).unwrap();
    let mut memory = vec![0; (end - start) as usize];
    std::fs::File::open(format!("/proc/{pid}/mem"))
        .unwrap()
        .read_exact_at(&mut memory, start)
        .unwrap();
    let file = std::fs::read(words[5]).unwrap();
    let code = &file[offset as usize..];
    memory
        .iter()
        .zip(code)
        .filter(|(here, there)| here != there)
        .count()
}

#[test]
fn losses_add_up() {
    assert!(check_losses(&["-O2"], 300_000) > 0);
}

#[test]
fn a_reader_that_goes_away_ends_the_agent() {
    let target = endless();
    let pid = target.pid.to_string();
    let mut agent = agent_command(&[
        "--pid", &pid, "--probe", "a:fast", "--output", "json", "--quiet",
    ])
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let mut line = String::new();
    BufReader::new(agent.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.starts_with('{'));
    let status = agent.wait().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn damaged_files() {
    let folder = tempfile::tempdir().unwrap();
    let real = std::fs::read("/bin/true").unwrap();
    let mut damaged: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"\x7fELF".to_vec(),
        real[..200].to_vec(),
        real[..real.len() / 2].to_vec(),
    ];
    for place in [0x28usize, 0x3a, 0x3c, 0x3e] {
        let mut file = real.clone();
        file[place] = 0xff;
        file[place + 1] = 0xff;
        damaged.push(file);
    }
    for (number, bytes) in damaged.iter().enumerate() {
        let path = folder.path().join(format!("damaged-{number}"));
        std::fs::File::create(&path)
            .unwrap()
            .write_all(bytes)
            .unwrap();
        let (code, _, said) = agent(&["symbols", "--file", path.to_str().unwrap()]);
        assert!(code == 4 || code == 0, "{number}: {code} {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn symbols_lists_what_it_would_cost() {
    let program = compile("calls.c", &["-O2"]);
    let (code, stdout, said) = agent(&[
        "symbols",
        "--file",
        program.to_str().unwrap(),
        "*leaf*",
        "--json",
    ]);
    assert_eq!(code, 0, "{said}");
    let rows: Vec<serde_json::Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["language"], "c");
    assert!(
        rows.iter()
            .all(|row| row["probeable"] == true && row["plan"]["entry"]["cost"].is_string())
    );
    let (code, stdout, _) = agent(&["symbols", "--file", program.to_str().unwrap()]);
    assert_eq!(code, 0);
    assert!(stdout.contains("switching"));
}

#[test]
fn doctor_is_content_here() {
    let (code, stdout, said) = agent(&["doctor", "--json"]);
    assert_eq!(code, 0, "{stdout} {said}");
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["ok"], true);
}

#[test]
fn old_kernels_without_loops_take_the_programs() {
    use tracer::kernel::{Features, Options, Session};

    // 5.15 has no `bpf_loop`: the verifier then looks at each turn of each loop, up to its million steps.
    let features = Features {
        loops: false,
        ..Features::detect()
    };
    let options = Options {
        follow: true,
        debug: false,
        span_memory: true,
        sample_rate: 1.0,
    };
    let mut session = Session::load(features, options).expect("the kernel takes what always runs");
    session
        .load_all()
        .expect("the kernel takes the other programs");
}
