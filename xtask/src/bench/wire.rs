//! What the way to the wire costs.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{Agent, Loop, Row, figures::Figures};
use crate::shell::{Result, output, root, run};

/// Processes that the idle agent samples.
const PROCESSES: usize = 10;

/// All figures, as rows.
pub(super) fn rows(
    agent: &Path,
    figures: &Figures,
    idle: &Path,
    folder: &Path,
) -> Result<Vec<Row>> {
    let mut rows = packed(figures)?;
    let wire = Wire::start(folder)?;
    let (share, resident) = sampling(agent, idle, &wire)?;
    let (waiting, full) = full_spool(agent, figures, idle, &wire, folder)?;
    for (name, unit, value) in [
        (
            "agent's share, sampling 10 processes every 10 s (to reach: 0.1)",
            "% of a core",
            share,
        ),
        ("agent's resident memory then", "MiB", resident),
        (
            "agent's resident memory with a full spool of 256 MiB (to reach: 40)",
            "MiB",
            full,
        ),
        ("sealed batches in that spool", "batches", waiting),
    ] {
        rows.push(Row::one(name, unit, value));
    }
    Ok(rows)
}

/// From kernel records to sealed envelopes on one core, measured in a program of its own.
fn packed(figures: &Figures) -> Result<Vec<Row>> {
    let printed = output(figures.command().arg("pack"))?;
    let value = |name: &str| {
        printed
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok())
            .ok_or_else(|| format!("the bench `pack` does not tell {name}: {printed}"))
    };
    Ok(vec![
        Row::one(
            "kernel record to sealed envelope, one core (to reach: 300,000)",
            "per s",
            value("sealed_per_second_100 ")?,
        ),
        Row::one(
            "the same in batches of 1,000",
            "per s",
            value("sealed_per_second_1000 ")?,
        ),
        Row::one(
            "bytes of a span on the wire, in batches of 100",
            "bytes",
            value("bytes_per_span_100 ")?,
        ),
    ])
}

/// A service that takes everything, and an account there.
struct Wire {
    child: Child,
    flags: Vec<String>,
}

impl Wire {
    fn start(folder: &Path) -> Result<Self> {
        let (certificate, key) = (folder.join("service.pem"), folder.join("service.key"));
        run(Command::new("openssl")
            .args([
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            ])
            .args([
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
            ])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .stderr(Stdio::null()))?;
        let mut child = Command::new("python3")
            .arg(root().join("xtask/src/bench/service.py"))
            .args([&certificate, &key])
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("python3: {error}"))?;
        let mut port = String::new();
        BufReader::new(child.stdout.take().ok_or("no stdout")?)
            .read_line(&mut port)
            .map_err(|error| error.to_string())?;
        let vectors = fs::read_to_string(root().join("crates/wire/tests/vectors.json"))
            .map_err(|error| error.to_string())?;
        // The test project's key: "key": "tcn_…" comes first.
        let api_key = vectors
            .split('"')
            .find(|word| word.starts_with("tcn_") && word.len() > 500)
            .ok_or("no API key in vectors.json")?;
        let flags = [
            "--api-key",
            api_key,
            "--domain",
            &format!("localhost:{}", port.trim()),
            "--allow-custom-domain",
            "--ca-file",
            &certificate.to_string_lossy(),
            "--run-dir",
            &folder.join("run").to_string_lossy(),
        ]
        .map(str::to_owned)
        .to_vec();
        Ok(Self { child, flags })
    }

    fn with<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let flags = self.flags.iter().map(String::as_str);
        flags.chain(more.iter().copied()).collect()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor share in percent and memory in MiB of an agent that samples ten processes, with one probe
/// in each, and ships to a service.
fn sampling(agent: &Path, idle: &Path, wire: &Wire) -> Result<(f64, f64)> {
    let targets = (0..PROCESSES)
        .map(|_| Loop::start(idle, "idle"))
        .collect::<Result<Vec<_>>>()?;
    let pids: Vec<String> = targets
        .iter()
        .map(|target| target.child.id().to_string())
        .collect();
    let mut args = wire.with(&[
        "--probe",
        "bench:work",
        "--interval",
        "10",
        "--flush-deadline",
        "20",
        "--no-spool",
    ]);
    for pid in &pids {
        args.extend(["--pid", pid]);
    }
    let tracer = Agent::start(agent, &args)?;
    std::thread::sleep(Duration::from_secs(3));
    let (cpu, since) = (tracer.cpu_seconds(), Instant::now());
    std::thread::sleep(Duration::from_secs(40));
    let share = (tracer.cpu_seconds() - cpu) / since.elapsed().as_secs_f64() * 100.0;
    let resident = tracer.resident_mib();
    tracer.stop()?;
    Ok((share, resident))
}

/// Sealed batches that wait, and the memory of an agent whose spool they fill: small ones, of which
/// there are most.
fn full_spool(
    agent: &Path,
    figures: &Figures,
    idle: &Path,
    wire: &Wire,
    folder: &Path,
) -> Result<(f64, f64)> {
    let spool = folder.join("spool");
    let _ = fs::remove_dir_all(&spool);
    let count: u32 = (256 << 20) / 4096;
    output(
        figures
            .command()
            .arg("spool")
            .arg(&spool)
            .arg(count.to_string()),
    )?;
    let target = Loop::start(idle, "idle")?;
    let pid = target.child.id().to_string();
    // Nobody listens there: everything stays.
    let mut args = wire.with(&[
        "--probe",
        "bench:work",
        "--pid",
        &pid,
        "--shutdown-timeout",
        "0",
    ]);
    for arg in &mut args {
        if arg.starts_with("localhost:") {
            *arg = "localhost:1";
        }
    }
    let spool_shown = spool.to_string_lossy().into_owned();
    args.extend(["--spool-dir", &spool_shown]);
    let tracer = Agent::start(agent, &args)?;
    std::thread::sleep(Duration::from_secs(3));
    let resident = tracer.resident_mib();
    tracer.stop()?;
    let _ = fs::remove_dir_all(&spool);
    Ok((f64::from(count), resident))
}
