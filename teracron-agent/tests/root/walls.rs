//! The processes that read what others wrote are shut in, and may die of anything. Needs root.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use crate::support::{
    processes::{kill, status_of},
    *,
};

/// A file with two GiB of code, all of it a hole: reading it takes a while.
fn with_much_code(folder: &Path) -> PathBuf {
    let mut bytes = vec![0u8; 64 + 56];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    let mut put = |at: usize, value: u64, width: usize| {
        bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    };
    // A library for this machine with one header of a segment, and that: loaded, read and executed.
    for (at, value, width) in [
        (16, 3, 2),
        (18, 62, 2),
        (32, 64, 8),
        (54, 56, 2),
        (56, 1, 2),
    ] {
        put(at, value, width);
    }
    for (at, value, width) in [(64, 1, 4), (68, 5, 4), (96, 2 << 30, 8), (104, 2 << 30, 8)] {
        put(at, value, width);
    }
    let path = folder.join("libmuch.so");
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(&bytes).unwrap();
    file.set_len(2 << 30).unwrap();
    path
}

/// Bytes that a process has read.
fn has_read(pid: u32) -> Option<u64> {
    let counts = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let mut lines = counts.lines();
    lines
        .find_map(|line| line.strip_prefix("rchar: "))?
        .parse()
        .ok()
}

/// The process that plans for an agent, once it is shut in and in the midst of the large file.
fn planner_of(agent: &mut Child) -> u32 {
    let own = agent.id().to_string();
    loop {
        assert!(agent.try_wait().unwrap().is_none(), "the agent ended");
        let found = fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let shut_in = status_of(pid, "PPid")? == own
                && status_of(pid, "Seccomp")? == "2"
                && has_read(pid)? > 200 << 20;
            shut_in.then_some(pid)
        });
        if let Some(pid) = found {
            return pid;
        }
        std::thread::yield_now();
    }
}

