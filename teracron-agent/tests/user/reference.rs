//! The reference client is the judge: `teracron-sdk` 0.6.1 from PyPI, in a virtual environment.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::LazyLock,
};

use crate::support::service::slug;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use serde_json::{Value as Json, json};
use teracron_common::Sampling;
use wire::{
    Event, Fields, Limits, MAX_ERROR_MESSAGE, Sample, Span, Status, Value, cut, events_body, hex,
    metrics_body, spans_body,
};
use wire::{
    api_key::parse_public_key,
    seal::{Plaintext, Sealer},
};

const PACKAGE: &str = "teracron-sdk==0.6.1";

/// Python with the reference client, installed once.
static PYTHON: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("teracron-sdk-0.6.1");
    let done = folder.join("installed");
    if !done.exists() {
        let run = |command: &mut Command| {
            let status = command
                .status()
                .unwrap_or_else(|error| panic!("{command:?}: {error}"));
            assert!(status.success(), "{command:?}: {status}");
        };
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&folder));
        run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", PACKAGE]));
        std::fs::write(done, "").unwrap();
    }
    folder.join("bin/python")
});

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/user/reference")
        .join(name)
}

struct Judge {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Judge {
    fn new() -> Self {
        let mut child = Command::new(&*PYTHON)
            .arg(script("judge.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            questions: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    fn ask(&mut self, question: &Json) -> Vec<u8> {
        writeln!(self.questions, "{question}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert!(!answer.is_empty(), "the judge gave up on {question}");
        STANDARD.decode(answer.trim()).unwrap()
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A value as JSON has it; the judge must read the very same number.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>().prop_filter("finite", |number| number.is_finite()),
        (0u64..10_000_000_000).prop_map(|nanoseconds| nanoseconds as f64 / 1e6),
    ]
}

fn field() -> impl Strategy<Value = (String, Json)> {
    let value = prop_oneof![
        ".{0,40}".prop_map(Json::from),
        "[a-zé😀]{500,1100}".prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        number().prop_map(Json::from),
        any::<bool>().prop_map(Json::from),
    ];
    (".{0,12}|[a-z]{120,135}", value)
}

fn fields(given: &[(String, Json)], limits: Limits) -> (Json, Fields) {
    let mut fields = Fields::default();
    let mut object = serde_json::Map::new();
    for (key, value) in given {
        // serde_json sorts keys, and which of more than 32 stay is told by their order.
        if object.len() < 32 {
            object.insert(key.clone(), value.clone());
        }
    }
    for (key, value) in &object {
        let value = match value {
            Json::Bool(flag) => Value::Flag(*flag),
            Json::String(text) => Value::Text(text.clone()),
            Json::Number(number) => match number.as_i64() {
                Some(whole) => Value::Whole(whole),
                None => Value::Number(number.as_f64().unwrap()),
            },
            _ => unreachable!(),
        };
        fields.set(key.clone(), value, limits);
    }
    (Json::Object(object), fields)
}

prop_compose! {
    /// A span as it is told to the judge, and as we have it.
    fn span()(
        ids in any::<[u64; 6]>(),
        root: bool,
        names in (".{1,30}", ".{1,60}"),
        status in 0usize..3,
        started_at in 0u64..4_000_000_000_000,
        duration_ms in 0u64..10_000_000_000_000,
        error in proptest::option::of((".{1,30}", "(.|\n){1,1200}")),
        metadata in proptest::collection::vec(field(), 0..40),
        captured in proptest::collection::vec(field(), 0..5),
    ) -> (Json, Span) {
        let duration_ms = duration_ms as f64 / 1e6;
        let status = [Status::Started, Status::Succeeded, Status::Failed][status];
        let error = error.filter(|_| status == Status::Failed);
        let (metadata, our_metadata) = fields(&metadata, Limits::METADATA);
        let (captured, our_captured) = fields(&captured, Limits::CAPTURED);
        let parent = if root { [0, 0] } else { [ids[4] | 1, ids[5]] };
        let (error_type, error_message) = error.unzip();
        let told = json!({
            "trace_id": hex([ids[0], ids[1]]),
            "span_id": hex([ids[2], ids[3]]),
            "parent_span_id": (!root).then(|| hex(parent)),
            "workflow": names.0,
            "operation": names.1,
            "status": status.name(),
            "started_at": started_at,
            "duration_ms": duration_ms,
            "error_type": error_type,
            "error_message": error_message,
            "metadata": metadata,
            "captured_params": captured,
        });
        let mut message: Option<String> = error_message;
        if let Some(message) = &mut message {
            cut(message, MAX_ERROR_MESSAGE);
        }
        let span = Span {
            trace_id: [ids[0], ids[1]],
            span_id: [ids[2], ids[3]],
            parent_id: parent,
            workflow: names.0.as_str().into(),
            operation: names.1.as_str().into(),
            status,
            started_at,
            duration_ms,
            error_type,
            error_message: message,
            metadata: our_metadata,
            captured_params: our_captured,
        };
        (told, span)
    }
}

fn draw<T>(runner: &mut TestRunner, strategy: impl Strategy<Value = T>) -> T {
    strategy.new_tree(runner).unwrap().current()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_reference_would_have_sent_the_same_bytes() {
    let mut judge = Judge::new();
    let mut runner = TestRunner::default();
    for _ in 0..200 {
        let drawn = draw(&mut runner, proptest::collection::vec(span(), 1..6));
        let (told, spans): (Vec<Json>, Vec<Span>) = drawn.into_iter().unzip();
        let question = json!({"what": "traces", "slug": slug(), "spans": told});
        assert_eq!(
            text(&spans_body(slug(), &spans)),
            text(&judge.ask(&question)),
            "{question}"
        );
        // The reference never builds events of a failure without a text.
        let failed = |span: &Span| span.status == Status::Failed && span.error_type.is_none();
        if spans.iter().any(failed) {
            continue;
        }
        let question = json!({"what": "events", "slug": slug(), "spans": told});
        let events: Vec<Event> = spans.iter().flat_map(Event::of).collect();
        assert_eq!(
            text(&events_body(slug(), &events)),
            text(&judge.ask(&question)),
            "{question}"
        );
    }
    for _ in 0..200 {
        let given = proptest::collection::vec(
            (any::<[u64; 4]>(), proptest::option::of(0u64..=10_000)),
            0..20,
        );
        let samples: Vec<Sample> = draw(&mut runner, given)
            .into_iter()
            .map(|([timestamp, vms, uss, rss], cpu)| Sample {
                timestamp,
                vms,
                uss,
                rss,
                cpu,
            })
            .collect();
        let told: Vec<Json> = samples
            .iter()
            .map(|sample| {
                json!({"timestamp": sample.timestamp, "vms": sample.vms, "uss": sample.uss,
                    "rss": sample.rss, "cpu": sample.cpu})
            })
            .collect();
        let question = json!({"what": "metrics", "samples": told, "sdk_version": "1.2.3",
            "runtime_version": "gcc 12.2.0"});
        assert_eq!(
            metrics_body(&samples, "1.2.3", "gcc 12.2.0"),
            judge.ask(&question)
        );
    }
}

#[test]
fn the_reference_keeps_the_same_traces() {
    let mut judge = Judge::new();
    let mut runner = TestRunner::default();
    let rate = prop_oneof![0.0..1.0, -1.0..2.0, Just(0.5), Just(1e-9)];
    let traces: Vec<([u64; 2], f64)> = draw(
        &mut runner,
        proptest::collection::vec((any::<[u64; 2]>(), rate), 20_000),
    );
    let told: Vec<Json> = traces
        .iter()
        .map(|(id, rate)| json!([hex(*id), rate]))
        .collect();
    let kept = judge.ask(&json!({"what": "kept", "traces": told}));
    assert_eq!(kept.len(), traces.len());
    for ((id, rate), kept) in traces.iter().zip(kept) {
        assert_eq!(Sampling::of(*rate).keeps(*id), kept == 1, "{id:x?} {rate}");
    }
}

#[test]
fn pythons_cryptography_opens_what_we_seal() {
    let vectors: Json =
        serde_json::from_str(include_str!("../../../crates/wire/tests/vectors.json")).unwrap();
    let public_key = parse_public_key(vectors["public_key_pem"].as_str().unwrap()).unwrap();
    let sealer = Sealer::new(public_key);
    let mut judge = Judge::new();
    for length in [0, 1, 15, 16, 17, 1000, 1_000_000] {
        let plaintext: Vec<u8> = (0..length).map(|place| (place * 7) as u8).collect();
        let envelope = sealer
            .seal(Plaintext::from_bytes(plaintext.clone()))
            .unwrap();
        let opened = judge.ask(&json!({
            "what": "opened",
            "envelope": STANDARD.encode(&envelope),
            "private_key": vectors["test_private_key_pem"],
        }));
        assert!(opened == plaintext, "{length} bytes");
    }
}

/// The reference client in a Python process, and the agent on that same process.
#[test]
fn side_by_side_on_one_process() {
    let mut process = Command::new(&*PYTHON)
        .arg(script("process.py"))
        .arg("5")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut theirs = BufReader::new(process.stdout.take().unwrap()).lines();
    assert!(theirs.next().unwrap().unwrap().starts_with("ready "));
    let run_dir = tempfile::tempdir().unwrap();
    let mut agent = crate::support::agent_command(&[
        "--pid",
        &process.id().to_string(),
        "--json",
        "--interval",
        "5",
        "--run-dir",
        run_dir.path().to_str().unwrap(),
    ])
    .stdout(Stdio::piped())
    .stderr(Stdio::null())
    .spawn()
    .unwrap();
    let mut ours = BufReader::new(agent.stdout.take().unwrap()).lines();
    let next = |lines: &mut dyn Iterator<Item = std::io::Result<String>>| -> Json {
        serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap()
    };
    // The first of ours has no processor share yet.
    let first = next(&mut ours);
    assert!(first["cpu_usage_pct"].is_null());
    for _ in 0..3 {
        let (our, their) = (next(&mut ours), next(&mut theirs));
        println!("ours {our}\ntheirs {their}");
        assert!(
            our["runtime_version"]
                .as_str()
                .unwrap()
                .starts_with("CPython 3."),
            "{our}"
        );
        assert_eq!(our["heap_total"], their["heap_total"]);
        for key in ["rss", "heap_used"] {
            let (ours, theirs) = (our[key].as_f64().unwrap(), their[key].as_f64().unwrap());
            assert!((ours / theirs - 1.0).abs() < 0.02, "{key}: {ours} {theirs}");
        }
        let share = our["cpu_usage_pct"].as_f64().unwrap();
        assert!(
            (share - their["cpu"].as_f64().unwrap()).abs() < 500.0,
            "{our} {their}"
        );
    }
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(agent.wait().unwrap().success());
}
