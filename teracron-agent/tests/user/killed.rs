//! SIGKILL at any instant: what is sealed arrives at least once, whole, and in order. Needs no root.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::support::service::*;
use model::notes::Notes;
use teracron_agent::{cli::Cli, run::Shipping, shut_in};
use wire::{Fields, Limits, Span, Status, Value};

/// How often it is killed, unless `TERACRON_KILLS` says otherwise (`cargo xtask soak`).
const RUNS: u64 = 100;
/// Spans of a batch.
const BATCH: u64 = 5;
/// Batches under way at a time: so far may one overtake another.
const WINDOW: usize = 4;

fn span(life: u64, number: u64) -> Span {
    let mut metadata = Fields::default();
    for (key, value) in [("life", life), ("number", number)] {
        metadata.set(key, Value::Whole(value as i64), Limits::METADATA);
    }
    Span {
        trace_id: [life + 1, number],
        span_id: [1, 1],
        parent_id: [0, 0],
        workflow: "killed".into(),
        operation: "at any instant".into(),
        status: Status::Succeeded,
        started_at: 1,
        duration_ms: 1.0,
        error_type: None,
        error_message: None,
        metadata,
        captured_params: Fields::default(),
    }
}

/// Not a test: the process that is killed. It packs and ships as the agent does, and says how many of
/// its spans are in the spool or further: these must arrive.
#[test]
#[ignore = "run by the other test, as a process of its own"]
fn the_one_that_is_killed() {
    let Ok(line) = std::env::var("TERACRON_TEST_LINE") else {
        return;
    };
    let life: u64 = std::env::var("TERACRON_TEST_LIFE")
        .unwrap()
        .parse()
        .unwrap();
    let spans: u64 = std::env::var("TERACRON_TEST_SPANS")
        .unwrap()
        .parse()
        .unwrap();
    let cli = Cli::read(line.split('\n')).unwrap();
    let settings = cli.settings().unwrap();
    let account = settings.account.account.as_ref().unwrap();
    shut_in::use_agent(env!("CARGO_BIN_EXE_teracron-agent").into());
    let shipping = Shipping::start(&settings, account, Notes::default()).unwrap();
    let ledger = shipping.wire().ledger;
    let intake = shipping.intake();
    let mut stdout = std::io::stdout();
    let mut number = 0;
    loop {
        if number < spans {
            intake.spans((number..number + BATCH).map(|n| span(life, n)).collect());
            number += BATCH;
        }
        let now = ledger.snapshot().spans;
        let safe = now.received - now.pending;
        // One write, so that a line is whole or not there.
        stdout
            .write_all(format!("safe {safe}\n").as_bytes())
            .unwrap();
        stdout.flush().unwrap();
        if number >= spans && now.pending == 0 && now.spooled == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    drop(intake);
    shipping.finish();
}

/// Starts it, kills it after a while, answers how many of its spans must arrive.
fn one_life(life: u64, spans: u64, line: &str, log: &Path, until: Option<Duration>) -> u64 {
    let errors = std::fs::File::options()
        .append(true)
        .create(true)
        .open(log)
        .unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "killed::the_one_that_is_killed",
            "--nocapture",
        ])
        .env("TERACRON_TEST_LINE", line)
        .env("TERACRON_TEST_LIFE", life.to_string())
        .env("TERACRON_TEST_SPANS", spans.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    // The test harness speaks first.
    while !said.contains("safe ") {
        assert_ne!(stdout.read_line(&mut said).unwrap(), 0, "{said}");
    }
    if let Some(until) = until {
        // Not to wait for something: the instant is the test's input.
        std::thread::sleep(until);
        child.kill().unwrap();
    }
    stdout.read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.success(), until.is_none(), "{said}");
    said.lines()
        .filter_map(|line| line.strip_prefix("safe ")?.parse().ok())
        .max()
        .unwrap()
}

#[test]
fn a_hundred_times() {
    let runs = std::env::var("TERACRON_KILLS").map_or(RUNS, |runs| runs.parse().unwrap());
    // Slow enough that entries wait.
    let service = Service::answering(|_| Answer {
        delay: Duration::from_millis(2),
        ..Answer::status(202)
    });
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let spool = folder.path().join("spool");
    let mut words = vec!["teracron-agent".to_owned()];
    words.extend(service.flags());
    words.extend(
        [
            "--spool-dir",
            spool.to_str().unwrap(),
            "--trace-batch-size",
            &BATCH.to_string(),
        ]
        .map(str::to_owned),
    );
    let line = words.join("\n");
    let mut random = proptest::test_runner::TestRng::deterministic_rng(
        proptest::test_runner::RngAlgorithm::ChaCha,
    );
    let mut safe = BTreeMap::new();
    for life in 0..runs {
        use proptest::prelude::Rng as _;
        let until = Duration::from_micros(u64::from(random.next_u32() % 100_000));
        safe.insert(life, one_life(life, u64::MAX, &line, &log, Some(until)));
    }
    // The last one lives until everything is delivered.
    safe.insert(runs, one_life(runs, 50, &line, &log, None));

    let mut requests = service.received();
    requests.sort_by_key(|request| request.place);
    let mut arrived: BTreeSet<(u64, u64)> = BTreeSet::new();
    let mut order: Vec<(u64, u64)> = Vec::new();
    for request in &requests {
        // A torn envelope would not open.
        let spans = request.spans();
        let ids: Vec<(u64, u64)> = spans
            .iter()
            .map(|span| {
                let number = |key: &str| span["metadata"][key].as_u64().unwrap();
                (number("life"), number("number"))
            })
            .collect();
        // A batch is whole: consecutive spans of one life.
        for (place, id) in ids.iter().enumerate() {
            assert_eq!(*id, (ids[0].0, ids[0].1 + place as u64));
        }
        if arrived.insert(ids[0]) {
            order.push(ids[0]);
        }
        arrived.extend(ids);
    }
    let mut promised = 0;
    for (life, count) in &safe {
        promised += count;
        for number in 0..*count {
            assert!(
                arrived.contains(&(*life, number)),
                "span {number} of life {life} was sealed and is lost"
            );
        }
    }
    let sorted: Vec<_> = BTreeSet::from_iter(order.iter().copied())
        .into_iter()
        .collect();
    for (place, id) in order.iter().enumerate() {
        let wanted = sorted.binary_search(id).unwrap();
        assert!(
            place.abs_diff(wanted) < WINDOW,
            "batch {id:?} came at place {place}, not {wanted}"
        );
    }
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(!said.contains("set aside"), "{said}");
    println!(
        "{runs} kills: {promised} spans sealed for sure, {} arrived, {} batches of {} sent twice",
        arrived.len(),
        requests.len() - order.len(),
        order.len()
    );
    // Or nothing was tested.
    assert!(promised > 5 * runs, "{promised}");
}
