//! The core of the end-to-end tests: what is also run on other kernels (`cargo xtask test-kernels`),
//! where programs are emulated and slow.

use crate::support::*;

#[test]
fn nested_calls() {
    let program = compile("calls.c", &["-O2", "-static"]);
    let probes = [
        "--probe",
        "test:top",
        "--probe",
        "test:middle",
        "--probe",
        "test:leaf*",
        "--probe",
        "test:switching",
        "--probe",
        "test:with_array",
        "--probe",
        "test:many",
        "--probe",
        "test:variadic",
        "--probe",
        "test:mostly_good",
        "--probe",
        "test:factorial",
    ];
    // Statically linked, so `auto` is `ret`; this program does nothing that return probes could harm.
    for mode in [
        &["--return-probe", "ret"][..],
        &["--return-probe", "auto"],
        UNSAFE,
    ] {
        let args = [mode, &probes].concat();
        trace_and_compare(&format!("{mode:?}"), &program, &["4", "10"], &args);
    }
}

#[test]
fn arguments_and_results() {
    let program = compile("captures.c", &["-g", "-O2", "-static"]);
    let mut target = Target::start(&program, &[]);
    let agent = Agent::start(
        target.pid,
        &[
            "--probe",
            "t:charge(order->customer->name, amount, note, ret) fails ret < 0",
            "--probe",
            "t:two(pair.a, ret.a)",
        ],
    );
    target.go();
    let log = target.log();
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    let mut spans = report.spans.clone();
    spans.sort_by_key(|span| span.started_at_ns);
    let written: Vec<serde_json::Value> = log
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|call: &serde_json::Value| call["call"] == "charge" || call["call"] == "two")
        .collect();
    assert_eq!(spans.len(), written.len());
    for (call, span) in written.iter().zip(&spans) {
        assert_eq!(call["call"], span.operation.as_str());
        for (key, value) in span.captured.as_object().unwrap() {
            assert_eq!(&call[key], value, "{key}: {span:?}");
        }
        assert!(call["status"].as_str().unwrap().starts_with(&span.status));
        assert!(span.captured.as_object().unwrap().len() >= 2);
    }
}

#[test]
fn goroutines() {
    let program = golang::build(golang::GO_VERSIONS[0], &[]);
    let mut target = Target::start(&program, &["2", "2"]);
    let names = [
        "(*Server).handle",
        "leaf",
        "deep",
        "thrower",
        "between",
        "catcher",
        "afterwards",
    ];
    let probes: Vec<String> = names
        .iter()
        .flat_map(|name| ["--probe".to_owned(), format!("t:main.{name}")])
        .collect();
    let probes: Vec<&str> = probes.iter().map(String::as_str).collect();
    let agent = Agent::start(target.pid, &probes);
    target.go();
    let log = target.log();
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    for name in names {
        let begun = log
            .iter()
            .filter(|line| line.ends_with(&format!(" main.{name}")))
            .count();
        let spans = report
            .spans
            .iter()
            .filter(|span| span.operation == format!("main.{name}"));
        assert_eq!(spans.count(), begun, "{name}");
    }
    let panicked = |span: &&Span| span.error_type.as_deref() == Some("string");
    assert!(report.spans.iter().any(|span| panicked(&span)));
}

#[test]
fn goroutines_as_children() {
    spawned::check(golang::GO_VERSIONS[0], "20");
}

#[test]
fn inlined_calls() {
    let flags = ["-g", "-O2", "-static"];
    inlined::check("static", &compile("inlines.cpp", &flags));
}

#[test]
fn async_functions() {
    let flags = [
        "--release",
        "--features",
        "boxed",
        "--target",
        "x86_64-unknown-linux-gnu",
        "--config",
        "build.rustflags=[\"-Ctarget-feature=+crt-static\"]",
    ];
    futures::check(&flags, "2", "20", true);
}

#[test]
fn exceptions() {
    let program = compile("throws.cpp", &["-O2", "-static"]);
    trace_and_compare("exceptions", &program, &[], THROWS);
}

