//! The process that delivers: what it may do, and what becomes of spans, books and spool where it is killed. Needs root.

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
    time::{Duration, Instant},
};

use crate::support::{
    processes::{kill, status_of},
    service::*,
    *,
};
use model::{Kind, totals::Totals};
use pipeline::spool::{Disk, Entry, SharedSpool, Spool};
use serde_json::Value;
use wire::{
    api_key::{decode, parse_public_key},
    seal::{Plaintext, Sealer},
};

/// The user that delivers: `teracron`, where this machine has one.
fn user() -> u32 {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let mut lines = users.lines();
    let line = lines.find_map(|line| line.strip_prefix("teracron:"));
    line.map_or(60_999, |line| {
        line.split(':').nth(1).unwrap().parse().unwrap()
    })
}

#[test]
fn it_delivers_without_any_privilege_and_so_does_the_scrubber() {
    let service = Service::start();
    let place = Place::new(&service);
    let config = place.path("agent.toml");
    fs::write(
        &config,
        "scrubber = ['/bin/cat']\nscrubber_env = ['TERACRON_TEST_SEEN']\nscrub_hash_key = 'k'\n",
    )
    .unwrap();
    let program = compile("leaves.c", &["-O2"]);
    let mut target = Target::start(&program, &["burst", "300"]);
    let args = ["--config", config.to_str().unwrap(), "--probe", "a:fast"];
    let agent = Agent::start(target.pid, &place.with(&args));
    let delivering = agent.delivering(&place.path("run"));
    let children = format!("/proc/{delivering}/task/{delivering}/children");
    let scrubber = fs::read_to_string(children).unwrap();
    let scrubber: u32 = scrubber.trim().parse().unwrap();
    assert_eq!(
        status_of(delivering, "PPid").unwrap(),
        agent.child.id().to_string()
    );
    let user = user().to_string();
    for pid in [delivering, scrubber] {
        for ids in ["Uid", "Gid"] {
            let all = status_of(pid, ids).unwrap();
            assert!(all.split('\t').all(|id| id == user), "{ids} {all}");
        }
        assert_eq!(status_of(pid, "Groups").unwrap(), "");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status_of(pid, set).unwrap(), "0000000000000000", "{set}");
        }
        assert_eq!(status_of(pid, "NoNewPrivs").unwrap(), "1");
        assert_eq!(status_of(pid, "Seccomp").unwrap(), "2");
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let mut lines = limits.lines();
        let core = lines.find(|line| line.starts_with("Max core file size"));
        assert!(
            core.unwrap().split_whitespace().nth(4) == Some("0"),
            "{limits}"
        );
    }
    // Nobody else's eyes: /proc is root's.
    let owner = fs::metadata(format!("/proc/{delivering}/environ")).map(|it| it.uid());
    assert_eq!(owner.unwrap(), 0, "others may look into it");
    // What it has open: sockets, its own memory, the spool's folder.
    let spool = place.path("spool");
    for entry in fs::read_dir(format!("/proc/{delivering}/fd")).unwrap() {
        let leads = fs::read_link(entry.unwrap().path()).unwrap();
        let shown = leads.to_str().unwrap();
        let is_plain = ["socket:", "pipe:", "/memfd:teracron-", "anon_inode:[event"]
            .iter()
            .any(|kind| shown.starts_with(kind));
        assert!(
            is_plain || shown == "/dev/null" || leads.starts_with(&spool),
            "{shown}"
        );
    }
    let environment = |pid: u32| {
        let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    for variable in environment(scrubber).split_terminator('\0') {
        assert!(
            variable.starts_with("PATH=") || variable.starts_with("LANG="),
            "{variable}"
        );
    }
    assert!(!environment(delivering).contains("TERACRON_"));
    target.go();
    target.log();
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    assert_eq!(service.wait_for_spans(300).len(), 300);
}

