//! What others cost: a process that nobody traces pays while probes come and go in another one, and a call pays for
//! each further process of its file that has links of its own.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{Agent, Floor, Loop, Row, figures::Figures, thousand_program};
use crate::shell::{Result, output, root, run};

/// Microseconds.
struct Times {
    median: f64,
    most: [f64; 3],
}

/// Rows: fork and mmap of a stranger, alone, and while 1,000 probes are attached and detached without pause.
pub(super) fn rows(agent: &Path, folder: &Path, seconds: f64) -> Result<Vec<Row>> {
    let forks = folder.join("forks");
    run(Command::new("gcc")
        .args(["-O2", "-o"])
        .arg(&forks)
        .arg(root().join("xtask/src/bench/forks.c")))?;
    let seconds = seconds.max(4.0);
    let alone = measure(&forks, seconds)?;

    let target = Loop::start(&thousand_program(folder)?, "idle")?;
    let pid = target.child.id().to_string();
    let stranger = Command::new(&forks)
        .arg(seconds.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", forks.display()))?;
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let mut times = 0.0;
    while Instant::now() < until {
        let args = ["--pid", &pid, "--probe", "bench:work*", "--output", "none"];
        Agent::start(agent, &args)?.stop()?;
        times += 1.0;
    }
    let answer = stranger
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    let beside = parse(&String::from_utf8_lossy(&answer.stdout))?;

    let mut rows = vec![Row::one(
        "1,000 probes were attached and detached beside a stranger",
        "times",
        times,
    )];
    for (index, what) in ["fork", "mmap and munmap"].into_iter().enumerate() {
        for (when, times) in [("alone", &alone), ("beside it", &beside)] {
            rows.push(Row::one(
                format!("a stranger's {what}, {when}: median"),
                "us",
                times[index].median,
            ));
            for (part, value) in ["99 %", "99.9 %", "longest"].iter().zip(times[index].most) {
                rows.push(Row::one(
                    format!("a stranger's {what}, {when}: {part}"),
                    "us",
                    value,
                ));
            }
        }
    }
    Ok(rows)
}

/// Rows: an empty program at the agent's sites of one function, with more and more processes of the file that have
/// links of their own.
pub(super) fn crowd(figures: &Figures, folder: &Path, seconds: f64) -> Result<Vec<Row>> {
    let program = folder.join("loop-c");
    let target = Loop::start(&program, "fast")?;
    let untraced = target.measure(seconds)?;
    let pid = target.child.id();
    let mut floor = Floor::start(
        figures,
        &["--pid", &pid.to_string(), "--probe", "bench:work"],
    )?;
    floor.attach(pid)?;
    let mut rows = Vec::new();
    let mut others = Vec::new();
    for many in [1, 10, 100, 1000] {
        while others.len() + 1 < many {
            let other = Loop::start(&program, "idle")?;
            floor.attach(other.child.id())?;
            others.push(other);
        }
        rows.push(Row::one(
            format!("empty programs, {many} processes of the file with links of their own"),
            "ns per call",
            target.measure(seconds)? - untraced,
        ));
    }
    floor.end()?;
    Ok(rows)
}

fn measure(forks: &Path, seconds: f64) -> Result<[Times; 2]> {
    parse(&output(Command::new(forks).arg(seconds.to_string()))?)
}

fn parse(line: &str) -> Result<[Times; 2]> {
    let numbers: Vec<f64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [_, a, b, c, d, e, f, g, h] = numbers[..] else {
        return Err(format!("the stranger said {line:?}"));
    };
    Ok([
        Times {
            median: a,
            most: [b, c, d],
        },
        Times {
            median: e,
            most: [f, g, h],
        },
    ])
}
