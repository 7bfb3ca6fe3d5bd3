//! What other languages' calls cost, and what is read of a call.

use std::{path::Path, process::Command};

use super::{Agent, Loop, Row};
use crate::go_toolchain;
use crate::shell::{Result, root, run};

/// Untraced, then with each set of probes.
fn measure(agent: &Path, program: &Path, probes: &[&[&str]], seconds: f64) -> Result<Vec<f64>> {
    let target = Loop::start(program, "fast")?;
    let pid = target.child.id().to_string();
    let mut values = vec![target.measure(seconds)?];
    for set in probes {
        let mut arguments = vec!["--pid", &pid, "--output", "none"];
        for probe in *set {
            arguments.extend(["--probe", probe]);
        }
        let traced = Agent::start(agent, &arguments)?;
        // In its first second the agent has the kernel time the programs, which costs some itself.
        target.measure(1.5)?;
        values.push(target.measure(seconds)?);
        traced.stop()?;
    }
    Ok(values)
}

/// The rows.
pub(super) fn rows(agent: &Path, folder: &Path, seconds: f64) -> Result<Vec<Row>> {
    let source = root().join("xtask/src/bench");
    let captures = folder.join("loop-captures");
    run(Command::new("gcc")
        .args(["-g", "-O2", "-fcf-protection", "-o"])
        .arg(&captures)
        .arg(source.join("loop-captures.c")))?;
    let go = folder.join("loop-go");
    go_toolchain::build_go(
        &source.join("go"),
        folder,
        go_toolchain::GO_VERSIONS[0],
        &[],
        &go,
    );
    let futures = folder.join("loop-async");
    run(Command::new("rustc")
        .args(["--edition=2024", "-g", "-O", "-o"])
        .arg(&futures)
        .arg(source.join("loop-async.rs")))?;
    let c = measure(
        agent,
        &captures,
        &[
            &["b:work"],
            &["b:work(order_id)"],
            &["b:work(name)"],
            &["b:work(ret) fails ret < 0"],
        ],
        seconds,
    )?;
    let go = measure(
        agent,
        &go,
        &[&["b:main.work"], &["b:main.checked"], &["b:main.work(x)"]],
        seconds,
    )?;
    let futures = measure(
        agent,
        &futures,
        &[&["b:loop_async::ready"], &["b:loop_async::waits"]],
        seconds,
    )?;
    Ok([
        ("C: a call, nothing read", c[1] - c[0]),
        ("C: a call and an integer of its arguments", c[2] - c[0]),
        ("C: a call and a string of 11 bytes", c[3] - c[0]),
        ("C: a call, its result, and a failure rule", c[4] - c[0]),
        ("Go: a call", go[1] - go[0]),
        ("Go: a call with an error among its results", go[2] - go[0]),
        ("Go: a call and an integer of its arguments", go[3] - go[0]),
        ("Rust: an async call of one poll", futures[1] - futures[0]),
        ("Rust: an async call of two polls", futures[2] - futures[0]),
    ]
    .into_iter()
    .map(|(name, value)| Row::one(name, "ns per call", value))
    .collect())
}
