//! The agent under the matrix, and its spans beside what the target counted itself.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    process::Command,
};

use serde_json::Value;

use super::process::{Deadline, Program, ending};
use crate::shell::Result;

/// What is traced: processes and functions.
pub(super) struct Wanted<'a> {
    pub pids: &'a [u32],
    pub functions: &'a [&'a str],
}

/// An agent whose probes are in place.
pub(super) struct Agent {
    program: Program,
    /// What it said at the start.
    pub said: Vec<String>,
    printed: Vec<String>,
}

/// How a start went.
pub(super) enum Start {
    Tracing(Agent),
    /// It will not trace this, with its reason.
    Refused(String),
}

/// Starts it and waits until it traces.
pub(super) fn start(agent: &Path, wanted: &[Wanted], deadline: Deadline) -> Result<Start> {
    let mut command = Command::new(agent);
    command.args(["--output", "json", "--no-spool"]);
    let mut functions: Vec<&str> = Vec::new();
    for one in wanted {
        for pid in one.pids {
            command.args(["--pid", &pid.to_string()]);
        }
        functions.extend(one.functions);
    }
    functions.sort_unstable();
    functions.dedup();
    for function in functions {
        command.args(["--probe", &format!("survive:{function}")]);
    }
    let mut program = Program::start(&mut command)?;
    let mut said = Vec::new();
    loop {
        match program.error_line(deadline) {
            Ok(line) => {
                let ready = line.contains("Ctrl-C ends");
                said.push(line);
                if ready {
                    return Ok(Start::Tracing(Agent {
                        program,
                        said,
                        printed: Vec::new(),
                    }));
                }
            }
            Err(true) => break,
            Err(false) => return Err("the agent was not ready in time".to_owned()),
        }
    }
    let text = said
        .iter()
        .filter(|line| !line.contains("no API key"))
        .map(|line| line.trim_start_matches("teracron-agent: "))
        .collect::<Vec<_>>()
        .join(" ");
    match program.wait(deadline) {
        Some(status) if status.code() == Some(4) => Ok(Start::Refused(text)),
        Some(status) => Err(format!("the agent ended: {}: {text}", ending(status))),
        None => Err("the agent does not end".to_owned()),
    }
}

impl Agent {
    pub(super) fn signal(&self, number: i32) {
        self.program.signal(number);
    }

    /// How many of these calls are of functions that it probes.
    pub(super) fn probed(&self, log: &Log) -> u64 {
        let calls = log.calls.iter();
        calls
            .filter(|(name, _)| !refused(&self.said, name))
            .map(|(_, calls)| calls)
            .sum()
    }

    /// Waits until it has printed so many spans; answers what it printed.
    pub(super) fn until_printed(&mut self, spans: u64, deadline: Deadline) -> Spans {
        deadline.until(|| {
            self.printed.extend(self.program.printed());
            let so_far = self.printed.iter().filter(|line| is_span(line)).count();
            so_far as u64 >= spans
        });
        Spans::parse(&self.printed, self.said.clone(), "still running".to_owned())
    }

    /// Asks it to stop; answers what it saw.
    pub(super) fn stop(mut self, deadline: Deadline) -> Result<Spans> {
        self.signal(libc::SIGINT);
        self.printed.extend(self.program.rest(deadline));
        let status = self.program.wait(deadline);
        self.said
            .extend(self.program.errors(deadline.or_after(2.0)));
        match status {
            None => Err("the agent does not end".to_owned()),
            Some(status) if status.code() == Some(101) => {
                Err(format!("the agent panicked: {}", self.said.join(" ")))
            }
            // Another code is said, not judged: it may tell of the target's death.
            Some(status) => Ok(Spans::parse(&self.printed, self.said, ending(status))),
        }
    }

    /// Kills it.
    pub(super) fn kill(mut self, deadline: Deadline) {
        self.signal(libc::SIGKILL);
        self.program.wait(deadline);
    }
}

/// Whether it said that it does not probe this function.
fn refused(said: &[String], name: &str) -> bool {
    said.iter()
        .any(|line| line.contains("not probed") && line.contains(name))
}

fn is_span(line: &str) -> bool {
    line.starts_with("{\"type\":\"span\"")
}

