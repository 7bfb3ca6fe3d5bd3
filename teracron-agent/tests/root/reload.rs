//! Settings that change while the agent runs.

use std::{
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use crate::support::{service::Service, *};
use planner::probe::ProbeTable;
use teracron_agent::{cli::Cli, run::prepare, shut_in};
use teracron_common::Counter;
use tracer::kernel::{Features, Options, Scope, Session};

/// A set of probes takes over from another in the middle of a program that only calls: each call is
/// seen once, by one of them, and its end by either.
#[test]
fn changing_over_counts_every_call_once() {
    if processes::done_alone("reload::changing_over_counts_every_call_once") {
        return;
    }
    for mode in [&[][..], UNSAFE] {
        let calls = 500_000;
        let program = compile("leaves.c", &["-O2"]);
        let mut target = Target::start(&program, &["burst", &calls.to_string()]);
        let pid = target.pid.to_string();
        let line = ["teracron-agent", "--pid", &pid, "--probe", "a:fast"];
        let targets = Cli::read(line.iter().chain(mode))
            .unwrap()
            .settings()
            .unwrap()
            .targets;
        let features = Features::detect();
        shut_in::use_agent(env!("CARGO_BIN_EXE_teracron-agent").into());
        let prepared = prepare(&targets, features, ProbeTable::default()).unwrap();
        let options = Options {
            follow: true,
            debug: false,
            span_memory: false,
            sample_rate: 1.0,
        };
        let mut session = Session::load(features, options).unwrap();
        for plan in prepared.plans() {
            session
                .attach(&plan.module, &plan.sites, Scope::OneProcess(target.pid))
                .unwrap();
        }
        session.add_target(target.pid).unwrap();
        target.go();
        let mut rounds = 0;
        let entered = |session: &Session| session.counters().unwrap().get(Counter::Entered);
        while entered(&session) < calls {
            let mut next = Vec::new();
            for plan in prepared.plans() {
                next.extend(
                    session
                        .attach_next(&plan.module, &plan.sites, Scope::OneProcess(target.pid))
                        .unwrap(),
                );
            }
            session.change_over(next).unwrap();
            session.settle_retired();
            rounds += 1;
            assert!(target.is_running());
        }
        target.log();
        session.detach();
        let counters = session.counters().unwrap();
        assert_eq!(counters.get(Counter::Entered), calls, "{rounds} rounds");
        // The ring buffer is not read here.
        assert_eq!(
            counters.get(Counter::Sent) + counters.get(Counter::LostRing),
            calls,
            "{rounds} rounds: {counters:?}"
        );
        assert!(rounds >= 5, "{rounds}");
        println!("{rounds} changes over {calls} calls");
    }
}

fn write_config(path: &Path, text: &str) {
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn probes(functions: &[&str]) -> String {
    functions
        .iter()
        .map(|name| format!("[[probe]]\nworkflow = \"test\"\nfunction = \"{name}\"\n"))
        .collect()
}

/// Probes come and go at SIGHUP; those that stay miss nothing, and what they are part of stays right.
#[test]
fn probes_rates_and_rules_are_reloaded_without_losing_a_span() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("agent.toml");
    // Built so that `tail` jumps.
    let program = compile("steady.c", &["-O2"]);
    let mut target = Target::start(&program, &[]);
    write_config(&config, &probes(&["kept", "outer"]));
    let mut agent = Agent::start(
        target.pid,
        &[
            "--config",
            config.to_str().unwrap(),
            "--run-dir",
            folder.path().to_str().unwrap(),
        ],
    );
    target.go();
    target.expect("running");
    for round in 0..8 {
        let set: &[&str] = match round % 4 {
            0 => &["kept", "outer", "added"],
            1 => &["kept", "outer", "tail"],
            2 => &["kept", "added", "tail", "outer"],
            _ => &["kept", "outer"],
        };
        write_config(
            &config,
            &format!("interval = {}\n{}", 20 + round, probes(set)),
        );
        agent.hang_up();
        let said = agent.hear("interval is ");
        assert!(
            said.contains(&format!("tracing {} functions now", set.len())),
            "{said}"
        );
    }
    // What makes no sense changes nothing, and what can't change says so.
    write_config(&config, "nonsense = 1\n");
    agent.hang_up();
    let said = agent.hear("nothing changed");
    assert!(said.contains("line 1"), "{said}");
    write_config(
        &config,
        &format!("follow = false\n{}", probes(&["kept", "missing", "outer"])),
    );
    agent.hang_up();
    let said = agent.hear("nothing changed");
    assert!(said.contains("missing"), "{said}");
    write_config(
        &config,
        &format!("follow = false\n{}", probes(&["kept", "outer"])),
    );
    agent.hang_up();
    agent.hear("follow can't change while the agent runs");
    target.go();
    let log = target.log();
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    let outer: usize = log[0].strip_prefix("outer ").unwrap().parse().unwrap();
    let count = |name: &str| {
        let all = report.spans.iter().filter(|span| span.operation == name);
        all.inspect(|span| assert_eq!(span.status, "succeeded", "{span:?}"))
            .count()
    };
    // The program is traced from before its first call; those that are always probed are all there.
    assert_eq!(count("outer"), outer);
    assert_eq!(count("kept"), 2 * outer);
    let (added, tail) = (count("added"), count("tail"));
    assert!(
        added > 0 && added < outer && tail > 0 && tail < outer,
        "{added} {tail} {outer}"
    );
    // Every `kept` is in an `outer`, directly or by way of `tail`.
    let trees: Vec<String> = report.trees().into_values().flatten().collect();
    let ok = "succeeded";
    for tree in &trees {
        let known = [
            format!("(outer {ok}(kept {ok})(kept {ok}))"),
            format!("(outer {ok}(kept {ok})(added {ok})(kept {ok}))"),
            format!("(outer {ok}(kept {ok})(tail {ok}(kept {ok})))"),
            format!("(outer {ok}(kept {ok})(added {ok})(tail {ok}(kept {ok})))"),
        ];
        assert!(known.contains(tree), "{tree}");
    }
}

/// The rate of traces and the scrub rules change, too.
#[test]
fn the_rate_and_the_rules_change() {
    let service = Service::start();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("agent.toml");
    let program = compile("steady.c", &["-O2"]);
    let mut target = Target::start(&program, &[]);
    write_config(&config, &probes(&["outer"]));
    let (spool, run_dir) = (folder.path().join("spool"), folder.path().join("run"));
    let mut args: Vec<String> = service.flags();
    args.extend(
        [
            "--config",
            config.to_str().unwrap(),
            "--spool-dir",
            spool.to_str().unwrap(),
            "--run-dir",
            run_dir.to_str().unwrap(),
            "--trace-flush-interval",
            "1",
        ]
        .map(str::to_owned),
    );
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut agent = Agent::start(target.pid, &args);
    target.go();
    target.expect("running");
    let before = service.wait_for_spans(100);
    assert!(
        before
            .iter()
            .all(|span| span["metadata"]["mem.rss"].is_number())
    );
    write_config(
        &config,
        &format!("[[scrub]]\ndrop = \"mem.rss\"\n{}", probes(&["outer"])),
    );
    agent.hang_up();
    agent.hear("scrub is drop=mem.rss");
    let began = Instant::now();
    let scrubbed = |span: &serde_json::Value| span["metadata"].get("mem.rss").is_none();
    // Batches follow each other: after one that is scrubbed whole, all are.
    service.wait(|requests| {
        let last = requests
            .iter()
            .rfind(|request| request.path == "/v1/traces");
        last.is_some_and(|request| request.spans().iter().all(scrubbed))
    });
    assert!(began.elapsed() < Duration::from_secs(30));
    write_config(
        &config,
        &format!("trace_sample_rate = 0\n{}", probes(&["outer"])),
    );
    agent.hang_up();
    agent.hear("trace_sample_rate is 0");
    let status = agent.status(&run_dir);
    let left_out = status["kernel"]["unsampled"].as_u64().unwrap();
    loop {
        let now = agent.status(&run_dir)["kernel"]["unsampled"]
            .as_u64()
            .unwrap();
        if now > left_out + 1000 {
            break;
        }
        std::thread::yield_now();
    }
    target.go();
    target.log();
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
}
