//! The agent's own bench program (`teracron-agent/benches/figures`): what needs its library runs there, as a child.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::shell::{Result, cargo, executable, output, step};

/// That program.
pub(super) struct Figures(PathBuf);

impl Figures {
    /// Builds it.
    pub(super) fn build() -> Result<Self> {
        let messages = step("building the agent's bench program", || {
            output(cargo().args([
                "bench",
                "--no-run",
                "--locked",
                "--package",
                "teracron-agent",
                "--bench",
                "figures",
                "--message-format=json-render-diagnostics",
            ]))
        })?;
        executable(&messages, "\"name\":\"figures\"")
            .map(Self)
            .ok_or_else(|| "cargo built no bench program".to_owned())
    }

    /// To run it.
    pub(super) fn command(&self) -> Command {
        Command::new(&self.0)
    }
}

/// Empty programs for the very sites that the agent would choose.
pub(super) struct Floor {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Floor {
    /// For a run of the agent with these arguments.
    pub(super) fn start(figures: &Figures, arguments: &[&str]) -> Result<Self> {
        let mut child = figures
            .command()
            .arg("floor")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("the floor: {error}"))?;
        let orders = child.stdin.take().ok_or("no stdin")?;
        let answers = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut floor = Self {
            child,
            orders,
            answers,
        };
        floor.expect("ready")?;
        Ok(floor)
    }

    /// Attaches them to a process, or to all (0), until the end.
    pub(super) fn attach(&mut self, pid: u32) -> Result<()> {
        writeln!(self.orders, "{pid}").map_err(|error| format!("the floor: {error}"))?;
        self.expect("attached")
    }

    fn expect(&mut self, word: &str) -> Result<()> {
        let mut line = String::new();
        self.answers
            .read_line(&mut line)
            .map_err(|error| format!("the floor: {error}"))?;
        if line.trim_end() == word {
            Ok(())
        } else {
            Err(format!("the floor said {line:?} where {word:?} was due"))
        }
    }

    /// Detaches them.
    pub(super) fn end(self) -> Result<()> {
        let Self {
            mut child,
            orders,
            answers: _answers,
        } = self;
        drop(orders);
        let status = child.wait().map_err(|error| error.to_string())?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the floor: {status}"))
        }
    }
}