struct Span {
    operation: String,
    pid: u32,
    parent: Option<String>,
    failed: Option<String>,
    start: u64,
    end: u64,
}

/// What an agent printed.
pub(super) struct Spans {
    spans: HashMap<String, Span>,
    /// Two spans with one id.
    doubles: u64,
    losses: Vec<String>,
    pub said: Vec<String>,
    pub ending: String,
}

impl Spans {
    fn parse(lines: &[String], said: Vec<String>, ending: String) -> Self {
        let (mut spans, mut losses, mut doubles) = (HashMap::new(), Vec::new(), 0);
        for line in lines {
            // The last line of a killed agent may be cut.
            let Ok(value) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            if value["type"] == "loss" {
                losses.push(line.clone());
            }
            if value["type"] != "span" {
                continue;
            }
            let text = |key: &str| value[key].as_str().map(str::to_owned);
            let start = value["started_at_ns"].as_u64().unwrap_or(0);
            let failed = (value["status"] != "succeeded")
                .then(|| text("error_type").or(text("status")).unwrap_or_default());
            let span = Span {
                operation: text("operation").unwrap_or_default(),
                pid: value["pid"].as_u64().unwrap_or(0) as u32,
                parent: text("parent_span_id"),
                failed,
                start,
                end: start + value["duration_ns"].as_u64().unwrap_or(0),
            };
            let id = text("span_id").unwrap_or_default();
            doubles += u64::from(spans.insert(id, span).is_some());
        }
        Self {
            spans,
            doubles,
            losses,
            said,
            ending,
        }
    }

    /// What the closing line says of losses.
    fn summary(&self) -> String {
        let mut lines = self.said.iter().filter(|line| {
            line.contains("lost") || line.contains("none lost") || line.contains("ended by")
        });
        let last = lines.next_back().cloned().unwrap_or_default();
        last.trim_start_matches("teracron-agent: ").to_owned()
    }

    /// Compares with the target's own log: how many spans equal it, and what does not.
    pub(super) fn compare(
        &self,
        log: &Log,
        pids: &[u32],
        functions: &[&str],
        alone: bool,
    ) -> Verdict {
        let mut verdict = Verdict::default();
        if self.doubles > 0 {
            verdict.wrong.push(format!("{} ids twice", self.doubles));
        }
        for name in functions {
            let name = name.split('@').next().unwrap_or(name);
            let want = log.calls.get(name).copied().unwrap_or(0);
            let of_name: Vec<&Span> = self
                .spans
                .values()
                .filter(|span| span.operation == *name && pids.contains(&span.pid))
                .collect();
            if of_name.is_empty() && refused(&self.said, name) {
                verdict.notes.push(format!("{name} refused"));
                continue;
            }
            verdict.asked += want;
            let seen = of_name.len() as u64;
            let mut right = seen == want;
            if !right {
                verdict
                    .wrong
                    .push(format!("{name}: {seen} spans of {want} calls"));
            }
            let mut ends: BTreeMap<&str, u64> = BTreeMap::new();
            for kind in of_name.iter().filter_map(|span| span.failed.as_deref()) {
                *ends.entry(kind).or_default() += 1;
            }
            let failed: u64 = ends.values().sum();
            let want_failed = log.failed.get(name).copied().unwrap_or(0);
            if failed != want_failed {
                right = false;
                verdict
                    .wrong
                    .push(format!("{name}: {failed} failed of {want_failed} {ends:?}"));
            }
            if let Some(parents) = log.parents.get(name) {
                let said = self.parents(&of_name);
                if said != *parents {
                    right = false;
                    verdict
                        .wrong
                        .push(format!("{name}: parents {said:?}, not {parents:?}"));
                }
                let outside = of_name.iter().filter(|span| self.outside(span)).count();
                if outside > 0 {
                    right = false;
                    verdict
                        .wrong
                        .push(format!("{name}: {outside} outside their parents' time"));
                }
            }
            verdict.equal += if right { seen } else { 0 };
        }
        // With many targets under one agent, children of whom is not told.
        let children = self
            .spans
            .values()
            .filter(|span| !pids.contains(&span.pid))
            .count() as u64;
        if alone && children > log.children {
            let text = format!("{children} spans of children, at most {}", log.children);
            verdict.wrong.push(text);
        }
        if !verdict.wrong.is_empty() {
            verdict.told = self.losses_told();
            verdict
                .wrong
                .push(format!("the agent said: {}", self.summary()));
        }
        verdict
    }

