//! The sender and the spool against a service that answers anything, slowly, half, or never. Needs no
//! root.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::support::service::*;
use model::{
    Kind,
    notes::Notes,
    totals::{Cause, Snapshot, Totals},
};
use pipeline::ship::Endpoint;
use pipeline::{
    ship::{Courier, Pace, Route, SharedHealth, Shipper},
    spool::{Disk, Entry, SharedSpool, Spool},
};
use tokio::sync::Notify;
use tokio_rustls::rustls;
use wire::{
    api_key::{decode, parse_public_key},
    seal::{Plaintext, Sealer},
};

/// A sender with its spool.
struct Sender {
    spool: SharedSpool,
    totals: Arc<Totals>,
    wake: Arc<Notify>,
    health: SharedHealth,
    shipper: Option<Shipper>,
    sealer: Sealer,
}

fn endpoint(domain: &str) -> Endpoint {
    Endpoint {
        domain: domain.to_owned(),
        ca_file: Some(ca_file()),
        timeout: Duration::from_secs(2),
    }
}

impl Sender {
    fn new(settings: &Endpoint, spool: SharedSpool) -> Self {
        let (totals, wake) = (Arc::new(Totals::default()), Arc::new(Notify::new()));
        let shipper = Shipper::start(Route {
            courier: Courier::new(
                slug(),
                settings,
                settings.certificates().unwrap().as_deref(),
            )
            .unwrap(),
            spool: spool.clone(),
            wake: wake.clone(),
            totals: totals.clone(),
            pace: Pace {
                first: Duration::from_millis(20),
                longest: Duration::from_millis(200),
            },
            notes: Notes { quiet: true },
        })
        .unwrap();
        let public_key = decode(api_key()).unwrap().public_key;
        Self {
            health: shipper.health(),
            shipper: Some(shipper),
            sealer: Sealer::new(parse_public_key(&public_key).unwrap()),
            spool,
            totals,
            wake,
        }
    }

    fn to(service: &Service) -> Self {
        Self::new(
            &endpoint(&service.domain()),
            SharedSpool::new(Spool::in_memory(64 << 20)),
        )
    }

    /// Adds batches whose bodies are `{"n":N}`.
    fn add(&self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.totals.received(Kind::Spans, 1);
            let plaintext = Plaintext::from_bytes(format!("{{\"n\":{number}}}").into_bytes());
            let entry = Entry {
                kind: Kind::Spans,
                count: 1,
                envelope: self.sealer.seal(plaintext).unwrap(),
            };
            self.spool.add(&[entry], &self.totals).unwrap();
        }
        self.wake.notify_one();
    }

    fn finish(mut self, patience: Duration) -> Snapshot {
        let shipper = self.shipper.take().unwrap();
        shipper.finish(Instant::now() + patience);
        let totals = self.totals.snapshot();
        assert!(totals.spans.add_up(), "{totals:?}");
        assert_eq!(totals.spans.pending, 0);
        totals
    }
}

const LONG: Duration = Duration::from_secs(30);

fn number(request: &Received) -> u64 {
    let (_, plaintext) = open(&request.envelope).unwrap();
    let body: serde_json::Value = serde_json::from_slice(&plaintext).unwrap();
    body["n"].as_u64().unwrap()
}

fn taken(service: &Service) -> Vec<u64> {
    let requests = service.received();
    let taken = requests.iter().filter(|request| request.status == 202);
    taken.map(number).collect()
}

