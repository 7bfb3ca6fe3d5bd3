//! The whole agent, from a call in a running program to the service, and back with what went wrong.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Stdio,
};

use crate::support::{service::*, *};
use serde_json::{Value, json};

#[test]
fn what_is_shown_is_what_arrives_and_the_totals_add_up() {
    let service = Service::start();
    let place = Place::new(&service);
    let program = compile("throws.cpp", &["-O2"]);
    let mut target = Target::start(&program, &[]);
    let events = ["--trace-emit-events", "true"];
    let agent = Agent::start(target.pid, &place.with(&[THROWS, &events].concat()));
    target.go();
    let log = target.log();
    assert!(!log.is_empty());
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    let arrived: BTreeMap<String, Value> = service
        .wait_for_spans(report.spans.len())
        .into_iter()
        .map(|span| (span["span_id"].as_str().unwrap().to_owned(), span))
        .collect();
    assert_eq!(arrived.len(), report.spans.len());
    let mut failed = 0;
    for shown in &report.spans {
        let span = &arrived[&shown.id];
        let wanted = json!({
            "trace_id": shown.trace,
            "span_id": shown.id,
            "parent_span_id": shown.parent,
            "workflow": shown.workflow,
            "operation": shown.operation,
            "status": shown.status,
            "started_at": shown.started_at,
            "duration_ms": shown.duration_ns as f64 / 1e6,
            "error_type": shown.error_type,
            "error_message": shown.error_message,
            "metadata": shown.metadata,
            "captured_params": null,
        });
        assert_eq!(*span, wanted);
        failed += usize::from(shown.status == "failed");
    }
    assert!(failed > 100);
    let count = |path: &str| {
        let requests = service.received();
        requests
            .iter()
            .filter(|request| request.path == path)
            .count()
    };
    assert!(count("/v1/events") > 0);
    // The samples that were shown, in one batch: protobuf, field by field.
    assert!(!report.samples.is_empty());
    let requests = service.received();
    let sent: Vec<u64> = requests
        .iter()
        .filter(|request| request.path == "/api/ingest")
        .flat_map(|request| timestamps(&open(&request.envelope).unwrap().1))
        .collect();
    let shown: Vec<u64> = report
        .samples
        .iter()
        .map(|sample| sample["timestamp"].as_u64().unwrap())
        .collect();
    assert_eq!(sent, shown);
    let spans = report.spans.len();
    let line = format!(
        "spans {} received = {} shipped",
        grouped(spans),
        grouped(spans)
    );
    assert!(report.said.contains(&line), "{line}: {}", report.said);
    // Nothing waits any more.
    assert_eq!(sealed(&place.spool()), 0);
}

fn grouped(number: usize) -> String {
    model::text::grouped(number as u64)
}

fn sealed(spool: &Path) -> usize {
    let entries = std::fs::read_dir(spool.join("0")).unwrap();
    entries
        .filter(|entry| {
            let path = entry.as_ref().unwrap().path();
            path.extension().is_some_and(|ending| ending == "sealed")
        })
        .count()
}

/// Field 1 of each field 1: the samples' time stamps.
fn timestamps(batch: &[u8]) -> Vec<u64> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (first, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut rest = batch;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (tag, length) = (varint(&mut rest), varint(&mut rest) as usize);
        let (mut entry, after) = rest.split_at(length);
        rest = after;
        if tag == 0x0a {
            assert_eq!(varint(&mut entry), 0x08);
            found.push(varint(&mut entry));
        }
    }
    found
}