    fn losses_told(&self) -> bool {
        !self.losses.is_empty() || !self.summary().contains("none lost")
    }

    fn parents(&self, spans: &[&Span]) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        for span in spans {
            let parent = span.parent.as_ref().map(|id| {
                let parent = self.spans.get(id);
                parent.map_or("a parent that is missing", |parent| &parent.operation)
            });
            if let Some(parent) = parent {
                *found.entry(parent.to_owned()).or_default() += 1;
            }
        }
        found
    }

    fn outside(&self, span: &Span) -> bool {
        let parent = span.parent.as_ref().and_then(|id| self.spans.get(id));
        parent.is_some_and(|parent| span.start < parent.start || span.end > parent.end)
    }
}

/// How spans compare with a log.
#[derive(Default)]
pub(super) struct Verdict {
    /// Calls that the target counted.
    pub asked: u64,
    /// Spans of functions of which everything is equal.
    pub equal: u64,
    pub wrong: Vec<String>,
    /// The agent itself said that something was lost.
    pub told: bool,
    pub notes: Vec<String>,
}

/// What a target counted, over some rounds.
#[derive(Clone, Default)]
pub(super) struct Log {
    pub calls: BTreeMap<String, u64>,
    failed: BTreeMap<String, u64>,
    parents: BTreeMap<String, BTreeMap<String, u64>>,
    /// The most that children can have called.
    children: u64,
}

impl Log {
    /// Adds a round's answer.
    pub(super) fn add(&mut self, answer: &Value) {
        let numbers = |value: &Value, into: &mut BTreeMap<String, u64>| {
            for (name, number) in value.as_object().into_iter().flatten() {
                *into.entry(name.clone()).or_default() += number.as_u64().unwrap_or(0);
            }
        };
        numbers(&answer["calls"], &mut self.calls);
        numbers(&answer["failed"], &mut self.failed);
        for (name, parents) in answer["parents"].as_object().into_iter().flatten() {
            numbers(parents, self.parents.entry(name.clone()).or_default());
        }
        self.children += answer["children"].as_u64().unwrap_or(0);
    }

    /// All calls.
    pub(super) fn total(&self) -> u64 {
        self.calls.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::{Log, Spans};
    use serde_json::json;

    fn spans(lines: &[serde_json::Value]) -> Spans {
        let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
        Spans::parse(&lines, vec!["none lost".to_owned()], String::new())
    }

    fn span(id: &str, name: &str, parent: Option<&str>, status: &str) -> serde_json::Value {
        json!({"type": "span", "span_id": id, "operation": name, "parent_span_id": parent, "status": status,
            "pid": 7, "started_at_ns": 10, "duration_ns": 5})
    }

    fn log() -> Log {
        let mut log = Log::default();
        log.add(
            &json!({"calls": {"a": 1, "b": 1}, "failed": {"b": 1}, "parents": {"b": {"a": 1}}}),
        );
        log
    }

    #[test]
    fn equal_is_equal() {
        let spans = spans(&[
            span("1", "a", None, "succeeded"),
            span("2", "b", Some("1"), "failed"),
        ]);
        let verdict = spans.compare(&log(), &[7], &["a", "b"], true);
        assert_eq!(
            (verdict.equal, verdict.asked, verdict.wrong.len()),
            (2, 2, 0)
        );
    }

    #[test]
    fn what_differs_is_told() {
        let one = span("1", "a", None, "succeeded");
        for other in [
            span("2", "b", None, "failed"),
            span("2", "b", Some("9"), "failed"),
            span("2", "b", Some("1"), "succeeded"),
            span("2", "a", Some("1"), "failed"),
            span("1", "b", Some("1"), "failed"),
        ] {
            let verdict =
                spans(&[one.clone(), other.clone()]).compare(&log(), &[7], &["a", "b"], true);
            assert!(!verdict.wrong.is_empty(), "{other}");
        }
        // Of another process.
        let verdict = spans(&[one]).compare(&log(), &[8], &["a", "b"], true);
        assert!(!verdict.wrong.is_empty());
    }
}
