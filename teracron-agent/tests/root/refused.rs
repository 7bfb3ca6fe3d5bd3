//! Targets that map what would cost too much to be read, and stops at any moment of the start. Needs root.

use std::{
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
};

use crate::support::{processes::status_of, *};

/// An ELF file of a few kilobytes whose symbol table is 6 GiB of a hole.
fn with_a_hole(folder: &Path) -> PathBuf {
    let put = |bytes: &mut [u8], at: usize, value: u64, width: usize| {
        bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    };
    let mut bytes = vec![0u8; 64 * 4];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    for (at, value, width) in [
        (16, 3, 2),
        (18, 62, 2),
        (40, 64, 8),
        (58, 64, 2),
        (60, 3, 2),
    ] {
        put(&mut bytes, at, value, width);
    }
    // The first section is none; then symbols (2), whose names (3) are the next.
    let (symbols, names) = (64 + 64, 64 + 128);
    for (at, value, width) in [
        (symbols + 4, 2, 4),
        (symbols + 24, 4096, 8),
        (symbols + 32, 6 << 30, 8),
        (symbols + 40, 2, 4),
        (names + 4, 3, 4),
        (names + 24, 4096, 8),
        (names + 32, 1 << 20, 8),
    ] {
        put(&mut bytes, at, value, width);
    }
    let path = folder.join("libmem.so");
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&bytes).unwrap();
    file.set_len(7 << 30).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    path
}

const SENTENCE: &str =
    "libmem.so is not read: its symbol table is larger than 96 MiB, which is the most that is read";

fn calls(target: &mut Target, count: usize) {
    for _ in 0..count {
        target.go();
        target.line();
    }
}

#[test]
fn a_file_that_costs_too_much_is_named_and_the_rest_is_traced() {
    let folder = tempfile::tempdir().unwrap();
    let library = with_a_hole(folder.path());
    let program = compile("maps.c", &["-O1", "-g"]);
    let mut target = Target::start(&program, &[library.to_str().unwrap()]);
    let agent = Agent::start(target.pid, &["--probe", "test:work(n)"]);
    assert!(agent.said.contains(SENTENCE), "{}", agent.said);
    calls(&mut target, 10);
    target.finish();
    let report = agent.finish();
    assert_eq!(report.spans.len(), 10);
    report.assert_nothing_lost();
}

#[test]
fn so_is_one_that_is_mapped_while_it_is_traced() {
    let folder = tempfile::tempdir().unwrap();
    let library = with_a_hole(folder.path());
    let program = compile("maps.c", &["-O1", "-g"]);
    let mut target = Target::start(&program, &[]);
    let mut agent = Agent::start(target.pid, &["--probe", "test:work"]);
    calls(&mut target, 10);
    target.say(library.to_str().unwrap());
    target.line();
    agent.hear(SENTENCE);
    calls(&mut target, 10);
    target.finish();
    let report = agent.finish();
    assert_eq!(report.spans.len(), 21);
    report.assert_nothing_lost();
    assert_eq!(report.said.matches(SENTENCE).count(), 1);
}

#[test]
fn a_process_with_too_many_files_uses_up_no_descriptors() {
    let program = compile("maps.c", &["-O1"]);
    let mut target = Target::start(&program, &["5000"]);
    let agent = Agent::start(target.pid, &["--probe", "test:work"]);
    assert!(
        agent.said.contains("no more than these are looked at"),
        "{}",
        agent.said
    );
    let open = std::fs::read_dir(format!("/proc/{}/fd", agent.child.id()))
        .unwrap()
        .count();
    assert!(open < 2048 + 300, "{open} descriptors");
    calls(&mut target, 10);
    target.finish();
    assert_eq!(agent.finish().spans.len(), 10);
}

/// Signals that a process has handlers for.
fn is_heard(pid: u32, signal: i32) -> bool {
    let mask = status_of(pid, "SigCgt").map_or(0, |mask| u64::from_str_radix(&mask, 16).unwrap());
    mask >> (signal - 1) & 1 == 1
}

#[test]
fn a_stop_while_it_starts_ends_it() {
    let program = compile("maps.c", &["-O1"]);
    let target = Target::start(&program, &[]);
    let pid = target.pid.to_string();
    for (signal, code, name) in [
        (libc::SIGTERM, 143, "SIGTERM"),
        (libc::SIGINT, 130, "SIGINT"),
    ] {
        let mut agent = agent_command(&["--pid", &pid, "--probe", "test:work"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        while !is_heard(agent.id(), signal) {
            assert!(agent.try_wait().unwrap().is_none(), "it ended");
            std::thread::yield_now();
        }
        // SAFETY: our own child, not yet waited for.
        unsafe { libc::kill(agent.id() as i32, signal) };
        let status = agent.wait().unwrap();
        let mut said = String::new();
        agent
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert_eq!(status.code(), Some(code), "{status}: {said}");
        assert!(
            said.contains(&format!("stopped by {name} while starting")),
            "{said}"
        );
    }
}