#[test]
fn longjmp_and_ends_of_threads() {
    let program = compile("leaves.c", &["-O2", "-static"]);
    trace_and_compare(
        "longjmp",
        &program,
        &["longjmp"],
        &["--probe", "test:jump_*", "--probe", "test:leaf"],
    );
    trace_and_compare(
        "fibers",
        &program,
        &["fibers"],
        &[
            "--probe",
            "test:resume_all",
            "--probe",
            "test:fiber_work",
            "--probe",
            "test:leaf",
        ],
    );
}

#[test]
fn forked_children() {
    let program = compile("leaves.c", &["-O2", "-static"]);
    trace_and_compare(
        "forks",
        &program,
        &["forks"],
        &[
            "--all-processes",
            "--probe",
            "test:child_work",
            "--probe",
            "test:leaf",
        ],
    );
}

#[test]
fn one_process_only() {
    let program = compile("leaves.c", &["-O2", "-static"]);
    let mut target = Target::start(&program, &["forks"]);
    let agent = Agent::start(target.pid, &["--no-follow", "--probe", "test:child_work"]);
    target.go();
    target.log();
    target.finish();
    assert_eq!(agent.finish().spans.len(), 2);
}

#[test]
fn loss_counts() {
    check_losses(&["-O2", "-static"], 100_000);
}

/// Calls of `fast` in a process of its own, under an agent with these arguments.
fn burst(calls: u64, args: &[&str]) -> Report {
    let program = compile("leaves.c", &["-O2", "-static"]);
    let mut target = Target::start(&program, &["burst", &calls.to_string()]);
    let agent = Agent::start(target.pid, &[&["--probe", "test:fast"], args].concat());
    target.go();
    target.log();
    target.finish();
    agent.finish()
}

#[test]
fn sampling_keeps_whole_traces_by_the_wires_rule() {
    assert_eq!(burst(500, &["--trace-sample-rate", "0"]).spans.len(), 0);
    let calls = 4_000;
    let report = burst(calls, &["--trace-sample-rate", "0.25"]);
    report.assert_nothing_lost();
    let kept = report.spans.len() as u64;
    // Ten standard deviations.
    assert!((calls / 4).abs_diff(kept) < 280, "{kept}");
    let sampling = teracron_common::Sampling::of(0.25);
    for span in &report.spans {
        let half =
            |range: std::ops::Range<usize>| u64::from_str_radix(&span.trace[range], 16).unwrap();
        assert!(
            sampling.keeps([half(0..16), half(16..32)]),
            "{}",
            span.trace
        );
    }
    // Children go with their roots: what is there has its parent, and every tree is whole.
    let program = compile("calls.c", &["-O2", "-static"]);
    let mut target = Target::start(&program, &["2", "100"]);
    let agent = Agent::start(
        target.pid,
        &[
            "--trace-sample-rate",
            "0.5",
            "--probe",
            "test:top",
            "--probe",
            "test:middle",
            "--probe",
            "test:leaf*",
        ],
    );
    target.go();
    target.log();
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    let trees: Vec<String> = report.trees().into_values().flatten().collect();
    // Untouched by sampling, every tree of `top` is one of the few that the program makes.
    let whole: std::collections::BTreeSet<&String> = trees
        .iter()
        .filter(|tree| tree.starts_with("(top "))
        .collect();
    assert!(!whole.is_empty() && whole.len() < 60, "{}", whole.len());
    assert!(whole.iter().all(|tree| tree.contains("(middle")));
}

