//! Each finished trace as a tree.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io,
    time::{Duration, Instant},
};

use teracron_common::Counters;
use wire::{Fields, Value};

use super::{InlinedCalls, Lines, Sink, losses, queue::books};
use model::text::{duration, grouped};
use model::{
    Span, notes,
    text::{escape, shown},
    totals::KindTotals,
    wrap,
};
use wire::Status;

/// Spans that wait for their root; beyond, the oldest traces are shown as they are.
const MAX_WAITING: usize = 200_000;
/// Spans of one trace that are shown.
const MAX_SHOWN: usize = 200;
/// Traces that are remembered after they were shown.
const MAX_RECENT: usize = 4096;
/// Before a tree whose root's parent was shown earlier.
const LATER: &str = "↳ ";
/// Traces a second that are shown on a terminal; nobody can read more.
const TERMINAL_RATE: u32 = 40;
/// Characters of an error message that are shown.
const MESSAGE_SHOWN: usize = 120;
/// Characters of a captured text that are shown.
const VALUE_SHOWN: usize = 60;

struct Line {
    span_id: [u64; 2],
    parent_id: [u64; 2],
    text: String,
    started_at_ns: u64,
    duration_ns: u64,
    /// How it was polled, and how it ended where it did not return; with a space before each.
    more: String,
    status: Status,
    error: Option<String>,
    tid: u32,
    pid: u32,
    comm: String,
}

/// Shows trees.
pub struct Console<L: Lines> {
    out: L,
    colors: bool,
    rate: Option<u32>,
    terminal: bool,
    waiting: HashMap<[u64; 2], Vec<Line>>,
    order: VecDeque<[u64; 2]>,
    spans: usize,
    received: u64,
    not_shown: u64,
    window: Instant,
    shown_in_window: u32,
    hidden: u64,
    /// Traces that were shown last: goroutines that they started may end later.
    recent: HashSet<[u64; 2]>,
    recent_order: VecDeque<[u64; 2]>,
    /// Of these, those with spans that came since the last flush, and since the one before.
    late: [HashSet<[u64; 2]>; 2],
}

impl<L: Lines> Console<L> {
    /// Writes to `out`; on a terminal no more traces a second than a person can read.
    pub fn new(out: L, colors: bool, terminal: bool) -> Self {
        Self {
            out,
            colors,
            rate: terminal.then_some(TERMINAL_RATE),
            terminal,
            waiting: HashMap::new(),
            order: VecDeque::new(),
            spans: 0,
            received: 0,
            not_shown: 0,
            window: Instant::now(),
            shown_in_window: 0,
            hidden: 0,
            recent: HashSet::new(),
            recent_order: VecDeque::new(),
            late: Default::default(),
        }
    }

