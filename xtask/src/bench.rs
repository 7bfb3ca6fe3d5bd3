//! What tracing costs, beside other tools, in one run.
//!
//! Every figure is nanoseconds per call of a loop that does nothing but call, on one core; what
//! the loop takes untraced is subtracted. Absolute values are this machine's; the ratios are the
//! result.

mod figures;
mod foreign;
mod languages;
mod strangers;
mod wire;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::shell::{Result, again_as_root, build_agent, need, root, run, step, target_dir, which};
use figures::{Figures, Floor};

/// A program that calls in a loop and prints nanoseconds per call, round by round.
struct Loop {
    child: Child,
    lines: std::sync::mpsc::Receiver<f64>,
}

impl Loop {
    fn start(program: &Path, what: &str) -> Result<Self> {
        let mut child = Command::new(program)
            .arg(what)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let (send, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout)
                .lines()
                .map_while(std::result::Result::ok)
            {
                if let Ok(per_call) = line.parse::<f64>()
                    && send.send(per_call).is_err()
                {
                    break;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// Median nanoseconds per call over a while.
    fn measure(&self, seconds: f64) -> Result<f64> {
        while self.lines.try_recv().is_ok() {}
        let mut rounds = Vec::new();
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        while Instant::now() < until || rounds.len() < 5 {
            let round = self
                .lines
                .recv_timeout(Duration::from_secs(20))
                .map_err(|_| "the measured program says nothing any more".to_owned())?;
            rounds.push(round);
        }
        // The first may be half before.
        rounds.remove(0);
        rounds.sort_by(f64::total_cmp);
        Ok(rounds[rounds.len() / 2])
    }

    fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The agent beside a loop.
struct Agent {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Agent {
    fn start(agent: &Path, args: &[&str]) -> Result<Self> {
        let mut child = Command::new(agent)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", agent.display()))?;
        let mut stderr = BufReader::new(child.stderr.take().ok_or("no stderr")?);
        let mut said = String::new();
        loop {
            let before = said.len();
            if stderr
                .read_line(&mut said)
                .map_err(|error| error.to_string())?
                == 0
            {
                return Err(format!("the agent ended: {said}"));
            }
            if said[before..].contains("Ctrl-C ends") {
                return Ok(Self { child, stderr });
            }
        }
    }

    /// Asks it to stop; answers what it said at the end.
    fn stop(mut self) -> Result<String> {
        run(Command::new("kill").args(["-INT", &self.child.id().to_string()]))?;
        let mut said = String::new();
        self.stderr
            .read_to_string(&mut said)
            .map_err(|error| error.to_string())?;
        let status = self.child.wait().map_err(|error| error.to_string())?;
        if status.success() {
            Ok(said)
        } else {
            Err(format!("the agent: {status}: {said}"))
        }
    }

    /// Processor seconds so far.
    fn cpu_seconds(&self) -> f64 {
        let stat =
            fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let after = stat.rsplit(") ").next().unwrap_or_default();
        let ticks: f64 = after
            .split(' ')
            .skip(11)
            .take(2)
            .filter_map(|word| word.parse::<f64>().ok())
            .sum();
        ticks / 100.0
    }

    fn resident_mib(&self) -> f64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok())
            .map_or(0.0, |kib| kib / 1024.0)
    }
}

/// One row of the table.
struct Row {
    name: String,
    unit: &'static str,
    c: Option<f64>,
    plain: Option<f64>,
    cpp: Option<f64>,
}

impl Row {
    /// A figure that is not of a loop.
    fn one(name: impl Into<String>, unit: &'static str, value: f64) -> Self {
        Self {
            name: name.into(),
            unit,
            c: Some(value),
            plain: None,
            cpp: None,
        }
    }
}

/// Rows that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Calls of C and C++, beside other tools; the agent at rest and at the full rate.
    Calls,
    /// Other languages, and what is read of a call.
    Languages,
    /// Programs that nobody here wrote.
    Foreign,
    /// The way to the wire.
    Wire,
    /// A process that nobody traces, while probes come and go.
    Strangers,
}

pub(crate) fn bench(seconds: f64, out: &Path, only: Option<Part>) -> Result<()> {
    if again_as_root()? {
        return Ok(());
    }
    need(&[
        ("pgrep", "procps"),
        ("g++", "g++"),
        ("gcc", "gcc"),
        ("bpftrace", "bpftrace"),
        ("python3", "python3"),
        ("openssl", "openssl"),
    ])?;
    need(crate::test::FOREIGN)?;
    let agent = build_agent()?;
    let folder = target_dir().join("bench");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let source = root().join("xtask/src/bench");
    let c = folder.join("loop-c");
    let plain = folder.join("loop-c-plain");
    let cpp = folder.join("loop-cpp");
    // What distributions compile with today (Ubuntu, Debian 13), and gcc's own defaults (Debian 12).
    let usual = ["-O2", "-fstack-protector-strong", "-fcf-protection"];
    for (flags, program) in [(&usual[..], &c), (&["-O2"], &plain)] {
        run(Command::new("gcc")
            .args(flags)
            .arg("-o")
            .arg(program)
            .arg(source.join("loop.c")))?;
    }
    run(Command::new("g++")
        .args(["-O2", "-o"])
        .arg(&cpp)
        .arg(source.join("loop.cpp")))?;

    let wanted = |part| only.is_none_or(|only| only == part);
    let figures = Figures::build()?;
    let mut rows = Vec::new();
    if wanted(Part::Calls) {
        rows.extend(step("measuring calls of C and C++", || {
            calls(&agent, &figures, &folder, seconds)
        })?);
    }
    if wanted(Part::Languages) {
        rows.extend(step("measuring languages and captures", || {
            languages::rows(&agent, &folder, seconds)
        })?);
    }
    if wanted(Part::Foreign) {
        rows.extend(step("measuring programs that nobody here wrote", || {
            foreign::rows(&agent, &folder, seconds)
        })?);
    }
    if wanted(Part::Wire) {
        rows.extend(step("measuring the way to the wire", || {
            wire::rows(&agent, &figures, &folder.join("loop-c"), &folder)
        })?);
    }
    if wanted(Part::Strangers) {
        rows.extend(step("measuring what strangers pay", || {
            let mut rows = strangers::rows(&agent, &folder, seconds)?;
            rows.extend(strangers::crowd(&figures, &folder, seconds)?);
            Ok(rows)
        })?);
    }

    print(&rows);
    write(&rows, out)
}

/// The rows of C and C++.
fn calls(agent: &Path, figures: &Figures, folder: &Path, seconds: f64) -> Result<Vec<Row>> {
    let [c, plain, cpp] = ["loop-c", "loop-c-plain", "loop-cpp"].map(|name| folder.join(name));
    let mut rows = Vec::new();
    let c_calls = per_call(agent, figures, &c, seconds)?;
    let plain_calls = per_call(agent, figures, &plain, seconds)?;
    let cpp_calls = per_call(agent, figures, &cpp, seconds)?;
    for (index, name) in [
        "untraced",
        "empty programs at the same sites (the floor)",
        "the agent",
        "bpftrace (entry and return, histogram)",
        "the agent, spans without memory figures (--no-span-memory)",
        "the agent, calls that sampling leaves out (a rate of 0.001)",
    ]
    .into_iter()
    .enumerate()
    {
        rows.push(Row {
            name: name.to_owned(),
            unit: "ns per call",
            c: c_calls[index],
            plain: plain_calls[index],
            cpp: cpp_calls[index],
        });
    }
    let over = |calls: &[Option<f64>; 6], index: usize| Some(calls[index]? - calls[0]?);
    let ratio =
        |calls: &[Option<f64>; 6], below: usize| Some(over(calls, 2)? / over(calls, below)?);
    rows.push(Row {
        name: "agent / floor (to reach for C: 1.5)".to_owned(),
        unit: "ratio",
        c: ratio(&c_calls, 1),
        plain: ratio(&plain_calls, 1),
        cpp: ratio(&cpp_calls, 1),
    });
    rows.push(Row {
        name: "agent / bpftrace (to reach for C: 0.25)".to_owned(),
        unit: "ratio",
        c: ratio(&c_calls, 3),
        plain: ratio(&plain_calls, 3),
        cpp: ratio(&cpp_calls, 3),
    });

    say("the full rate of one core", &c);
    let (rate, lost, share, resident) = full_rate(agent, &c, seconds)?;
    for (name, unit, value) in [
        ("spans read at the full rate of one core", "per s", rate),
        ("spans lost at that rate (to reach: 0)", "spans", lost),
        ("agent's processor share at that rate", "% of a core", share),
        ("agent's resident memory at that rate", "MiB", resident),
    ] {
        rows.push(Row::one(name, unit, value));
    }
    say("at rest, 20 s", &c);
    let (share, resident) = at_rest(agent, &c)?;
    say("1,000 probes", &c);
    let (attach, one, many) = thousand(agent, folder, seconds)?;
    for (name, unit, value) in [
        (
            "agent's processor share at rest (to reach: 0.1)",
            "% of a core",
            share,
        ),
        (
            "agent's resident memory at rest (to reach: 20)",
            "MiB",
            resident,
        ),
        (
            "attaching 1,000 probes, from start to armed (to reach: 3)",
            "s",
            attach,
        ),
        (
            "cost per hit with 1,000 probes / with 1",
            "ratio",
            many / one,
        ),
    ] {
        rows.push(Row::one(name, unit, value));
    }
    Ok(rows)
}

/// Untraced, floor, agent, bpftrace, agent without memory figures, agent with calls left out.
fn per_call(
    agent: &Path,
    figures: &Figures,
    program: &Path,
    seconds: f64,
) -> Result<[Option<f64>; 6]> {
    say("calls", program);
    let target = Loop::start(program, "fast")?;
    let pid = target.child.id().to_string();
    let untraced = target.measure(seconds)?;
    let probed = ["--pid", &pid, "--probe", "bench:work", "--output", "none"];
    let mut floor = Floor::start(figures, &probed)?;
    floor.attach(0)?;
    let floor_value = target.measure(seconds)?;
    floor.end()?;
    let with = |more: &[&str]| -> Result<f64> {
        let traced = Agent::start(agent, &[&probed, more].concat())?;
        // In its first second the agent has the kernel time the programs, which costs some itself.
        target.measure(1.5)?;
        let value = target.measure(seconds)?;
        traced.stop()?;
        Ok(value)
    };
    let agent_value = with(&[])?;
    let plain = with(&["--no-span-memory"])?;
    let unsampled = with(&["--trace-sample-rate", "0.001"])?;
    drop(target);
    let bpftrace = bpftrace(program, seconds)?;
    Ok([
        Some(untraced),
        Some(floor_value),
        Some(agent_value),
        bpftrace,
        Some(plain),
        Some(unsampled),
    ])
}

/// Says what is measured now.
fn say(what: &str, program: &Path) {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    eprintln!("xtask:   {what}: {name}");
}

/// How many spans the last line of a run tells.
fn spans_told(said: &str) -> Option<f64> {
    said.lines()
        .find_map(|line| line.split_once(" spans (")?.0.rsplit(' ').next())
        .and_then(|number| number.replace(',', "").parse().ok())
}

/// bpftrace on a target of its own, which it may kill; `None` where it is not installed or does.
fn bpftrace(program: &Path, seconds: f64) -> Result<Option<f64>> {
    if which("bpftrace").is_none() {
        return Ok(None);
    }
    let mut target = Loop::start(program, "fast")?;
    let path = program.display();
    let symbol = symbol(program)?;
    let script = format!(
        "uprobe:{path}:{symbol} {{ @start[tid] = nsecs; }} uretprobe:{path}:{symbol} /@start[tid]/ {{ @ns = hist(nsecs - @start[tid]); delete(@start[tid]); }}"
    );
    let before = target.measure(0.2)?;
    let mut tracer = Command::new("bpftrace")
        .args(["-e", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("bpftrace: {error}"))?;
    // It is in place when calls become slow.
    let attached = (0..100).any(|_| target.measure(0.1).is_ok_and(|now| now > before + 400.0));
    let value = if attached {
        target.measure(seconds).ok()
    } else {
        None
    };
    let survived = target.alive();
    run(Command::new("kill").args(["-INT", &tracer.id().to_string()]))?;
    let _ = tracer.wait();
    Ok(value.filter(|_| survived))
}

/// The traced function's symbol.
fn symbol(program: &Path) -> Result<String> {
    let listed = crate::shell::output(Command::new("nm").arg(program))?;
    listed
        .lines()
        .filter_map(|line| line.rsplit(' ').next())
        .find(|name| *name == "work" || *name == "_Z4worki")
        .map(str::to_owned)
        .ok_or_else(|| format!("{} has no work()", program.display()))
}

/// Spans a second, spans lost, processor share in percent, memory in MiB.
fn full_rate(agent: &Path, program: &Path, seconds: f64) -> Result<(f64, f64, f64, f64)> {
    let target = Loop::start(program, "fast")?;
    let pid = target.child.id().to_string();
    let tracer = Agent::start(
        agent,
        &["--pid", &pid, "--probe", "bench:work", "--output", "none"],
    )?;
    let (cpu, since) = (tracer.cpu_seconds(), Instant::now());
    std::thread::sleep(Duration::from_secs_f64(seconds.max(2.0)));
    let share = (tracer.cpu_seconds() - cpu) / since.elapsed().as_secs_f64() * 100.0;
    let resident = tracer.resident_mib();
    let said = tracer.stop()?;
    let summary = said.lines().last().unwrap_or_default();
    let number = |text: &str| text.replace(',', "").parse::<f64>().unwrap_or(f64::NAN);
    let spans = spans_told(&said).unwrap_or(f64::NAN);
    let elapsed = since.elapsed().as_secs_f64();
    let lost = if summary.contains("none lost") {
        0.0
    } else {
        summary
            .split(" lost (")
            .next()
            .and_then(|head| head.rsplit(' ').next())
            .map_or(f64::NAN, number)
    };
    Ok((spans / elapsed, lost, share, resident))
}

/// Processor share in percent, memory in MiB.
fn at_rest(agent: &Path, program: &Path) -> Result<(f64, f64)> {
    let target = Loop::start(program, "idle")?;
    let pid = target.child.id().to_string();
    let tracer = Agent::start(
        agent,
        &["--pid", &pid, "--probe", "bench:work", "--output", "none"],
    )?;
    std::thread::sleep(Duration::from_secs(2));
    let (cpu, since) = (tracer.cpu_seconds(), Instant::now());
    std::thread::sleep(Duration::from_secs(20));
    let share = (tracer.cpu_seconds() - cpu) / since.elapsed().as_secs_f64() * 100.0;
    let resident = tracer.resident_mib();
    tracer.stop()?;
    Ok((share, resident))
}

/// The loop with 999 functions more.
fn thousand_program(folder: &Path) -> Result<PathBuf> {
    let mut source = fs::read_to_string(root().join("xtask/src/bench/loop.c"))
        .map_err(|error| error.to_string())?;
    for number in 0..999 {
        source.push_str(&format!(
            "int work_{number}(int x) {{ return work(x) + {number}; }}\n"
        ));
    }
    let path: PathBuf = folder.join("thousand.c");
    let program = folder.join("loop-thousand");
    fs::write(&path, source).map_err(|error| error.to_string())?;
    run(Command::new("gcc")
        .args(["-O2", "-o"])
        .arg(&program)
        .arg(&path))?;
    Ok(program)
}

/// Seconds to attach 1,000 probes; nanoseconds per call with one and with 1,000.
fn thousand(agent: &Path, folder: &Path, seconds: f64) -> Result<(f64, f64, f64)> {
    let target = Loop::start(&thousand_program(folder)?, "fast")?;
    let pid = target.child.id().to_string();
    let untraced = target.measure(seconds)?;
    let single = Agent::start(
        agent,
        &["--pid", &pid, "--probe", "bench:work", "--output", "none"],
    )?;
    let one = target.measure(seconds)? - untraced;
    single.stop()?;
    let started = Instant::now();
    let all = Agent::start(
        agent,
        &["--pid", &pid, "--probe", "bench:work*", "--output", "none"],
    )?;
    let attach = started.elapsed().as_secs_f64();
    let many = target.measure(seconds)? - untraced;
    all.stop()?;
    Ok((attach, one, many))
}

fn shown(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value.abs() >= 1000.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.2}"),
    }
}

fn print(rows: &[Row]) {
    println!(
        "{:<68} {:<12} {:>10} {:>10} {:>10}",
        "", "", "C", "C plain", "C++"
    );
    for row in rows {
        println!(
            "{:<68} {:<12} {:>10} {:>10} {:>10}",
            row.name,
            row.unit,
            shown(row.c),
            shown(row.plain),
            shown(row.cpp)
        );
    }
}

fn write(rows: &[Row], out: &Path) -> Result<()> {
    let number = |value: Option<f64>| value.map_or("null".to_owned(), |value| format!("{value}"));
    let lines: Vec<String> = rows
        .iter()
        .map(|row| {
            format!(
                "  {{\"name\": \"{}\", \"unit\": \"{}\", \"c\": {}, \"c_plain\": {}, \"cpp\": {}}}",
                row.name,
                row.unit,
                number(row.c),
                number(row.plain),
                number(row.cpp)
            )
        })
        .collect();
    let out = root().join(out);
    fs::write(&out, format!("[\n{}\n]\n", lines.join(",\n")))
        .map_err(|error| format!("{}: {error}", out.display()))?;
    println!("\nwritten to {}", out.display());
    Ok(())
}
