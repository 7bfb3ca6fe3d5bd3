//! The asking side: `teracron-agent status`.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    fs::FileType,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};

use clap::Args;
use serde_json::Value as Json;

use model::{
    error::{Context as _, Error, Result},
    text::{self, duration, grouped},
};
use pipeline::{output::print_line, own_files::Folder};

/// An agent that has not answered in this time, from beginning to end, is stuck.
const TIMEOUT: Duration = Duration::from_secs(5);
/// An answer is never longer.
const MAX_ANSWER: usize = 4 << 20;

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
        Some(pid) => vec![args.run_dir.join(super::socket_name(pid))],
        None => sockets(&args.run_dir).failed(|| shown.clone())?,
    };
    let mut answered = 0;
    for socket in sockets {
        match ask(&socket) {
            Ok(answer) => {
                answered += 1;
                let status: Json =
                    serde_json::from_str(&answer).failed(|| "the agent's answer".to_owned())?;
                if json {
                    print_line(&text::json(&answer))?;
                } else {
                    print_line(&describe(&status))?;
                }
            }
            // An agent that was killed leaves its socket behind.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                remove_left_over(&args.run_dir, &socket);
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
        .filter(|entry| agent_of(&entry.file_name().to_string_lossy()).is_some())
        .map(|entry| entry.path())
        .collect();
    sockets.sort();
    Ok(sockets)
}

/// Whose socket has this name.
fn agent_of(name: &str) -> Option<u32> {
    let number = name.strip_prefix("agent-")?.strip_suffix(".sock")?;
    number.parse().ok()
}

/// Removes a socket that nobody listens to any more: of our own user's agents, where nobody else has a say.
fn remove_left_over(folder: &Path, socket: &Path) {
    let name = socket.file_name().and_then(|name| name.to_str());
    if let (Ok(folder), Some(name)) = (Folder::open(folder), name)
        && folder.has_own(name, FileType::Socket)
    {
        let _ = folder.remove(name);
    }
}

fn ask(path: &Path) -> io::Result<String> {
    let until = Instant::now() + TIMEOUT;
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // Connecting waits where too many wait already, as long as sending may.
    set_socket_timeout(&socket, Timeout::Send, Some(TIMEOUT))?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let mut stream = UnixStream::from(socket);
    let (mut answer, mut piece) = (Vec::new(), [0; 16 << 10]);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let read = match stream.read(&mut piece) {
            // What the system calls a timeout that was set.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            read => read?,
        };
        answer.extend_from_slice(&piece[..read]);
        if read == 0 || answer.len() > MAX_ANSWER {
            break;
        }
    }
    String::from_utf8(answer).map_err(io::Error::other)
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
    let fails = status.pointer("/wire/totals/scrubber_fails") == Some(&Json::Bool(true));
    let unscrubbed = number("/wire/totals/scrub_failures");
    if fails || unscrubbed > 0 {
        lines.push(format!(
            "  scrubber  {}, {} spans without their data so far",
            if fails { "fails" } else { "answers again" },
            grouped(unscrubbed)
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
    fn an_answer_that_drips_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent-1.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let dripping = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // As long as somebody listens.
            while io::Write::write_all(&mut stream, b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        let began = Instant::now();
        let error = ask(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!((4..8).contains(&began.elapsed().as_secs()));
        dripping.join().unwrap();
    }

    #[test]
    fn only_agents_sockets_are_asked_and_only_left_over_ones_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["agent-7.sock", "other.sock", "agent-x.sock"] {
            drop(std::os::unix::net::UnixListener::bind(path(name)).unwrap());
        }
        fs::write(path("agent-8.sock"), "x").unwrap();
        assert_eq!(
            sockets(folder.path()).unwrap(),
            [path("agent-7.sock"), path("agent-8.sock")]
        );
        for name in ["agent-7.sock", "agent-8.sock"] {
            remove_left_over(folder.path(), &path(name));
        }
        assert!(!path("agent-7.sock").exists() && path("agent-8.sock").exists());
        assert!(path("other.sock").exists());
    }

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