#[test]
fn envelopes_arrive_as_the_protocol_has_them_over_one_connection() {
    let service = Service::start();
    let sender = Sender::to(&service);
    for (kind, path) in [
        (Kind::Metrics, "/api/ingest"),
        (Kind::Spans, "/v1/traces"),
        (Kind::Events, "/v1/events"),
    ] {
        let entry = Entry {
            kind,
            count: 3,
            envelope: sender
                .sealer
                .seal(Plaintext::from_bytes(b"body".to_vec()))
                .unwrap(),
        };
        sender.totals.received(kind, 3);
        sender
            .spool
            .add(std::slice::from_ref(&entry), &sender.totals)
            .unwrap();
        sender.wake.notify_one();
        let requests = service.wait(|requests| requests.iter().any(|seen| seen.path == path));
        let request = requests.last().unwrap();
        assert_eq!(request.envelope, entry.envelope);
        assert_eq!(open(&request.envelope).unwrap().1, b"body");
        let header = |name: &str| request.headers.get(name).map(String::as_str);
        assert_eq!(header("content-type"), Some("application/octet-stream"));
        assert_eq!(header("x-project-slug"), Some(slug()));
        assert!(header("user-agent").unwrap().starts_with("teracron-agent/"));
        assert!(header("authorization").is_none() && header("cookie").is_none());
        assert_eq!(request.version, hyper::Version::HTTP_2);
    }
    let totals = sender.finish(LONG);
    for kind in Kind::ALL {
        assert_eq!(totals.of(kind).shipped, 3);
    }
    assert_eq!(service.connections(), 1);
}

#[test]
fn http_1_and_tls_1_2_will_do() {
    let service = Service::on(0, &[&rustls::version::TLS12], |_| Answer::status(202));
    let sender = Sender::to(&service);
    sender.add(0..3);
    service.wait(|requests| requests.len() == 3);
    assert_eq!(sender.finish(LONG).spans.shipped, 3);
}

#[test]
fn what_will_never_be_taken_goes_to_the_dead_letters_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let statuses = [400, 401, 403, 404, 405, 408, 410, 413, 418, 422, 451];
    let service = Service::answering(
        move |request| match statuses.get(number(request) as usize) {
            Some(status) => Answer {
                body: b"no, because".to_vec(),
                ..Answer::status(*status)
            },
            None => Answer::status(202),
        },
    );
    let (disk, heads, _) = Disk::open(folder.path(), slug()).unwrap();
    let sender = Sender::new(
        &endpoint(&service.domain()),
        SharedSpool::new(Spool::on_disk(disk, heads, 64 << 20)),
    );
    let count = statuses.len() as u64;
    sender.add(0..count + 5);
    service.wait(|requests| requests.len() as u64 == count + 5);
    let health = sender.health.clone();
    let totals = sender.finish(LONG);
    assert_eq!(totals.spans.dropped.of(Cause::Rejected), count);
    assert_eq!(totals.spans.shipped, 5);
    assert_eq!(health.now().rejected_entries, count);
    let dead = folder.path().join(slug()).join("0/dead");
    for (place, status) in statuses.iter().enumerate() {
        let reason = std::fs::read_to_string(dead.join(format!("{place:020}.reason"))).unwrap();
        assert!(
            reason.contains(&status.to_string()) && reason.contains("no, because"),
            "{reason}"
        );
        assert!(dead.join(format!("{place:020}.sealed")).exists());
    }
    // Bounded: only the youngest are kept.
    let sender = Sender::new(&endpoint(&service.domain()), {
        let (disk, heads, _) = Disk::open(folder.path(), slug()).unwrap();
        SharedSpool::new(Spool::on_disk(disk, heads, 64 << 20))
    });
    for _ in 0..10 {
        sender.add(0..10);
    }
    service.wait(|requests| requests.len() as u64 == count + 105);
    sender.finish(LONG);
    let kept = |ending: &str| {
        std::fs::read_dir(&dead)
            .unwrap()
            .filter(|entry| {
                let path = entry.as_ref().unwrap().path();
                path.extension().is_some_and(|found| found == ending)
            })
            .count()
    };
    assert_eq!((kept("sealed"), kept("reason")), (64, 64));
}