    fn paint(&self, code: &'static str, text: &str) -> String {
        if self.colors {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// Whether one more trace may be shown now.
    fn admit(&mut self) -> bool {
        let Some(rate) = self.rate else {
            return true;
        };
        if self.window.elapsed() >= Duration::from_secs(1) {
            self.window = Instant::now();
            self.shown_in_window = 0;
        }
        self.shown_in_window += 1;
        self.shown_in_window <= rate
    }

    fn show(&mut self, trace: [u64; 2]) -> io::Result<()> {
        let Some(mut lines) = self.waiting.remove(&trace) else {
            return Ok(());
        };
        self.spans = self.spans.saturating_sub(lines.len());
        let is_late = !self.recent.insert(trace);
        if !is_late {
            self.recent_order.push_back(trace);
            if self.recent_order.len() > MAX_RECENT
                && let Some(oldest) = self.recent_order.pop_front()
            {
                self.recent.remove(&oldest);
            }
        }
        if !self.admit() {
            self.hidden += 1;
            self.not_shown += lines.len() as u64;
            return Ok(());
        }
        lines.sort_by_key(|line| line.started_at_ns);
        let mut children: HashMap<[u64; 2], Vec<usize>> = HashMap::new();
        let known: HashMap<[u64; 2], usize> = lines
            .iter()
            .enumerate()
            .map(|(place, line)| (line.span_id, place))
            .collect();
        let mut roots = Vec::new();
        for (place, line) in lines.iter().enumerate() {
            if known.contains_key(&line.parent_id) {
                children.entry(line.parent_id).or_default().push(place);
            } else {
                roots.push(place);
            }
        }
        let mut out = String::new();
        if self.terminal {
            out.push_str(notes::FRESH_LINE);
        }
        let columns = self.terminal.then(|| wrap::columns(io::stdout())).flatten();
        let mut shown_spans = 0usize;
        // (place, what stands before the name, what stands before its children)
        let mut stack: Vec<(usize, String, String)> = Vec::new();
        for root in roots.into_iter().rev() {
            let branch = if is_late { LATER } else { "" };
            stack.push((root, branch.to_owned(), " ".repeat(branch.chars().count())));
        }
        while let Some((place, branch, below)) = stack.pop() {
            shown_spans += 1;
            if shown_spans > MAX_SHOWN {
                let more = lines.len() - MAX_SHOWN;
                out.push_str(&format!("{below}… {more} more spans\n"));
                self.not_shown += more as u64;
                break;
            }
            let line = &lines[place];
            let inner = children.get(&line.span_id).map_or(&[][..], Vec::as_slice);
            let text = self.line(line, &branch);
            match columns {
                Some(columns) => {
                    let way = if inner.is_empty() { " " } else { "│" };
                    let indent = self.paint("2", &format!("{below}{way}    "));
                    out.push_str(&wrap::wrap(&text, columns, &indent));
                }
                None => out.push_str(&text),
            }
            out.push('\n');
            for (number, child) in inner.iter().enumerate().rev() {
                let last = number + 1 == inner.len();
                stack.push((
                    *child,
                    format!("{below}{}", if last { "└─ " } else { "├─ " }),
                    format!("{below}{}", if last { "   " } else { "│  " }),
                ));
            }
        }
        let shown = lines.len().min(MAX_SHOWN) as u64;
        self.out.add(out.as_bytes(), shown)
    }

    fn line(&self, line: &Line, branch: &str) -> String {
        let (mark, color) = match line.status {
            Status::Succeeded => ("✓", "32"),
            Status::Failed => ("✗", "31"),
            Status::Started => ("…", "33"),
        };
        let time = if line.status == Status::Started {
            "still running".to_owned()
        } else {
            duration(line.duration_ns) + &line.more
        };
        let mut text = format!(
            "{}{} {} {}",
            self.paint("2", branch),
            self.paint(color, mark),
            line.text,
            self.paint("36", &time)
        );
        if let Some(error) = &line.error {
            text.push(' ');
            text.push_str(&self.paint("31", error));
        }
        if branch.is_empty() || branch == LATER {
            let place = format!("  {} pid {} thread {}", line.comm, line.pid, line.tid);
            text.push_str(&self.paint("2", &place));
        }
        text
    }
}

/// `(order_id=7, name="Ada")`; nothing where nothing was captured.
fn captured(fields: &Fields) -> String {
    if fields.is_empty() {
        return String::new();
    }
    let parts: Vec<String> = fields
        .iter()
        .map(|(key, value)| {
            let value = match value {
                Value::Text(text) => format!("\"{}\"", escape(text, VALUE_SHOWN)),
                Value::Whole(number) => number.to_string(),
                Value::Number(number) => number.to_string(),
                Value::Flag(flag) => flag.to_string(),
            };
            format!("{}={value}", shown(key))
        })
        .collect();
    format!("({})", parts.join(", "))
}

impl<L: Lines> Sink for Console<L> {
    fn name(&self) -> &'static str {
        "console"
    }

    fn books(&self) -> KindTotals {
        let kept = self.spans as u64;
        books(self.received, kept, self.not_shown, self.out.unwritten())
    }

    fn span(&mut self, span: &Span<'_>) -> io::Result<()> {
        let name = if span.parent_id == [0, 0] {
            format!(
                "{} {}",
                shown(&span.name.workflow),
                shown(&span.name.operation)
            )
        } else {
            shown(&span.name.operation)
        } + &captured(&span.captured);
        let error = span
            .error_type
            .as_deref()
            .map(|kind| match &span.error_message {
                Some(message) => format!("{}: {}", shown(kind), escape(message, MESSAGE_SHOWN)),
                None => shown(kind),
            });
        let ended = if span.ended_with_process {
            " (process exit)"
        } else {
            ""
        };
        let line = Line {
            span_id: span.span_id,
            parent_id: span.parent_id,
            text: name,
            started_at_ns: span.started_at_ns,
            duration_ns: span.duration_ns,
            more: span.polls.map_or_else(String::new, |polls| {
                let ending = if polls.count == 1 { "" } else { "s" };
                let busy = duration(polls.busy_ns);
                format!(
                    " ({} poll{ending}, {busy} in them)",
                    grouped(polls.count.into())
                )
            }) + ended,
            status: span.status,
            error,
            tid: span.tid,
            pid: span.process.pid,
            comm: span.process.comm.clone(),
        };
        let trace = span.trace_id;
        let lines = self.waiting.entry(trace).or_default();
        if lines.is_empty() {
            self.order.push_back(trace);
        }
        lines.push(line);
        self.spans += 1;
        self.received += 1;
        let [late, _] = &mut self.late;
        if self.recent.contains(&trace) {
            late.insert(trace);
        }
        if span.parent_id == [0, 0] && span.status != Status::Started {
            self.show(trace)?;
            // The order's entry is found to be stale later; most are at the end.
            if self.order.back() == Some(&trace) {
                self.order.pop_back();
            }
        }
        while self.spans > MAX_WAITING {
            match self.order.pop_front() {
                Some(oldest) => self.show(oldest)?,
                None => break,
            }
        }
        while self
            .order
            .front()
            .is_some_and(|trace| !self.waiting.contains_key(trace))
        {
            self.order.pop_front();
        }
        Ok(())
    }

    fn loss(&mut self, counters: &Counters) -> io::Result<()> {
        // On stderr: it is about the agent, not about the target.
        notes::say(&losses::so_far(counters));
        Ok(())
    }

    fn inlined(&mut self, calls: &[InlinedCalls]) -> io::Result<()> {
        for calls in calls {
            let (workflow, operation) = (shown(&calls.workflow), shown(&calls.operation));
            notes::say(&format!(
                "{workflow}: {operation} was called {} times where it was inlined",
                grouped(calls.calls)
            ));
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        // What is called in them ends before them: a while without news, and they are complete.
        let [late, before] = std::mem::take(&mut self.late);
        for trace in before {
            if !late.contains(&trace) {
                self.show(trace)?;
            }
        }
        self.late = [HashSet::new(), late];
        self.out.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.rate = None;
        while let Some(trace) = self.order.pop_front() {
            self.show(trace)?;
        }
        let flushed = self.out.flush();
        self.out.close();
        flushed
    }

    fn hidden(&self) -> u64 {
        self.hidden
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{ProbeName, ProcessIdentity, totals::Cause};
    use std::{borrow::Cow, sync::LazyLock};

    static SHOP: LazyLock<ProcessIdentity> = LazyLock::new(|| ProcessIdentity {
        pid: 10,
        comm: "shop".to_owned(),
        ..ProcessIdentity::default()
    });

    fn span(id: u64, parent: u64, operation: &'static str, start: u64) -> Span<'static> {
        Span {
            trace_id: [7, 7],
            span_id: [0, id],
            parent_id: [0, parent],
            name: Box::leak(Box::new(ProbeName {
                workflow: "payment".into(),
                operation: operation.into(),
            })),
            status: Status::Succeeded,
            started_at_ns: start,
            duration_ns: 1_234_567,
            error_type: None,
            error_message: None,
            process: &SHOP,
            tid: 11,
            memory: None,
            polls: None,
            ended_with_process: false,
            captured: Fields::default(),
        }
    }

    fn shown_text(spans: &[Span<'_>], colors: bool) -> String {
        let mut out = Vec::new();
        let mut console = Console::new(&mut out, colors, false);
        for span in spans {
            console.span(span).unwrap();
        }
        console.finish().unwrap();
        drop(console);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_trace_is_a_tree() {
        let failed = Span {
            status: Status::Failed,
            error_type: Some(Cow::Borrowed("std::runtime_error")),
            error_message: Some(Cow::Borrowed("card\x1b[2J declined")),
            ..span(4, 2, "charge_card", 30)
        };
        let text = shown_text(
            &[
                span(3, 2, "validate", 20),
                failed,
                span(2, 1, "create_order", 15),
                span(5, 1, "reply", 90),
                span(1, 0, "handle", 10),
            ],
            false,
        );
        insta::assert_snapshot!(text, @r"
        ✓ payment handle 1.23 ms  shop pid 10 thread 11
        ├─ ✓ create_order 1.23 ms
        │  ├─ ✓ validate 1.23 ms
        │  └─ ✗ charge_card 1.23 ms std::runtime_error: card\u{1b}[2J declined
        └─ ✓ reply 1.23 ms
        ");
    }

    #[test]
    fn what_ends_after_its_root_follows_it() {
        let mut out = Vec::new();
        let mut console = Console::new(&mut out, false, false);
        console.span(&span(1, 0, "request", 10)).unwrap();
        console.flush().unwrap();
        console.span(&span(3, 2, "leaf", 30)).unwrap();
        console.flush().unwrap();
        console.span(&span(2, 1, "goroutine", 20)).unwrap();
        for _ in 0..2 {
            console.flush().unwrap();
        }
        let polls = model::Polls {
            count: 3,
            busy_ns: 1200,
        };
        console
            .span(&Span {
                polls: Some(polls),
                trace_id: [8, 8],
                ..span(4, 0, "future", 40)
            })
            .unwrap();
        drop(console);
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r"
        ✓ payment request 1.23 ms  shop pid 10 thread 11
        ↳ ✓ goroutine 1.23 ms  shop pid 10 thread 11
          └─ ✓ leaf 1.23 ms
        ✓ payment future 1.23 ms (3 polls, 1.20 µs in them)  shop pid 10 thread 11
        ");
    }

    #[test]
    fn colours_only_where_asked() {
        assert!(!shown_text(&[span(1, 0, "f", 1)], false).contains('\x1b'));
        assert!(shown_text(&[span(1, 0, "f", 1)], true).contains("\x1b[32m✓\x1b[0m"));
    }

    #[test]
    fn without_its_root_a_trace_is_shown_at_the_end() {
        let text = shown_text(&[span(3, 2, "inner", 20)], false);
        assert!(text.starts_with("✓ inner"), "{text}");
    }

    #[test]
    fn a_terminal_is_not_flooded() {
        let mut out = Vec::new();
        let mut console = Console::new(&mut out, false, true);
        for number in 0..1000 {
            console
                .span(&Span {
                    trace_id: [1, number],
                    ..span(1, 0, "f", 1)
                })
                .unwrap();
        }
        assert_eq!(console.hidden(), 1000 - u64::from(TERMINAL_RATE));
        let books = console.books();
        assert!(books.add_up() && books.shipped == u64::from(TERMINAL_RATE));
        assert_eq!(books.dropped.of(Cause::NotShown), console.hidden());
        assert!(console.order.is_empty() && console.waiting.is_empty() && console.spans == 0);
    }
}