#[test]
fn it_may_be_killed_at_any_time_and_the_books_say_what_that_cost() {
    let service = Service::answering(|_| Answer {
        delay: Duration::from_millis(2),
        ..Answer::status(202)
    });
    let place = Place::new(&service);
    let program = compile("steady.c", &["-O2"]);
    let mut target = Target::start(&program, &[]);
    let args = [
        "--probe",
        "a:outer",
        "--trace-batch-size",
        "20",
        "--stats-interval",
        "1",
    ];
    let mut agent = Agent::start(target.pid, &place.with(&args));
    target.go();
    target.expect("running");
    let run_dir = place.path("run");
    for round in 1..=2u64 {
        let before = place.until(&agent, |status| {
            status["wire"]["totals"]["spans"]["spooled"].as_u64() > Some(0)
                && status["wire"]["delivering"]["process"].is_u64()
        });
        kill(agent.delivering(&run_dir), libc::SIGKILL);
        let shipped = before["wire"]["totals"]["spans"]["shipped"]
            .as_u64()
            .unwrap();
        let after = place.until(&agent, |status| {
            status["wire"]["delivering"]["ended"].as_u64() == Some(round)
                && status["wire"]["totals"]["spans"]["shipped"].as_u64() > Some(shipped + 200)
        });
        assert_eq!(after["wire"]["delivering"]["why"], "was killed by SIGKILL");
    }
    let said = agent.hear("the process that delivers was killed by SIGKILL");
    assert!(said.contains("another is started"), "{said}");
    target.go();
    target.log();
    target.finish();
    let report = agent.finish();
    let told = "the process that delivers was killed by SIGKILL";
    assert_eq!(report.said.matches(told).count(), 1, "{}", report.said);
    assert!(
        report
            .said
            .contains("the process that delivers ended 2 times, at last: it was killed by SIGKILL"),
        "{}",
        report.said
    );
    // The last line says how many were lost with it; all others have arrived.
    let last = report
        .said
        .lines()
        .rfind(|line| line.contains("agent: spans ") || line.contains("; spans "))
        .unwrap();
    let lost = last.split("delivering ended ").nth(1).map_or(0, |rest| {
        let digits = rest.split([',', ')']).next().unwrap_or_default();
        let end = rest.find(')').unwrap();
        let number = rest[..end].split(", ").next().unwrap_or(digits);
        number.replace(',', "").parse::<usize>().unwrap()
    });
    let mut arrived = BTreeSet::new();
    for request in service.received() {
        if request.path == "/v1/traces" {
            for span in request.spans() {
                arrived.insert(span["span_id"].as_str().unwrap().to_owned());
            }
        }
    }
    let shown = report.spans.len();
    // What was taken out of the spool and not yet booked has arrived and counts as lost: four requests at a time.
    let most = shown + 2 * 4 * 20;
    assert!(
        (shown..=most).contains(&(arrived.len() + lost)),
        "{shown} shown, {} arrived, {lost} lost: {last}",
        arrived.len()
    );
}

/// However much waits for a scrubber that takes its time: a stop takes no longer than it may.
#[test]
fn a_stop_reaches_it_while_its_scrubber_is_slow() {
    let service = Service::start();
    let place = Place::new(&service);
    let config = place.path("agent.toml");
    let slow = r#"while read -r line; do sleep 0.05; echo "$line"; done"#;
    fs::write(
        &config,
        format!("scrubber = ['/bin/sh', '-c', '{slow}']\nscrubber_timeout = 2000\n"),
    )
    .unwrap();
    let program = compile("leaves.c", &["-O2"]);
    let mut target = Target::start(&program, &["burst", "20000"]);
    let args = [
        "--config",
        config.to_str().unwrap(),
        "--probe",
        "a:fast",
        "--shutdown-timeout",
        "1",
    ];
    let agent = Agent::start(target.pid, &place.with(&args));
    target.go();
    target.log();
    place.until(&agent, |status| {
        status["wire"]["totals"]["spans"]["received"].as_u64() == Some(20_000)
    });
    let began = Instant::now();
    target.finish();
    let said = agent.finish().said;
    assert!(began.elapsed() < Duration::from_secs(8), "{said}");
    assert!(said.contains("spans 20,000 received = "), "{said}");
    assert!(said.contains("(stopped 1"), "{said}");
    assert!(!said.contains("the process that delivers"), "{said}");
}

#[test]
fn one_that_dies_at_once_is_started_ever_more_rarely() {
    let service = Service::start();
    let place = Place::new(&service);
    let program = compile("leaves.c", &["-O2"]);
    let mut target = Target::start(&program, &["burst", "50"]);
    let args = ["--probe", "a:fast"];
    let agent = Agent::start(target.pid, &place.with(&args));
    let began = Instant::now();
    for round in 1..=3u64 {
        let running = |status: &Value| {
            status["wire"]["delivering"]["ended"].as_u64() == Some(round - 1)
                && status["wire"]["delivering"]["process"].is_u64()
        };
        let status = place.until(&agent, running);
        let pid = status["wire"]["delivering"]["process"].as_u64().unwrap();
        kill(pid as u32, libc::SIGKILL);
    }
    place.until(&agent, |status| {
        status["wire"]["delivering"]["ended"].as_u64() == Some(3)
            && status["wire"]["delivering"]["process"].is_u64()
    });
    // At once, then after one second and two.
    assert!(began.elapsed() > Duration::from_secs(3));
    target.go();
    target.log();
    target.finish();
    agent.finish().assert_nothing_lost();
    assert_eq!(service.wait_for_spans(50).len(), 50);
}