/// Everything that is neither success nor for good is tried again until it works, in order.
#[test]
fn what_fails_is_tried_again() {
    for answer in [
        Answer::status(500),
        Answer::status(502),
        Answer::status(599),
        // Success is 202 and nothing else.
        Answer::status(200),
        Answer::status(204),
        Answer::manner(Manner::HangUp),
        Answer::status(301).header("location", "https://localhost:1/elsewhere"),
        Answer::status(307).header("location", "/elsewhere"),
    ] {
        let failures = AtomicUsize::new(0);
        let shown = format!("{answer:?}");
        let service = Service::answering(move |_| {
            if failures.fetch_add(1, Ordering::Relaxed) < 6 {
                answer.clone()
            } else {
                Answer::status(202)
            }
        });
        let sender = Sender::to(&service);
        sender.add(0..8);
        service.wait(|requests| requests.iter().filter(|seen| seen.status == 202).count() == 8);
        let totals = sender.finish(LONG);
        assert_eq!(totals.spans.shipped, 8, "{shown}");
        let mut all = taken(&service);
        all.sort_unstable();
        assert_eq!(all, Vec::from_iter(0..8), "{shown}");
        assert!(
            service
                .received()
                .iter()
                .all(|seen| seen.path == "/v1/traces")
        );
    }
}

#[test]
fn an_answer_that_breaks_off_has_said_enough_and_a_slow_one_is_waited_for() {
    let service = Service::answering(|_| Answer {
        body: vec![b'x'; 100],
        delay: Duration::from_millis(300),
        ..Answer::manner(Manner::Half)
    });
    let sender = Sender::to(&service);
    sender.add(0..2);
    service.wait(|requests| requests.len() == 2);
    assert_eq!(sender.finish(LONG).spans.shipped, 2);
    assert_eq!(service.received().len(), 2);
}

#[test]
fn an_answer_that_never_ends_has_said_enough() {
    let service = Service::answering(|_| Answer {
        body: b"x".to_vec(),
        ..Answer::manner(Manner::Open)
    });
    let settings = Endpoint {
        timeout: LONG,
        ..endpoint(&service.domain())
    };
    let sender = Sender::new(&settings, SharedSpool::new(Spool::in_memory(64 << 20)));
    let began = Instant::now();
    sender.add(0..2);
    service.wait(|requests| requests.len() == 2);
    assert_eq!(sender.finish(LONG).spans.shipped, 2);
    assert!(began.elapsed() < LONG / 2);
    assert_eq!(service.received().len(), 2);
}

#[test]
fn an_endless_answer_is_not_read_to_its_end() {
    let service = Service::answering(|request| Answer {
        body: vec![b'x'; if number(request) == 0 { 50_000_000 } else { 0 }],
        ..Answer::status(202)
    });
    let sender = Sender::to(&service);
    sender.add(0..3);
    service.wait(|requests| requests.len() == 3);
    assert_eq!(sender.finish(LONG).spans.shipped, 3);
}

#[test]
fn a_service_that_never_answers_is_asked_again() {
    let asked = AtomicUsize::new(0);
    let service = Service::answering(move |_| {
        if asked.fetch_add(1, Ordering::Relaxed) < 2 {
            Answer::manner(Manner::Never)
        } else {
            Answer::status(202)
        }
    });
    let sender = Sender::to(&service);
    sender.add(0..2);
    service.wait(|requests| requests.iter().filter(|seen| seen.status == 202).count() == 2);
    assert_eq!(sender.finish(LONG).spans.shipped, 2);
}

#[test]
fn retry_after_is_honoured() {
    for (status, as_date) in [(429, false), (503, true)] {
        let value = if as_date {
            httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(3))
        } else {
            "2".to_owned()
        };
        let service = Service::answering(move |request| {
            if request.place == 0 {
                Answer::status(status).header("retry-after", &value)
            } else {
                Answer::status(202)
            }
        });
        let sender = Sender::to(&service);
        sender.add(0..1);
        let first = service.wait(|requests| requests.len() == 1)[0].at;
        while sender.health.now().failing.is_none() {
            std::thread::yield_now();
        }
        // What comes meanwhile waits, too.
        sender.add(1..5);
        let requests = service.wait(|requests| requests.len() == 6);
        for request in &requests[1..] {
            let waited = request.at - first;
            assert!(waited >= Duration::from_millis(1500), "{waited:?}");
        }
        assert_eq!(sender.finish(LONG).spans.shipped, 5);
    }
}

