//! Processes that do a part of the agent's work and may do nothing else: how they are started, and how they are talked to.

mod channel;

use std::{
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

pub(crate) use channel::{Channel, MAX_FILES};

/// The executable that is started, where it is not this one.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Has that agent's executable do the work: for programs that are no agents, tests and benches. Only the first call
/// counts.
pub fn use_agent(program: PathBuf) {
    let _ = PROGRAM.set(program);
}

/// The user and group that a process becomes that plans, where it is root: nobody else's, so that no other process may
/// look into it. Above what `adduser` gives, below systemd's dynamic users (61184 on).
pub(crate) const PLANNING_USER: u32 = 60_998;

/// What a process may do; the first argument that it is started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Reads files and plans.
    Planning,
    /// Scrubs, seals, keeps and sends.
    Delivering,
}

impl Part {
    const ALL: [Self; 2] = [Self::Planning, Self::Delivering];

    fn argument(self) -> &'static str {
        match self {
            Self::Planning => "--shut-in-planning",
            Self::Delivering => "--shut-in-delivering",
        }
    }

    /// What this process is to do, and the id of the agent that started it; `None` where it is none of these.
    pub(crate) fn asked() -> Option<(Self, u32)> {
        let mut arguments = std::env::args_os().skip(1);
        let first = arguments.next()?;
        let part = Self::ALL.into_iter().find(|part| first == *part.argument());
        Some((part?, arguments.next()?.to_str()?.parse().ok()?))
    }
}

/// Starts a process for a part of the work; it finds the other end of the channel on its standard input. It has no
/// environment but `variables`, no descriptor of ours but those three, a process group of its own (a terminal's Ctrl-C
/// is for the agent), and dies with the thread that calls this.
///
/// # Errors
/// Where the system starts none.
pub(crate) fn start(
    part: Part,
    (stdout, stderr): (Stdio, Stdio),
    variables: &[&str],
) -> io::Result<(Channel, Child)> {
    use std::os::unix::process::CommandExt as _;
    let (here, there) = Channel::pair()?;
    let mut command = Command::new(match PROGRAM.get() {
        Some(program) => program,
        // The very file, whatever has become of its name.
        None => Path::new("/proc/self/exe"),
    });
    command
        .arg0("teracron-agent")
        .arg(part.argument())
        .arg(std::process::id().to_string())
        .env_clear()
        .stdin(there)
        .stdout(stdout)
        .stderr(stderr)
        .process_group(0);
    for name in variables {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    sys::dies_with_us(&mut command);
    Ok((here, command.spawn()?))
}