/// An agent that is about to plan for a target with much code.
fn planning(target: &Target) -> Child {
    agent_command(&["--pid", &target.pid.to_string(), "--probe", "test:work"])
        .args(["--output", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn it_plans_without_any_privilege() {
    let folder = tempfile::tempdir().unwrap();
    let much = with_much_code(folder.path());
    let program = compile("maps.c", &["-O1", "-g"]);
    let mut target = Target::start(&program, &[much.to_str().unwrap()]);
    let mut agent = planning(&target);
    let planner = planner_of(&mut agent);
    kill(planner, libc::SIGSTOP);
    let status = |name: &str| status_of(planner, name).unwrap();
    assert_eq!(status("Uid"), "60998\t60998\t60998\t60998");
    assert_eq!(status("Gid"), "60998\t60998\t60998\t60998");
    assert_eq!(status("Groups"), "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(set), "0000000000000000", "{set}");
    }
    assert_eq!(status("NoNewPrivs"), "1");
    let owner = fs::metadata(format!("/proc/{planner}/environ")).map(|it| it.uid());
    assert_eq!(owner.unwrap(), 0, "others may look into it");
    // What it has open: the socket, its own memory's size, and files of the target that can only be read.
    for entry in fs::read_dir(format!("/proc/{planner}/fd")).unwrap() {
        let entry = entry.unwrap();
        let number = entry.file_name();
        let number = number.to_str().unwrap();
        let leads = fs::read_link(entry.path()).unwrap();
        let leads = leads.to_str().unwrap();
        let information = fs::read_to_string(format!("/proc/{planner}/fdinfo/{number}")).unwrap();
        let flags = information
            .lines()
            .find_map(|line| line.strip_prefix("flags:"));
        let flags = u32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
        let can_write = flags & libc::O_ACCMODE as u32 != libc::O_RDONLY as u32;
        let is_plain = leads.starts_with("socket:") || leads == "/dev/null" || !can_write;
        assert!(is_plain, "{number} leads to {leads}, {flags:o}");
        assert!(!leads.contains("bpf"), "{leads}");
    }
    assert!(
        fs::read(format!("/proc/{planner}/environ"))
            .unwrap()
            .is_empty()
    );
    kill(planner, libc::SIGCONT);
    let said = until(&mut agent, "tracing process");
    assert!(!said.contains("is not read"), "{said}");
    target.go();
    target.line();
    target.finish();
    assert!(agent.wait().unwrap().success());
}

/// What an agent says until it says these words.
fn until(agent: &mut Child, words: &str) -> String {
    let stderr = agent.stderr.as_mut().unwrap();
    let (mut said, mut byte) = (Vec::new(), [0]);
    while !String::from_utf8_lossy(&said).contains(words) {
        let read = stderr.read(&mut byte).unwrap();
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&byte);
    }
    String::from_utf8(said).unwrap()
}

#[test]
fn a_file_that_ends_it_is_named_and_the_rest_is_traced() {
    let folder = tempfile::tempdir().unwrap();
    let much = with_much_code(folder.path());
    let program = compile("maps.c", &["-O1", "-g"]);
    let mut target = Target::start(&program, &[much.to_str().unwrap()]);
    let mut agent = planning(&target);
    kill(planner_of(&mut agent), libc::SIGKILL);
    let said = until(&mut agent, "tracing process");
    assert!(
        said.contains("libmuch.so is not read: the process that reads files for planning was killed by SIGKILL"),
        "{said}"
    );
    for _ in 0..10 {
        target.go();
        target.line();
    }
    target.finish();
    let output = agent.wait_with_output().unwrap();
    let report = Report::parse(
        &String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert_eq!(report.spans.len(), 10);
    report.assert_nothing_lost();
}

/// While one target is traced, planning for what it loads dies: nothing of it is lost.
#[test]
fn what_is_traced_goes_on_where_planning_dies() {
    let folder = tempfile::tempdir().unwrap();
    let much = with_much_code(folder.path());
    let program = compile("maps.c", &["-O1", "-g"]);
    let mut target = Target::start(&program, &[]);
    let mut agent = Agent::start(target.pid, &["--probe", "test:work"]);
    target.say(much.to_str().unwrap());
    target.line();
    kill(planner_of(&mut agent.child), libc::SIGKILL);
    agent.hear("libmuch.so is not read");
    for _ in 0..10 {
        target.go();
        target.line();
    }
    target.finish();
    let report = agent.finish();
    assert_eq!(report.spans.len(), 11);
    report.assert_nothing_lost();
}

#[test]
fn a_stop_ends_it_too() {
    let folder = tempfile::tempdir().unwrap();
    let much = with_much_code(folder.path());
    let program = compile("maps.c", &["-O1", "-g"]);
    let target = Target::start(&program, &[much.to_str().unwrap()]);
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        let mut agent = planning(&target);
        let planner = planner_of(&mut agent);
        kill(agent.id(), signal);
        agent.wait().unwrap();
        // It is nobody's child any more, so nobody but init waits for it.
        while status_of(planner, "State").is_some_and(|state| !state.starts_with('Z')) {
            std::thread::yield_now();
        }
    }
}

/// What the agent itself may do once it traces: each thread of it.
#[test]
fn what_only_the_start_needed_is_given_up() {
    let program = compile("maps.c", &["-O1"]);
    let mut target = Target::start(&program, &[]);
    let agent = Agent::start(target.pid, &["--probe", "test:work"]);
    // CHOWN, KILL, DAC_READ_SEARCH, SETGID, SETUID, SYS_PTRACE, SYS_ADMIN, PERFMON, BPF, CHECKPOINT_RESTORE.
    let most: u64 = [0, 5, 2, 6, 7, 19, 21, 38, 39, 40]
        .iter()
        .fold(0, |mask, capability| mask | 1 << capability);
    // It is said that it traces a moment before.
    let is_less = |tid: &str| {
        let value = |name| status_of(tid.parse().unwrap(), name);
        let set = |name| u64::from_str_radix(&value(name).unwrap_or_default(), 16).unwrap_or(0);
        (set("CapPrm") | set("CapEff")) & !most == 0 && value("NoNewPrivs").as_deref() == Some("1")
    };
    loop {
        let threads = fs::read_dir(format!("/proc/{}/task", agent.child.id())).unwrap();
        let mut names = threads.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        if names.all(|tid| is_less(&tid)) {
            break;
        }
        std::thread::yield_now();
    }
    target.go();
    target.line();
    target.finish();
    let report = agent.finish();
    assert!(
        !report.said.contains("could not be given up"),
        "{}",
        report.said
    );
    assert_eq!(report.spans.len(), 1);
}

/// The process that delivers for an agent.
fn deliverer_of(agent: &mut Child) -> u32 {
    let own = agent.id().to_string();
    loop {
        assert!(agent.try_wait().unwrap().is_none(), "the agent ended");
        let found = fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let is_it = status_of(pid, "PPid")? == own
                && status_of(pid, "Uid")?.starts_with("60999")
                && status_of(pid, "NoNewPrivs")? == "1";
            is_it.then_some(pid)
        });
        if let Some(pid) = found {
            return pid;
        }
        std::thread::yield_now();
    }
}

