//! The asking side: `teracron-agent status`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use rustix::fs::FileType;

use super::{
    describe::describe,
    question::{self, Question},
    report::StatusReport,
};
use model::{
    error::{Context as _, Error, Result},
    text,
};
use pipeline::{output::print_line, own_files::Folder};

/// All agents that have not answered in this time, from beginning to end, are stuck.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Agents that are asked at once: each takes a descriptor.
const MOST: usize = 256;

/// Options of `status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// Only the agent that is this process.
    #[arg(long, value_name = "PID", value_parser = crate::config::process_id::read)]
    pub agent: Option<u32>,
    /// Where the agents' sockets are.
    #[arg(long, value_name = "FOLDER", default_value = crate::status::FOLDER)]
    pub run_dir: PathBuf,
}

/// Asks the running agents.
///
/// # Errors
/// Where none runs, or one that runs does not answer: after the answers of the others.
pub fn status(args: &StatusArgs, json: bool) -> Result<()> {
    let shown = text::shown(&args.run_dir.to_string_lossy());
    let mut sockets = match args.agent {
        Some(pid) => vec![args.run_dir.join(super::socket_name(pid))],
        None => sockets(&args.run_dir).map_err(|error| unreadable(&shown, &error))?,
    };
    if sockets.len() > MOST {
        eprintln!("teracron-agent: {shown} has more than {MOST} sockets: the first are asked");
        sockets.truncate(MOST);
    }
    let mut questions: Vec<Question> = sockets.into_iter().map(Question::new).collect();
    question::ask(&mut questions, Instant::now() + TIMEOUT)
        .failed(|| "cannot wait for answers".to_owned())?;
    let (mut answered, mut problems) = (0, Vec::new());
    for Question { path, outcome, .. } in questions {
        match outcome {
            Ok(answer) => match print(&answer, json)? {
                Ok(()) => answered += 1,
                Err(problem) => problems.push((path, problem)),
            },
            // An agent that was killed leaves its socket behind.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                remove_left_over(&args.run_dir, &path);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(unreadable(&text::shown(&path.to_string_lossy()), &error));
            }
            Err(error) => problems.push((path, error.to_string())),
        }
    }
    let mut problems: Vec<String> = problems
        .into_iter()
        .map(|(path, problem)| format!("{}: {problem}", text::shown(&path.to_string_lossy())))
        .collect();
    if let Some(last) = problems.pop() {
        for problem in problems {
            eprintln!("teracron-agent: {problem}");
        }
        return Err(Error::Failed(last));
    }
    if answered == 0 {
        return Err(Error::NotFound(match args.agent {
            Some(pid) => format!(
                "no agent with the id {pid} answers in {shown}; agents that run elsewhere: --run-dir"
            ),
            None => format!("no agent answers in {shown}; agents that run elsewhere: --run-dir"),
        }));
    }
    Ok(())
}

/// The sockets are their owner's alone: that is not the agents' fault.
fn unreadable(what: &str, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Error::Missing(format!(
            "{what}: only the agents' own user may ask them (usually root: use sudo)"
        )),
        _ => Error::Failed(format!("{what}: {error}")),
    }
}

/// Prints an answer; says what is wrong with one that can't be understood.
fn print(answer: &[u8], json: bool) -> Result<std::result::Result<(), String>> {
    let report: StatusReport = match serde_json::from_slice(answer) {
        Ok(report) => report,
        Err(error) => {
            let place = format!("line {}, column {}", error.line(), error.column());
            return Ok(Err(format!("the answer is not understood: {place}")));
        }
    };
    if !json {
        return print_line(&describe(&report)).map(Ok);
    }
    // As it came: a newer agent may say more than this program knows.
    let text = String::from_utf8_lossy(answer);
    print_line(&text::json(text.trim())).map(Ok)
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
