//! The asking side: `teracron-agent status`.

use std::{
    fs, io,
    io::Read as _,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use serde_json::Value as Json;

use model::{
    error::{Context as _, Error, Result},
    text::{self, duration, grouped},
};
use pipeline::output::print_line;

/// An agent that does not answer in this time is stuck.
const TIMEOUT: Duration = Duration::from_secs(5);
/// An answer is never longer.
const MAX_ANSWER: u64 = 4 << 20;

/// Options of `status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// Only the agent that is this process.
    #[arg(long, value_name = "PID")]
    pub agent: Option<u32>,
    /// Where the agents' sockets are.
    #[arg(long, value_name = "FOLDER", default_value = crate::status::FOLDER)]
    pub run_dir: PathBuf,
}

/// Asks the running agents.
///
/// # Errors
/// Where none runs, or the one that was asked for does not answer.
pub fn status(args: &StatusArgs, json: bool) -> Result<()> {
    let shown = text::shown(&args.run_dir.to_string_lossy());
    let sockets = match args.agent {
        Some(pid) => vec![args.run_dir.join(format!("agent-{pid}.sock"))],
        None => sockets(&args.run_dir).failed(|| shown.clone())?,
    };
    let mut answered = 0;
    for socket in sockets {
        match ask(&socket) {
            Ok(answer) => {
                answered += 1;
                if json {
                    print_line(answer.trim_end())?;
                } else {
                    let status =
                        serde_json::from_str(&answer).failed(|| "the agent's answer".to_owned())?;
                    print_line(&describe(&status))?;
                }
            }
            // An agent that was killed leaves its socket behind.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                let _ = fs::remove_file(&socket);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Error::Failed(format!(
                    "{}: {error}",
                    text::shown(&socket.to_string_lossy())
                )));
            }
        }
    }
    if answered == 0 {
        return Err(Error::NotFound(format!(
            "no agent answers in {shown}; agents that run elsewhere: --run-dir"
        )));
    }
    Ok(())
}

fn sockets(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut sockets: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "sock"))
        .collect();
    sockets.sort();
    Ok(sockets)
}

fn ask(socket: &Path) -> io::Result<String> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}

/// A status for people.
fn describe(status: &Json) -> String {
    let number = |path: &str| status.pointer(path).and_then(Json::as_u64).unwrap_or(0);
    let words =
        |path: &str| text::shown(status.pointer(path).and_then(Json::as_str).unwrap_or("-"));
    let count = |path: &str| {
        status
            .pointer(path)
            .and_then(Json::as_array)
            .map_or(0, Vec::len)
    };
    let mut lines = vec![
        format!(
            "agent {} (version {}), running for {}",
            number("/agent"),
            words("/version"),
            duration(number("/uptime_s").saturating_mul(1_000_000_000))
        ),
        format!(
            "  watches   {} processes, {} functions",
            count("/processes"),
            grouped(number("/functions"))
        ),
        format!(
            "  kernel    {} calls seen, {} spans, {} lost, {} left out by sampling",
            grouped(number("/kernel/entered")),
            grouped(number("/kernel/sent")),
            grouped(number("/kernel/lost")),
            grouped(number("/kernel/unsampled"))
        ),
    ];
    let inlined = status.pointer("/inlined").and_then(Json::as_array);
    for calls in inlined.into_iter().flatten() {
        let name = calls.pointer("/operation").and_then(Json::as_str);
        lines.push(format!(
            "  inlined   {} calls of {}",
            grouped(calls.pointer("/calls").and_then(Json::as_u64).unwrap_or(0)),
            text::shown(name.unwrap_or("-"))
        ));
    }
    if status.pointer("/wire").is_none_or(Json::is_null) {
        lines.push("  wire      none: no API key, everything stays here".to_owned());
        return lines.join("\n");
    }
    lines.push(format!(
        "  wire      {} to {}",
        words("/wire/project"),
        words("/wire/domain")
    ));
    for kind in ["spans", "samples", "events"] {
        let of = |name: &str| number(&format!("/wire/totals/{kind}/{name}"));
        let dropped: u64 = status
            .pointer(&format!("/wire/totals/{kind}/dropped"))
            .and_then(Json::as_object)
            .map_or(0, |causes| causes.values().filter_map(Json::as_u64).sum());
        lines.push(format!(
            "  {kind:<9} {} received, {} left over, {} shipped, {} in the spool, {} in memory, {} dropped",
            grouped(of("received")),
            grouped(of("left_over")),
            grouped(of("shipped")),
            grouped(of("spooled")),
            grouped(of("pending")),
            grouped(dropped)
        ));
    }
    lines.push(format!(
        "  spool     {} batches, {} KiB, {}",
        grouped(number("/wire/spool/batches")),
        grouped(number("/wire/spool/bytes") / 1024),
        match status.pointer("/wire/spool/folder").and_then(Json::as_str) {
            Some(folder) => text::shown(folder),
            None => "in memory".to_owned(),
        }
    ));
    lines.push(
        match status
            .pointer("/wire/service/failing")
            .and_then(Json::as_str)
        {
            Some(why) => format!("  service   failing: {}", text::shown(why)),
            None => "  service   takes everything".to_owned(),
        },
    );
    if number("/wire/service/rejected_entries") > 0 {
        lines.push(format!(
            "  rejected  {} batches, the last: {}",
            grouped(number("/wire/service/rejected_entries")),
            words("/wire/service/last_rejected")
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_for_people() {
        let board = super::super::Board::default();
        let status = serde_json::to_value(board.status(Duration::from_secs(75))).unwrap();
        let local = describe(&status).replace(&std::process::id().to_string(), "PID");
        insta::assert_snapshot!(local, @r"
        agent PID (version 0.1.0), running for 75.0 s
          watches   0 processes, 0 functions
          kernel    0 calls seen, 0 spans, 0 lost, 0 left out by sampling
          wire      none: no API key, everything stays here
        ");
    }
}