/// Delivers, is killed in the midst of it, and goes on: what came in is shipped, or lost and counted.
#[test]
fn it_delivers_without_any_privilege_and_may_die() {
    let service = service::Service::start();
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let run = folder.path().join("run");
    let program = compile("maps.c", &["-O1"]);
    let mut target = Target::start(&program, &[]);
    let pid = target.pid.to_string();
    let mut command = agent_command(&["--pid", &pid, "--probe", "test:work"]);
    command
        .args(service.flags())
        .args(["--spool-dir", spool.to_str().unwrap()])
        .args(["--run-dir", run.to_str().unwrap()])
        .args(["--trace-flush-interval", "1", "--output", "json"])
        .env("TERACRON_STRANGER", "1")
        .stdout(Stdio::piped());
    let (mut agent, stderr, said) = spawn_until(command, "tracing process");
    let mut calls = |count| {
        for _ in 0..count {
            target.go();
            target.line();
        }
    };
    calls(50);
    // Booked, too: what it has sent and not yet booked counts as lost when it is killed.
    loop {
        let id = agent.id().to_string();
        let args = ["status", "--json", "--agent", &id, "--run-dir"];
        let said = agent_command(&args).arg(&run).output().unwrap().stdout;
        let status: serde_json::Value = serde_json::from_slice(&said).unwrap();
        if status["wire"]["totals"]["spans"]["shipped"] == 50 {
            break;
        }
    }
    let first = deliverer_of(&mut agent);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status_of(first, set).unwrap(), "0000000000000000", "{set}");
    }
    assert_eq!(status_of(first, "Groups").unwrap(), "");
    let owner = fs::metadata(format!("/proc/{first}/environ")).map(|it| it.uid());
    assert_eq!(owner.unwrap(), 0, "others may look into it");
    let variables = fs::read(format!("/proc/{first}/environ")).unwrap();
    assert!(!String::from_utf8_lossy(&variables).contains("TERACRON"));
    kill(first, libc::SIGKILL);
    calls(50);
    let second = loop {
        let now = deliverer_of(&mut agent);
        if now != first {
            break now;
        }
        std::thread::yield_now();
    };
    calls(50);
    // The last ones are those of the second process, whatever the first had in memory.
    target.finish();
    let output = agent.wait_with_output().unwrap();
    assert!(output.status.success());
    let mut rest = String::new();
    { stderr }.read_to_string(&mut rest).unwrap();
    let said = said + &rest;
    assert!(second != first);
    assert!(
        said.contains("the process that delivers was killed by SIGKILL"),
        "{said}"
    );
    assert!(said.contains("another is started"), "{said}");
    // What was under way when it was killed may come twice.
    let received = service.received();
    let shipped: BTreeSet<String> = received
        .iter()
        .flat_map(service::Received::spans)
        .map(|span| span["span_id"].to_string())
        .collect();
    let shipped = shipped.len();
    let line = said
        .lines()
        .find(|line| line.contains("spans 150 received"))
        .expect(&said);
    assert!(line.contains(&format!("= {shipped} shipped")), "{line}");
    if shipped < 150 {
        let lost = 150 - shipped;
        assert!(
            line.contains(&format!("(delivering ended {lost})")),
            "{line}"
        );
    }
    assert_eq!(fs::metadata(&spool).unwrap().uid(), 0);
    let project = spool.join(service::slug());
    assert_eq!(fs::metadata(project).unwrap().uid(), 60_999);
}