/// Entries as an agent of an earlier version left them, as root.
fn leave_entries(spool: &Path, count: u32) {
    let public_key = decode(api_key()).unwrap().public_key;
    let sealer = Sealer::new(parse_public_key(&public_key).unwrap());
    let (disk, heads, _) = Disk::open(spool, slug()).unwrap();
    let shared = SharedSpool::new(Spool::on_disk(disk, heads, u64::MAX));
    let totals = Totals::default();
    for number in 0..count {
        let body = format!("{{\"n\":{number}}}").into_bytes();
        let entry = Entry {
            kind: Kind::Events,
            count: 1,
            envelope: sealer.seal(Plaintext::from_bytes(body)).unwrap(),
        };
        totals.received(Kind::Events, 1);
        shared.add(&[entry], &totals).unwrap();
    }
}

#[test]
fn the_spool_of_an_earlier_version_is_taken_over() {
    let service = Service::start();
    let place = Place::new(&service);
    let spool = place.path("spool");
    leave_entries(&spool, 3);
    let project = spool.join(slug());
    let foreign = project.join("0/theirs");
    fs::write(&foreign, "x").unwrap();
    chown(&foreign, Some(65_534), None).unwrap();
    let victim = place.path("victim");
    fs::write(&victim, "x").unwrap();
    fs::hard_link(&victim, project.join("0/00000000000000000900.sealed")).unwrap();
    let run = || {
        let program = compile("leaves.c", &["-O2"]);
        let mut target = Target::start(&program, &["burst", "5"]);
        let agent = Agent::start(target.pid, &place.with(&["--probe", "a:fast"]));
        target.go();
        target.log();
        target.finish();
        agent.finish().said
    };
    let said = run();
    assert!(
        said.contains("3 sealed batches of an earlier run"),
        "{said}"
    );
    assert!(
        said.contains("no file of the agent's, left alone"),
        "{said}"
    );
    assert!(
        said.contains("events 0 received + 3 left over = 3 shipped"),
        "{said}"
    );
    let owner = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
    let user = user();
    assert_eq!(owner(&spool), 0);
    for name in ["", "0", "0/.lock"] {
        assert_eq!(owner(&project.join(name)), user, "{name}");
    }
    assert_eq!((owner(&foreign), owner(&victim)), (65_534, 0));
    // A later run finds it as its own, and one whose user has changed takes it over again.
    assert!(!run().contains("cannot use"));
    // Somebody else's is refused.
    chown(&project, Some(65_534), None).unwrap();
    let target = Target::start(&compile("leaves.c", &["-O2"]), &["endless"]);
    let pid = target.pid.to_string();
    let output = agent_command(&place.with(&["--pid", &pid, "--duration", "1"]))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("belongs to user 65534"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_spool_in_the_home_of_whoever_called_sudo_works() {
    let service = Service::start();
    let place = Place::new(&service);
    fs::set_permissions(place.folder.path(), Permissions::from_mode(0o700)).unwrap();
    chown(place.folder.path(), Some(65_534), None).unwrap();
    let target = Target::start(&compile("leaves.c", &["-O2"]), &["endless"]);
    let pid = target.pid.to_string();
    let output = agent_command(&place.with(&["--pid", &pid, "--duration", "1"]))
        .env("SUDO_UID", "65534")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("memory samples 1 received = 1 shipped"),
        "{said}"
    );
    assert!(place.path("spool").join(slug()).join("0").is_dir());
}

#[test]
fn a_folder_that_vanished_is_made_again() {
    let service = Service::start();
    let place = Place::new(&service);
    let program = compile("steady.c", &["-O2"]);
    let mut target = Target::start(&program, &[]);
    let agent = Agent::start(
        target.pid,
        &place.with(&["--probe", "a:outer", "--trace-batch-size", "10"]),
    );
    target.go();
    target.expect("running");
    let shipped = |status: &Value| {
        status["wire"]["totals"]["spans"]["shipped"]
            .as_u64()
            .unwrap()
    };
    place.until(&agent, |status| shipped(status) > 50);
    // What is written meanwhile keeps a folder from being removed.
    while let Err(error) = fs::remove_dir_all(place.path("spool")) {
        assert_eq!(error.kind(), std::io::ErrorKind::DirectoryNotEmpty);
    }
    let known = shipped(&agent.status(&place.path("run")));
    place.until(&agent, |status| shipped(status) > known + 100);
    assert_eq!(
        fs::metadata(place.path("spool").join(slug()))
            .unwrap()
            .uid(),
        user()
    );
    target.go();
    target.log();
    target.finish();
    agent.finish();
}