#[test]
fn memory_alone_needs_no_probe() {
    let service = Service::start();
    let place = Place::new(&service);
    let program = compile("leaves.c", &["-O2"]);
    let target = Target::start(&program, &["endless"]);
    let pid = target.pid.to_string();
    let args = place.with(&["--pid", &pid, "--output", "json", "--interval", "5"]);
    let mut child = agent_command(&args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let samples: Vec<Value> = (0..2)
        .map(|_| serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap())
        .collect();
    for (place, sample) in samples.iter().enumerate() {
        assert_eq!(sample["type"], "memory");
        assert_eq!(sample["pid"], target.pid);
        assert_eq!(sample["runtime_version"], "gcc 12.2.0");
        let number = |key: &str| sample[key].as_u64().unwrap();
        assert!(number("heap_total") >= number("rss") && number("rss") >= number("heap_used"));
        assert_eq!(sample["cpu_usage_pct"].is_null(), place == 0);
    }
    // The target's end ends the agent, which sends what it has.
    drop(target);
    assert!(child.wait().unwrap().success());
    let requests = service.wait(|requests| !requests.is_empty());
    assert_eq!(requests[0].path, "/api/ingest");
    let sent = timestamps(&open(&requests[0].envelope).unwrap().1);
    assert_eq!(sent[0], samples[0]["timestamp"].as_u64().unwrap());
}

#[test]
fn what_a_stop_leaves_goes_out_first_at_the_next_start() {
    let service = Service::start();
    let place = Place::new(&service);
    let port = service.address.port();
    drop(service);
    let program = compile("leaves.c", &["-O2"]);
    let run = |calls: &str, patience: &str| {
        let mut target = Target::start(&program, &["burst", calls]);
        let args = ["--probe", "a:fast", "--shutdown-timeout", patience];
        let agent = Agent::start(target.pid, &place.with(&args));
        target.go();
        target.log();
        target.finish();
        agent.finish()
    };
    let report = run("950", "1");
    assert_eq!(report.spans.len(), 950);
    let said = &report.said;
    assert!(said.contains("not delivered: cannot connect"), "{said}");
    assert!(
        said.contains("they wait in") && said.contains("950 in the spool"),
        "{said}"
    );
    // Ten of spans, one of samples; for nobody else to read.
    assert_eq!(sealed(&place.spool()), 11);
    for path in [place.spool(), place.spool().join("0")] {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{path:?}");
    }
    for entry in std::fs::read_dir(place.spool().join("0")).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let service = Service::on(port, &[&tokio_rustls::rustls::version::TLS13], |_| {
        Answer::status(202)
    });
    let later = run("5", "10");
    assert!(
        later.said.contains("11 sealed batches of an earlier run"),
        "{}",
        later.said
    );
    assert!(
        later
            .said
            .contains("5 received + 950 left over = 955 shipped"),
        "{}",
        later.said
    );
    let arrived = service.wait_for_spans(955);
    let ids =
        |spans: &[Span]| -> Vec<String> { spans.iter().map(|span| span.id.clone()).collect() };
    let first: Vec<String> = arrived[..950]
        .iter()
        .map(|span| span["span_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        std::collections::BTreeSet::from_iter(first),
        std::collections::BTreeSet::from_iter(ids(&report.spans))
    );
    assert_eq!(sealed(&place.spool()), 0);
}

#[test]
fn what_does_not_fit_is_counted_by_cause() {
    let service = Service::answering(|_| Answer::status(503));
    let place = Place::new(&service);
    let program = compile("steady.c", &["-O2"]);
    let mut target = Target::start(&program, &[]);
    let args = [
        "--probe",
        "a:outer",
        "--spool-max",
        "64KiB",
        "--trace-batch-size",
        "10",
        "--shutdown-timeout",
        "0",
        "--stats-interval",
        "1",
    ];
    let mut agent = Agent::start(target.pid, &place.with(&args));
    target.go();
    target.expect("running");
    let full = place.until(&agent, |status| {
        // The first answer can come later than the spool is full.
        status["wire"]["totals"]["spans"]["dropped"]["spool_full"].as_u64() > Some(200)
            && status["wire"]["service"]["failing"].is_string()
    });
    books(&full, "spans");
    assert!(full["wire"]["spool"]["bytes"].as_u64().unwrap() <= 64 << 10);
    assert!(
        full["wire"]["service"]["failing"]
            .as_str()
            .unwrap()
            .contains("503")
    );
    let said = agent.hear("spool full");
    assert!(
        said.contains("calls ") && said.contains("in the spool"),
        "{said}"
    );
    // For people.
    let output = agent_command(&["status", "--run-dir", place.path("run").to_str().unwrap()])
        .output()
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("service   failing: 503"), "{shown}");
    target.go();
    target.log();
    target.finish();
    let report = agent.finish();
    let last = report
        .said
        .lines()
        .find(|line| line.contains("agent: spans "))
        .unwrap();
    assert!(
        last.contains(&format!("spans {} received", grouped(report.spans.len()))),
        "{last}"
    );
    // No agent, no answer.
    let output = agent_command(&["status", "--run-dir", place.path("run").to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4));
}

#[test]
fn a_rejected_batch_is_told_of_and_the_rest_goes_on() {
    let service = Service::answering(|request| {
        let status = if request.path == "/v1/traces" {
            403
        } else {
            202
        };
        Answer {
            body: b"project suspended".to_vec(),
            ..Answer::status(status)
        }
    });
    let place = Place::new(&service);
    let program = compile("leaves.c", &["-O2"]);
    let mut target = Target::start(&program, &["burst", "300"]);
    let agent = Agent::start(target.pid, &place.with(&["--probe", "a:fast"]));
    target.go();
    target.log();
    target.finish();
    let said = agent.finish().said;
    for words in [
        "were rejected: 403",
        "project suspended",
        "300 dropped (rejected 300)",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(
        said.contains("memory samples 1 received = 1 shipped"),
        "{said}"
    );
    assert!(place.spool().join("0/dead").is_dir());
}

/// Nobody reads standard output: the wire does not notice.
#[test]
fn a_blocked_standard_output_does_not_hold_up_the_wire() {
    let service = Service::start();
    let place = Place::new(&service);
    let program = compile("leaves.c", &["-O2"]);
    let mut target = Target::start(&program, &["burst", "30000"]);
    let pid = target.pid.to_string();
    let args = place.with(&["--output", "json", "--probe", "a:fast", "--pid", &pid]);
    let (mut child, mut stderr, mut said) = spawn_until(agent_command(&args), "Ctrl-C ends");
    target.go();
    target.log();
    // A pipe holds 64 KiB; the spans are 15 MB of lines.
    service.wait_for_spans(30_000);
    target.finish();
    drop(child.stdout.take());
    stderr.read_to_string(&mut said).unwrap();
    child.wait().unwrap();
}

/// A scrubber that hangs takes the data of its spans with it, and nothing else.
#[test]
fn a_scrubber_that_hangs_is_counted_and_blocks_nobody() {
    let service = Service::start();
    let place = Place::new(&service);
    let config = place.folder.path().join("agent.toml");
    let mut file = std::fs::File::create(&config).unwrap();
    file.write_all(b"scrubber = [\"/bin/sleep\", \"1000\"]\nscrubber_timeout = 50\n")
        .unwrap();
    let program = compile("leaves.c", &["-O2"]);
    let mut target = Target::start(&program, &["burst", "500"]);
    let args = ["--config", config.to_str().unwrap(), "--probe", "a:fast"];
    let agent = Agent::start(target.pid, &place.with(&args));
    target.go();
    target.log();
    let status = place.until(&agent, |status| books(status, "spans")[4] == 500);
    assert_eq!(status["wire"]["totals"]["scrub_failures"], 500);
    assert_eq!(status["wire"]["totals"]["scrubber_fails"], true);
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    // Told when it begins, once, and what it cost at the end.
    let said = &report.said;
    let fails = "the scrubber fails: no answer in 50 ms";
    assert_eq!(said.matches(fails).count(), 1, "{said}");
    assert!(
        said.contains("500 spans without metadata, parameters and error message"),
        "{said}"
    );
    assert!(report.spans.iter().all(|span| span.metadata.is_object()));
    let arrived = service.wait_for_spans(500);
    assert!(arrived.iter().all(|span| span["metadata"].is_null()));
}

#[test]
fn killed_agents_harm_nobody_and_lose_nothing_that_is_sealed() {
    let service = Service::start();
    let place = Place::new(&service);
    let program = compile("steady.c", &["-O2"]);
    let mut target = Target::start(&program, &[]);
    target.go();
    target.expect("running");
    let args = ["--probe", "a:outer", "--trace-batch-size", "5"];
    for round in 0..8u64 {
        let mut agent = Agent::start(target.pid, &place.with(&args));
        place.until(&agent, |status| books(status, "spans")[4] > 20 * round);
        agent.child.kill().unwrap();
        agent.child.wait().unwrap();
        assert!(target.is_running());
    }
    let agent = Agent::start(target.pid, &place.with(&args));
    target.go();
    target.log();
    target.finish();
    let said = agent.finish().said;
    assert!(
        !said.contains("set aside") && !said.contains("in the spool"),
        "{said}"
    );
    assert_eq!(sealed(&place.spool()), 0);
    // Every envelope opens.
    for request in service.received() {
        open(&request.envelope).unwrap();
    }
}

#[test]
fn proxies_are_used_where_the_environment_says_so() {
    let service = Service::start();
    let place = Place::new(&service);
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy_port = proxy.local_addr().unwrap().port();
    let address = service.address;
    let (asked, requests) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for client in proxy.incoming() {
            let mut client = client.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if client.read(&mut byte).unwrap() == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            asked.send(String::from_utf8(head).unwrap()).unwrap();
            let mut service = std::net::TcpStream::connect(address).unwrap();
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), service.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            std::thread::spawn(move || std::io::copy(&mut service, &mut client));
        }
    });
    let program = compile("leaves.c", &["-O2"]);
    // No name server knows this one: only the proxy can lead there.
    let domain = format!("ingest.test:{}", address.port());
    for (no_proxy, host) in [("", domain.as_str()), ("localhost", &service.domain())] {
        let target = Target::start(&program, &["endless"]);
        let pid = target.pid.to_string();
        let before = service.received().len();
        let direct = service.domain();
        let mut args = place.with(&["--pid", &pid, "--stats-interval", "1"]);
        for arg in args.iter_mut().filter(|arg| **arg == direct) {
            *arg = host;
        }
        let mut command = agent_command(&args);
        command
            .env("HTTPS_PROXY", format!("http://127.0.0.1:{proxy_port}"))
            .env("NO_PROXY", no_proxy);
        let (mut child, mut stderr, mut said) = spawn_until(command, "samples 1 received");
        // The sample of the start is sent at the end.
        drop(target);
        stderr.read_to_string(&mut said).unwrap();
        assert!(child.wait().unwrap().success(), "{said}");
        assert_eq!(service.received().len(), before + 1, "{said}");
    }
    let requests: Vec<String> = requests.try_iter().collect();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert!(
        requests[0].starts_with(&format!("CONNECT {domain} ")),
        "{requests:?}"
    );
}
