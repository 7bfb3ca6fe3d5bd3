//! Probes follow what processes map: libraries that are loaded later, programs that take over, executables
//! that are replaced.

use std::{fs, path::Path, time::Instant};

use crate::support::*;

/// Waits until the new set of probes counts; answers how long that took, in milliseconds.
fn followed(agent: &mut Agent, since: Instant) -> u128 {
    agent.hear("tracing 1 function now");
    since.elapsed().as_millis()
}

fn assert_traced(report: &Report, operation: &str) {
    report.assert_nothing_lost();
    assert_eq!(report.spans.len(), 20, "{report:?}");
    assert!(report.spans.iter().all(|span| span.operation == operation));
}

#[test]
fn a_library_that_is_loaded_later() {
    let plugin = compile("plugged.c", &["-O2", "-shared", "-fPIC"]);
    let program = compile("later.c", &["-O2"]);
    let name = format!("{}.so", plugin.file_name().unwrap().to_str().unwrap());
    let plugin = {
        let named = plugin.with_file_name(&name);
        fs::rename(plugin, &named).unwrap();
        named
    };
    let mut target = Target::start(&program, &["load", plugin.to_str().unwrap()]);
    let probe = format!("a:plugged@{name}");
    let mut agent = Agent::start(target.pid, &["--probe", &probe]);
    assert!(agent.said.contains("is not mapped yet"), "{}", agent.said);
    let since = Instant::now();
    target.go();
    let took = followed(&mut agent, since);
    target.go();
    target.log();
    target.finish();
    assert_traced(&agent.finish(), "plugged");
    println!("followed after {took} ms");
}

#[test]
fn another_program_that_takes_over() {
    let program = compile("later.c", &["-O2"]);
    let other = compile("later.c", &["-O1"]);
    let mut target = Target::start(&program, &["exec", other.to_str().unwrap()]);
    let mut agent = Agent::start(target.pid, &["--probe", "a:leaf"]);
    let since = Instant::now();
    target.go();
    target.expect(&format!("ready {}", target.pid));
    followed(&mut agent, since);
    target.go();
    target.log();
    target.finish();
    assert_traced(&agent.finish(), "leaf");
}

#[test]
fn an_executable_that_is_replaced() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("replaced");
    fs::create_dir_all(&folder).unwrap();
    let installed = folder.join("service");
    copy(compile("later.c", &["-O2"]), &installed);
    let path = installed.to_str().unwrap();
    let mut agent = Agent::start_with(&["--output", "json", "--exe", path, "--probe", "a:leaf"]);
    let new = folder.join("service.new");
    copy(compile("later.c", &["-O1"]), &new);
    fs::rename(&new, &installed).unwrap();
    followed(&mut agent, Instant::now());
    let mut target = Target::start(&installed, &["run"]);
    target.go();
    target.log();
    target.finish();
    agent.interrupt();
    assert_traced(&agent.finish(), "leaf");
}