#[test]
fn a_stop_does_not_wait_for_a_retry_after_that_is_too_late() {
    let service = Service::answering(|_| Answer::status(503).header("retry-after", 600));
    let sender = Sender::to(&service);
    sender.add(0..3);
    service.wait(|requests| !requests.is_empty());
    let began = Instant::now();
    let totals = sender.finish(LONG);
    assert!(began.elapsed() < LONG / 2);
    assert_eq!((totals.spans.spooled, totals.spans.shipped), (3, 0));
}

#[test]
fn an_outage_loses_nothing_and_keeps_the_order() {
    let service = Service::start();
    let port = service.address.port();
    let sender = Sender::to(&service);
    sender.add(0..3);
    service.wait(|requests| requests.len() == 3);
    drop(service);
    sender.add(3..30);
    let health = sender.health.clone();
    while health.now().failing.is_none() {
        std::thread::yield_now();
    }
    let service = Service::on(port, &[&rustls::version::TLS13], |_| Answer::status(202));
    // What the first service saw last may come again: its answers may not have arrived.
    let mut requests = service.wait(|requests| {
        let seen: std::collections::HashSet<u64> = requests.iter().map(number).collect();
        (3..30).all(|wanted| seen.contains(&wanted))
    });
    requests.sort_by_key(|request| request.place);
    let order: Vec<u64> = requests.iter().map(number).collect();
    let mut last = 0;
    for number in &order {
        last = last.max(*number);
        // Four are under way at a time: none is overtaken by more.
        assert!(number + 4 > last, "{order:?}");
    }
    assert_eq!(sender.finish(LONG).spans.shipped, 30);
    assert!(health.now().failing.is_none());
}

/// The agent's side of a stop while the service is away: it tries, gives up in time, and says so.
#[test]
fn a_stop_during_an_outage_leaves_everything_in_the_spool() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start();
    let domain = service.domain();
    drop(service);
    let open_spool = |path: &Path| {
        let (disk, heads, _) = Disk::open(path, slug()).unwrap();
        let waiting = heads.len();
        (
            SharedSpool::new(Spool::on_disk(disk, heads, 64 << 20)),
            waiting,
        )
    };
    let (spool, _) = open_spool(folder.path());
    let sender = Sender::new(&endpoint(&domain), spool);
    sender.add(0..9);
    let totals = sender.finish(Duration::from_millis(500));
    assert_eq!((totals.spans.spooled, totals.spans.shipped), (9, 0));
    let (_, waiting) = open_spool(folder.path());
    assert_eq!(waiting, 9);
}

#[test]
fn a_stranger_with_a_certificate_of_its_own_gets_nothing() {
    let service = Service::start();
    // The system's authorities do not know this one.
    let settings = Endpoint {
        ca_file: None,
        ..endpoint(&service.domain())
    };
    let sender = Sender::new(&settings, SharedSpool::new(Spool::in_memory(64 << 20)));
    sender.add(0..1);
    while sender.health.now().failing.is_none() {
        std::thread::yield_now();
    }
    let why = sender.health.now().failing.unwrap();
    assert!(why.to_lowercase().contains("certificate"), "{why}");
    let totals = sender.finish(Duration::from_millis(100));
    assert_eq!((totals.spans.spooled, service.received().len()), (1, 0));
}

#[test]
fn plain_text_is_never_spoken() {
    use std::io::Read as _;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let domain = format!("localhost:{}", listener.local_addr().unwrap().port());
    let sender = Sender::new(
        &endpoint(&domain),
        SharedSpool::new(Spool::in_memory(64 << 20)),
    );
    sender.add(0..1);
    let (mut stream, _) = listener.accept().unwrap();
    let mut first = [0u8; 3];
    stream.read_exact(&mut first).unwrap();
    // A TLS handshake, whoever asks.
    assert_eq!(first[..2], [0x16, 3]);
    drop(stream);
    drop(listener);
    assert_eq!(sender.finish(Duration::from_millis(100)).spans.spooled, 1);
}
