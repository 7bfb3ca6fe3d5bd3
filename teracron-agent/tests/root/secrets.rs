//! What passed through is nowhere: not in the spool, not in a core dump of the agent or of the process that delivers, not
//! in the log.

use std::{path::Path, process::Command};

use crate::support::{service::*, *};

/// Whether `needle` is in `hay`.
fn contains(hay: &[u8], needle: &[u8]) -> bool {
    let mut rest = hay;
    // The first byte at the speed of the library, the rest by hand.
    while let Some(place) = rest.iter().position(|byte| *byte == needle[0]) {
        rest = &rest[place..];
        if rest.starts_with(needle) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

/// A core dump of a running process, as the debugger makes it.
fn core_dump(pid: u32, folder: &Path) -> Vec<u8> {
    let prefix = folder.join("core");
    let output = Command::new("gcore")
        .arg("-o")
        .arg(&prefix)
        .arg(pid.to_string())
        .output()
        .unwrap_or_else(|error| panic!("gdb's gcore is needed: {error}"));
    let path = folder.join(format!("core.{pid}"));
    let core = std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    std::fs::remove_file(path).unwrap();
    assert!(core.len() > 1 << 20);
    core
}

const CANARY: &[u8] = b"canary.1";

#[test]
fn nothing_of_it_stays() {
    let service = Service::start();
    let port = service.address.port();
    let flags = service.flags();
    drop(service);
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let run_dir = folder.path().join("run");
    let program = compile("canary.cpp", &["-O1"]);
    assert!(!contains(&std::fs::read(&program).unwrap(), CANARY));
    let mut target = Target::start(&program, &[]);
    let mut args: Vec<&str> = flags.iter().map(String::as_str).collect();
    let pid = target.pid.to_string();
    let config = folder.path().join("agent.toml");
    std::fs::write(&config, "scrub_hash_key = 'canary.key.of.hashes'\n").unwrap();
    args.extend([
        "--config",
        config.to_str().unwrap(),
        "--pid",
        &pid,
        "--spool-dir",
        spool.to_str().unwrap(),
        "--run-dir",
        run_dir.to_str().unwrap(),
        // Two batches of spans are sealed, and the rest of the spans waits.
        "--trace-batch-size",
        "64",
        "--trace-flush-interval",
        "300",
        "--probe",
        "test:charge",
        "--debug",
    ]);
    let mut agent = Agent::start_with(&args);
    target.go();
    target.log();
    let waits = |agent: &Agent, wanted: &dyn Fn(u64, u64) -> bool| loop {
        let status = agent.status(&run_dir);
        let number = |name: &str| status["wire"]["totals"]["spans"][name].as_u64().unwrap();
        if wanted(number("spooled"), number("pending")) && number("received") == 200 {
            return;
        }
    };
    waits(&agent, &|spooled, pending| (spooled, pending) == (192, 8));
    // The search finds what is there: eight spans are not sealed yet.
    let delivering = agent.delivering(&run_dir);
    let before = core_dump(delivering, folder.path());
    assert!(contains(&before, CANARY), "the dump or the search is wrong");
    assert!(contains(&before, slug().as_bytes()));
    // Only ciphertext is on disk.
    let entries: Vec<Vec<u8>> = std::fs::read_dir(spool.join(slug()).join("0"))
        .unwrap()
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .collect();
    assert!(entries.len() >= 3);
    let service = Service::on(port, &[&tokio_rustls::rustls::version::TLS13], |_| {
        Answer::status(202)
    });
    // Rules that are read anew flush what waits.
    agent.hang_up();
    agent.hear("nothing changed");
    let spans = service.wait_for_spans(200);
    assert!(spans.iter().all(|span| {
        let message = span["error_message"].as_str().unwrap();
        message.as_bytes().starts_with(CANARY) && message.ends_with(".of-a-customer")
    }));
    waits(&agent, &|spooled, pending| (spooled, pending) == (0, 0));
    let after = core_dump(delivering, folder.path());
    assert!(contains(&after, slug().as_bytes()));
    // The thread that handed the spans over may not have run since then: it wipes them when it does.
    let mut of_agent = core_dump(agent.child.id(), folder.path());
    for _ in 0..5 {
        if contains(&of_agent, CANARY) {
            of_agent = core_dump(agent.child.id(), folder.path());
        }
    }
    assert!(contains(&of_agent, slug().as_bytes()));
    // Who needs the key has it, and nobody else.
    let key = b"canary.key.of.hashes";
    assert!(contains(&after, key) && !contains(&of_agent, key));
    target.go();
    target.finish();
    let said = agent.finish().said;
    assert!(said.contains("DEBUG"), "{said}");

    let mut secrets: Vec<(String, Vec<u8>)> = vec![
        ("a text".to_owned(), CANARY.to_vec()),
        ("an error's end".to_owned(), b".of-a-customer".to_vec()),
    ];
    for request in service.received() {
        let (key, _) = open(&request.envelope).unwrap();
        // Half a key would be too much.
        secrets.push(("a key's first half".to_owned(), key[..16].to_vec()));
        secrets.push(("a key's second half".to_owned(), key[16..].to_vec()));
    }
    assert!(secrets.len() >= 2 + 2 * 4);
    for (what, secret) in &secrets {
        assert!(!contains(&after, secret), "{what} is in the core dump");
        assert!(!contains(&of_agent, secret), "{what} is in the agent's");
        assert!(!contains(said.as_bytes(), secret), "{what} is in the log");
        for entry in &entries {
            assert!(!contains(entry, secret), "{what} is in the spool");
        }
    }
}

/// All bytes of the kernel side's map of captures in the making.
fn kernel_captures() -> Vec<u8> {
    let output = Command::new("bpftool")
        .args(["map", "dump", "name", "CAPTURES"])
        .output()
        .unwrap_or_else(|error| panic!("bpftool is needed: {error}"));
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter(|word| word.len() == 2)
        .filter_map(|word| u8::from_str_radix(word, 16).ok())
        .collect()
}

#[test]
fn neighbours_of_what_is_captured_are_never_read() {
    let service = Service::start();
    let flags = service.flags();
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let run_dir = folder.path().join("run");
    // Stands before, between and behind everything that is captured, in other arguments, on the stack.
    let neighbour: &[u8] = b"CANARYCANARY";
    let program = compile("captures.c", &["-g", "-O0"]);
    assert!(!contains(&std::fs::read(&program).unwrap(), neighbour));
    let mut target = Target::start(&program, &[]);
    let pid = target.pid.to_string();
    let mut args: Vec<&str> = flags.iter().map(String::as_str).collect();
    args.extend([
        "--pid",
        &pid,
        "--output",
        "json",
        "--spool-dir",
        spool.to_str().unwrap(),
        "--run-dir",
        run_dir.to_str().unwrap(),
        "--trace-batch-size",
        "30",
        "--trace-flush-interval",
        "300",
        "--probe",
        "t:charge(order.id, order.customer.id, order->customer->name, order.customer.code, note, amount, ret)",
        "--probe",
        "t:longest(text)",
        "--debug",
    ]);
    let agent = Agent::start_with(&args);
    target.go();
    let log = target.log();
    assert!(!log.is_empty());
    // 80 spans: two batches are sent, 20 spans wait.
    let spans = service.wait_for_spans(60);
    let kernel = kernel_captures();
    let dump = core_dump(agent.delivering(&run_dir), folder.path());
    let of_agent = core_dump(agent.child.id(), folder.path());
    target.finish();
    let report = agent.finish();
    assert_eq!(report.spans.len(), 80);
    // The search finds what was asked for.
    let asked: &[u8] = b"Lovelace";
    assert!(contains(&kernel, &[b'a'; 100]) && contains(&dump, asked));
    let wire: String = spans.iter().map(ToString::to_string).collect();
    assert!(wire.contains("Lovelace") && wire.contains("AB12"));
    for (what, bytes) in [
        ("the kernel's memory", &kernel[..]),
        ("the memory of the process that delivers", &dump),
        ("the agent's memory", &of_agent),
        ("the wire", wire.as_bytes()),
        ("the log", report.said.as_bytes()),
    ] {
        assert!(!contains(bytes, neighbour), "a neighbour is in {what}");
    }
}
