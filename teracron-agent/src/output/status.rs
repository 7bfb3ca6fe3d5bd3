//! The live line and the last line.

use std::{
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use teracron_common::Counters;

use super::{Unseen, console::loss_text};

/// A duration for people: three digits and a unit.
pub fn duration(nanoseconds: u64) -> String {
    let value = nanoseconds as f64;
    let (value, unit) = match nanoseconds {
        0..1_000 => return format!("{nanoseconds} ns"),
        1_000..1_000_000 => (value / 1e3, "µs"),
        1_000_000..1_000_000_000 => (value / 1e6, "ms"),
        1_000_000_000..120_000_000_000 => (value / 1e9, "s"),
        _ => (value / 60e9, "min"),
    };
    if value < 10.0 {
        format!("{value:.2} {unit}")
    } else if value < 100.0 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// A number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Totals of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Spans read.
    pub spans: u64,
    /// Of these, failed.
    pub failed: u64,
    /// Of these, still open at the end.
    pub open: u64,
    /// Root spans.
    pub traces: u64,
    /// Traces that were not shown.
    pub hidden: u64,
    /// Lines of output that were dropped because nobody read them in time.
    pub unwritten: u64,
    /// How long the run took.
    pub elapsed: Duration,
    /// The kernel's counters.
    pub counters: Counters,
    /// Processes that a signal killed, but for SIGTERM, SIGINT and SIGHUP.
    pub killed: u64,
    /// No target is left, and the last one ended by this signal of these.
    pub killed_by: Option<u32>,
    /// Breakpoints that targets have removed.
    pub removed: u64,
    /// Files that probes were taken out of while others ran them.
    pub given_up: u64,
    /// Times that probes were attached again because the thread had ended that they were tied to.
    pub retied: u64,
    /// Calls of new processes that were not seen.
    pub unseen: Unseen,
    /// Files of processes in which the probes could not be put in place.
    pub uncovered: u64,
    /// Nanoseconds per call in the kernel side's programs, where they were timed.
    pub kernel_ns_per_call: Option<f64>,
}

/// The last line.
pub fn summary_line(summary: &Summary) -> String {
    let mut line = format!(
        "{} spans in {} traces ({} failed",
        grouped(summary.spans),
        grouped(summary.traces),
        grouped(summary.failed)
    );
    if summary.open > 0 {
        line.push_str(&format!(", {} still running", grouped(summary.open)));
    }
    line.push_str(&format!(
        ") in {}",
        duration(summary.elapsed.as_nanos() as u64)
    ));
    let lost = summary.counters.lost();
    let unseen = summary.unseen.processes
        + summary.uncovered
        + summary.removed
        + summary.given_up
        + summary.retied;
    if lost == 0 && unseen == 0 {
        line.push_str(", none lost");
    } else if lost > 0 {
        line.push_str(&format!(
            ", {} lost ({})",
            grouped(summary.counters.lost()),
            loss_text(&summary.counters)
        ));
    }
    if summary.removed > 0 {
        line.push_str(&format!(
            ", calls not seen at breakpoints that a target has removed ({})",
            grouped(summary.removed)
        ));
    }
    if summary.given_up > 0 {
        line.push_str(&format!(
            ", calls not seen in files that probes were taken out of ({})",
            grouped(summary.given_up)
        ));
    }
    if summary.retied > 0 {
        line.push_str(&format!(
            ", calls not seen while the probes had no thread ({} times)",
            grouped(summary.retied)
        ));
    }
    if let Some(unseen) = summary.unseen.text() {
        line.push_str(&format!(", not seen: {unseen}"));
    }
    if summary.uncovered > 0 {
        line.push_str(&format!(
            ", {} times a process could not be covered",
            grouped(summary.uncovered)
        ));
    }
    if summary.hidden > 0 {
        line.push_str(&format!(", {} traces not shown", grouped(summary.hidden)));
    }
    if summary.killed > 0 {
        line.push_str(&format!(
            ", {} {} killed by a signal",
            grouped(summary.killed),
            if summary.killed == 1 {
                "process was"
            } else {
                "processes were"
            }
        ));
    }
    if summary.unwritten > 0 {
        line.push_str(&format!(
            ", {} lines not printed because standard output is read too slowly",
            grouped(summary.unwritten)
        ));
    }
    if let Some(nanoseconds) = summary.kernel_ns_per_call {
        line.push_str(&format!(
            "; {nanoseconds:.0} ns per call in the kernel's programs"
        ));
    }
    line
}

/// A line on stderr that is written over again and again, where stderr is a terminal.
pub struct StatusLine {
    on: bool,
    visible: bool,
    last_spans: u64,
}

impl StatusLine {
    /// Shows a line unless `quiet`, or stderr is no terminal.
    pub fn new(quiet: bool) -> Self {
        Self {
            on: !quiet && std::io::stderr().is_terminal(),
            visible: false,
            last_spans: 0,
        }
    }

    /// Takes the line away, so that something else can be printed.
    pub fn clear(&mut self) {
        if self.visible {
            eprint!("\r\x1b[K");
            let _ = std::io::stderr().flush();
            self.visible = false;
        }
    }

    /// Shows the state, once a second.
    pub fn show(&mut self, spans: u64, lost: u64, hidden: u64, since: Duration) {
        if !self.on {
            return;
        }
        let rate = (spans - self.last_spans) as f64 / since.as_secs_f64().max(0.001);
        self.last_spans = spans;
        let mut line = format!(
            "{} spans, {}/s, {} lost",
            grouped(spans),
            grouped(rate as u64),
            grouped(lost)
        );
        if hidden > 0 {
            line.push_str(&format!(", {} traces not shown", grouped(hidden)));
        }
        eprint!("\r\x1b[K{line}");
        let _ = std::io::stderr().flush();
        self.visible = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (nanoseconds, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (12_345, "12.3 µs"),
            (123_456, "123 µs"),
            (1_500_000, "1.50 ms"),
            (2_000_000_000, "2.00 s"),
            (600_000_000_000, "10.0 min"),
        ] {
            assert_eq!(duration(nanoseconds), text);
        }
    }

    #[test]
    fn thousands() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn the_last_line_does_not_say_none_lost_where_calls_are_not_seen() {
        let line = |removed, given_up, killed| {
            summary_line(&Summary {
                removed,
                given_up,
                killed,
                ..Summary::default()
            })
        };
        insta::assert_snapshot!(line(0, 0, 1), @"0 spans in 0 traces (0 failed) in 0 ns, none lost, 1 process was killed by a signal");
        insta::assert_snapshot!(line(2, 0, 0), @"0 spans in 0 traces (0 failed) in 0 ns, calls not seen at breakpoints that a target has removed (2)");
        insta::assert_snapshot!(line(0, 1, 2), @"0 spans in 0 traces (0 failed) in 0 ns, calls not seen in files that probes were taken out of (1), 2 processes were killed by a signal");
    }

    #[test]
    fn the_last_line_names_losses() {
        let mut counters = Counters::default();
        counters.0[2] = 5;
        let line = summary_line(&Summary {
            spans: 1234,
            failed: 2,
            traces: 10,
            elapsed: Duration::from_secs(3),
            counters,
            kernel_ns_per_call: Some(512.3),
            ..Summary::default()
        });
        insta::assert_snapshot!(line, @"1,234 spans in 10 traces (2 failed) in 3.00 s, 5 lost (lost so far: 5 because the ring buffer was full); 512 ns per call in the kernel's programs");
    }
}