#[test]
fn spans_carry_what_they_did_to_the_memory() {
    let program = compile("memory.c", &["-O1", "-static"]);
    let mut target = Target::start(&program, &[]);
    let agent = Agent::start(
        target.pid,
        &["--probe", "test:touch", "--probe", "test:rest"],
    );
    target.go();
    let log = target.log();
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    // The target writes down its resident pages and its faults around each call.
    let mut logged = log.iter().map(|line| {
        let numbers: Vec<i64> = line
            .split(' ')
            .skip(3)
            .map(|word| word.parse().unwrap())
            .collect();
        (numbers[0], numbers[1], numbers[2])
    });
    let mut spans = report.spans.clone();
    spans.sort_by_key(|span| span.started_at_ns);
    assert_eq!(spans.len(), 6);
    for span in &spans {
        let (after, delta, faults) = logged.next().unwrap();
        let number = |key: &str| span.metadata[key].as_i64().unwrap();
        // The kernel's count leaves out what single processors have not added yet: at most 64 pages
        // each; the target's own look costs a few pages more.
        let near = |a: i64, b: i64| (a - b).abs() <= 256 * 4096;
        assert!(near(number("mem.rss"), after), "{span:?} {after}");
        assert!(near(number("mem.rss_delta"), delta), "{span:?} {delta}");
        let taken = number("mem.page_faults");
        assert!((taken - faults).abs() <= 16, "{span:?} {faults}");
        let touched = span.operation == "touch";
        assert_eq!(taken > 4_000, touched, "{span:?}");
        assert_eq!(number("mem.rss_delta") > 15 << 20, touched, "{span:?}");
    }
    let plain = burst(10, &["--no-span-memory"]);
    assert!(plain.spans.iter().all(|span| span.metadata.is_null()));
}

/// The wall clock is set for real: `cargo xtask test-kernels` runs this in a machine of its own.
#[test]
#[ignore = "sets the machine's clock"]
fn started_at_follows_steps_of_the_wall_clock() {
    let program = compile("leaves.c", &["-O2", "-static"]);
    let agent = Agent::start_with(&[
        "--output",
        "json",
        "--exe",
        program.to_str().unwrap(),
        "--probe",
        "test:fast",
    ]);
    let now = || {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
    };
    let mut runs = Vec::new();
    for step in [3600, -7200, 1, 86_400, -5] {
        let set = libc::timespec {
            tv_sec: now().as_secs() as i64 + step,
            tv_nsec: 0,
        };
        // SAFETY: a valid pointer to a local.
        let done = unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const set) };
        assert_eq!(done, 0);
        // The agent notices at once, but nothing shows it; an emulated one needs its time.
        std::thread::sleep(std::time::Duration::from_secs(1));
        let before = now().as_millis() as u64;
        let mut target = Target::start(&program, &["burst", "50"]);
        let pid = target.pid;
        target.go();
        target.log();
        target.finish();
        runs.push((pid, before, now().as_millis() as u64));
    }
    agent.interrupt();
    let report = agent.finish();
    report.assert_nothing_lost();
    assert_eq!(report.spans.len(), 250);
    for span in &report.spans {
        let (_, before, after) = runs.iter().find(|(pid, ..)| *pid == span.pid).unwrap();
        assert!(
            (*before..=*after).contains(&span.started_at),
            "{span:?} not in {before}..{after}"
        );
    }
}

/// The main thread ends by `pthread_exit`, the process goes on in another: before the agent comes, or while it traces.
#[test]
fn a_main_thread_that_ends() {
    use tracer::kernel::Features;

    let program = compile("leader.c", &["-O2", "-pthread"]);
    for when in ["before", "first"] {
        let mut target = Target::start(&program, &[when]);
        let mut agent = Agent::start(target.pid, &["--probe", "t:work"]);
        target.go();
        assert_eq!(target.log(), ["300"]);
        let is_tied = when == "first" && !Features::detect().multi_link_by_process;
        if is_tied {
            // Its probes end with it there: they are attached anew, which is told.
            agent.hear("has ended; they are attached by another one");
            agent.hear("tracing 1 function now");
        }
        // Whoever lets go of a probe on the same function must not take its breakpoints along.
        let other = Target::start(&program, &["stays"]);
        let passer_by = Agent::start(other.pid, &["--probe", "t:work"]);
        passer_by.interrupt();
        passer_by.finish();
        target.go();
        assert_eq!(target.log(), ["600"]);
        target.finish();
        other.finish();
        let report = agent.finish();
        assert_eq!(report.spans.len(), 600, "{when}: {}", report.said);
        assert!(report.losses.is_empty());
        assert_eq!(
            report.said.contains("none lost"),
            !is_tied,
            "{}",
            report.said
        );
    }
}
