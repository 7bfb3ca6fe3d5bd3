//! `teracron-agent doctor`: can this machine trace, and if not, what helps?

mod pid_namespace;
mod privileges;

use std::{fs, io, path::Path};

use serde::Serialize;

use model::{
    error::{Error, Result},
    text, wrap,
};
use pipeline::output::print_line;
use tracer::kernel::{Btf, Features, Options, Session};

pub use pid_namespace::demand as demand_host_pids;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// Works, with a limit.
    Warning,
    /// `run` can't work.
    Failed,
}

#[derive(Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    todo: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Ok,
            found: found.into(),
            todo: None,
        }
    }

    fn bad(
        name: &'static str,
        verdict: Verdict,
        found: impl Into<String>,
        todo: impl Into<String>,
    ) -> Self {
        Self {
            name,
            verdict,
            found: found.into(),
            todo: Some(todo.into()),
        }
    }
}

/// Checks the machine.
///
/// # Errors
/// [`Error::Missing`] where `run` would not work.
pub fn doctor(json: bool) -> Result<()> {
    let all: [fn() -> Check; 10] = [
        privileges::check,
        pid_namespace::check,
        kernel,
        btf,
        uprobes,
        tracefs,
        lockdown,
        memory_limit,
        open_files,
        programs,
    ];
    let mut checks = Vec::new();
    for check in all {
        let check = check();
        if !json {
            // At once: some take a while.
            show(&check)?;
        }
        checks.push(check);
    }
    let failed: Vec<&str> = checks
        .iter()
        .filter(|check| check.verdict == Verdict::Failed)
        .map(|check| check.name)
        .collect();
    let features = Features::detect();
    if json {
        let object = serde_json::json!({
            "ok": failed.is_empty(),
            "version": env!("CARGO_PKG_VERSION"),
            "features": features.names(),
            "checks": checks,
        });
        print_line(&text::json(&object.to_string()))?;
    } else {
        print_line("")?;
        print_fitting(
            &format!("This kernel: {}.", features.names().join(", ")),
            "  ",
        )?;
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Error::Missing(format!(
            "this machine can't trace: {}",
            failed.join(", ")
        )))
    }
}

/// Prints a check, and what to do.
fn show(check: &Check) -> Result<()> {
    /// Under the text of a check.
    const INDENT: &str = "                       ";
    let mark = match check.verdict {
        Verdict::Ok => "ok  ",
        Verdict::Warning => "warn",
        Verdict::Failed => "FAIL",
    };
    print_fitting(
        &format!("{mark}  {:<16} {}", check.name, check.found),
        INDENT,
    )?;
    match &check.todo {
        Some(todo) => print_fitting(&format!("{INDENT}→ {todo}"), INDENT),
        None => Ok(()),
    }
}

/// Prints a line, on several where a terminal has no room.
fn print_fitting(line: &str, indent: &str) -> Result<()> {
    match wrap::columns(io::stdout()) {
        Some(columns) => print_line(&wrap::wrap(line, columns, indent)),
        None => print_line(line),
    }
}

fn kernel() -> Check {
    let (major, minor) = Features::detect().kernel;
    let (old_major, old_minor) = tracer::kernel::OLDEST_KERNEL;
    let found = format!("Linux {major}.{minor}");
    if (major, minor) >= (old_major, old_minor) {
        Check::ok("kernel", found)
    } else {
        Check::bad(
            "kernel",
            Verdict::Failed,
            found,
            format!(
                "{old_major}.{old_minor} or newer is needed: attach cookies of uprobes came with it"
            ),
        )
    }
}

fn btf() -> Check {
    match Btf::from_kernel().and_then(|btf| btf.kernel_config()) {
        Ok(_) => Check::ok("BTF", "the kernel describes its types"),
        Err(error) => Check::bad(
            "BTF",
            Verdict::Failed,
            error.to_string(),
            if Path::new("/sys/kernel").exists() {
                "use a kernel with CONFIG_DEBUG_INFO_BTF=y (the distributions' have it)"
            } else {
                "mount /sys: there is nothing here (in a container: the host's, read-only)"
            },
        ),
    }
}

fn uprobes() -> Check {
    match fs::read_to_string("/sys/bus/event_source/devices/uprobe/type") {
        Ok(_) => Check::ok("uprobes", "the kernel has them"),
        Err(error) => Check::bad(
            "uprobes",
            Verdict::Failed,
            format!("/sys/bus/event_source/devices/uprobe: {error}"),
            "use a kernel with CONFIG_UPROBE_EVENTS=y, and mount /sys",
        ),
    }
}

fn tracefs() -> Check {
    let mounted = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .iter()
        .any(|path| fs::metadata(format!("{path}/trace")).is_ok());
    Check::ok(
        "tracefs",
        if mounted {
            "mounted (not needed)"
        } else {
            "not mounted (not needed: raw tracepoints are used)"
        },
    )
}

fn lockdown() -> Check {
    match fs::read_to_string("/sys/kernel/security/lockdown") {
        Ok(state) if state.contains("[confidentiality]") => Check::bad(
            "lockdown",
            Verdict::Failed,
            "confidentiality: eBPF may not read kernel memory",
            "boot with lockdown=integrity or without Secure Boot's confidentiality mode",
        ),
        Ok(state) => Check::ok("lockdown", state.trim().to_owned()),
        Err(_) => Check::ok("lockdown", "off"),
    }
}

fn memory_limit() -> Check {
    let limit = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .iter()
    .find_map(|path| fs::read_to_string(path).ok())
    .and_then(|text| text.trim().parse::<u64>().ok());
    const WANTED: u64 = 64 << 20;
    match limit {
        Some(limit) if limit < WANTED => Check::bad(
            "memory limit",
            Verdict::Warning,
            format!("{} MiB", limit >> 20),
            "give it 64 MiB; maps and the ring buffer count",
        ),
        Some(limit) if limit < 1 << 50 => Check::ok("memory limit", format!("{} MiB", limit >> 20)),
        _ => Check::ok("memory limit", "none"),
    }
}

fn open_files() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    if Features::detect().multi_link || most >= 16_384 {
        Check::ok("open files", format!("limit {most}"))
    } else {
        Check::bad(
            "open files",
            Verdict::Warning,
            format!("limit {most}"),
            "this kernel needs one descriptor per site: raise it for many probes (ulimit -n)",
        )
    }
}

/// Loads the programs: the proof of everything above, the ring buffer and cookies among it.
fn programs() -> Check {
    match Session::load(
        Features::detect(),
        Options {
            follow: true,
            debug: false,
            span_memory: true,
            sample_rate: 1.0,
        },
    ) {
        Ok(mut session) => match session.load_all() {
            Ok(()) => Check::ok(
                "programs",
                if session.uses_multi_links() {
                    "loaded: ring buffer, cookies, raw tracepoints, uprobe multi links"
                } else {
                    "loaded: ring buffer, cookies, raw tracepoints"
                },
            ),
            Err(error) => Check::bad(
                "programs",
                Verdict::Warning,
                error.to_string(),
                "calls can be traced, but not their arguments, nor Go functions",
            ),
        },
        Err(error) => Check::bad(
            "programs",
            Verdict::Failed,
            error.to_string(),
            "see the checks above; without a hint there, please report this line",
        ),
    }
}
