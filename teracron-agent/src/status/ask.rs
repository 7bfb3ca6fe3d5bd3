//! The asking side: `teracron-agent status`.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::FileType;

use super::{
    describe::describe,
    question::{self, Question},
    report::StatusReport,
};
use model::{
    error::{Context as _, Error, Result},
    notes, text,
};
use pipeline::{output::print_line, own_files::Folder};

/// All agents that have not answered in this time, from beginning to end, are stuck.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Agents that are asked at once: each takes a descriptor.
const MOST: usize = 256;

/// Asks the running agents whose sockets are in a folder, or one of them, by its process id.
///
/// # Errors
/// Where none runs, or one that runs does not answer: after the answers of the others.
pub fn status(folder: &Path, agent: Option<u32>, json: bool) -> Result<()> {
    let shown = text::shown(&folder.to_string_lossy());
    let mut sockets = match agent {
        Some(pid) => vec![folder.join(super::socket_name(pid))],
        None => sockets(folder).map_err(|error| unreadable(&shown, &error))?,
    };
    if sockets.len() > MOST {
        notes::say(&format!(
            "{shown} has more than {MOST} sockets: the first are asked"
        ));
        sockets.truncate(MOST);
    }
    let mut questions: Vec<Question> = sockets.into_iter().map(Question::new).collect();
    question::ask(&mut questions, Instant::now() + TIMEOUT)
        .failed(|| "cannot wait for answers".to_owned())?;
    let (mut answered, mut problems) = (0, Vec::new());
    for Question { path, outcome, .. } in questions {
        match outcome {
            Ok(answer) => match self::answered(&answer, json) {
                Ok(text) => {
                    print_line(&text)?;
                    answered += 1;
                }
                Err(problem) => problems.push((path, problem)),
            },
            // An agent that was killed leaves its socket behind.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                remove_left_over(folder, &path);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(unreadable(&text::shown(&path.to_string_lossy()), &error));
            }
            Err(error) => problems.push((path, Problem::Silent(error))),
        }
    }
    let mut problems: Vec<String> = problems
        .into_iter()
        .map(|(path, problem)| format!("{}: {problem}", text::shown(&path.to_string_lossy())))
        .collect();
    if let Some(last) = problems.pop() {
        for problem in problems {
            notes::say(&problem);
        }
        return Err(Error::Failed(last));
    }
    if answered == 0 {
        return Err(Error::NotFound(match agent {
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

/// Why an agent has no answer.
enum Problem {
    /// It does not say one.
    Silent(io::Error),
    /// It is none, at this line and column.
    NotUnderstood(usize, usize),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(error) if error.kind() == io::ErrorKind::TimedOut => {
                write!(f, "no answer within {} s", TIMEOUT.as_secs())
            }
            Self::Silent(error) => error.fmt(f),
            Self::NotUnderstood(line, column) => {
                write!(
                    f,
                    "the answer is not understood: line {line}, column {column}"
                )
            }
        }
    }
}

/// An answer's text, as it is printed.
fn answered(answer: &[u8], json: bool) -> std::result::Result<String, Problem> {
    let report: StatusReport = serde_json::from_slice(answer)
        .map_err(|error| Problem::NotUnderstood(error.line(), error.column()))?;
    if !json {
        return Ok(describe(&report));
    }
    // As it came: a newer agent may say more than this program knows.
    let text = String::from_utf8_lossy(answer);
    Ok(text::json(text.trim()).into_owned())
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
