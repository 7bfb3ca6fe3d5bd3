//! The last line.

use std::time::Duration;

use teracron_common::{Counter, Counters};

use super::{Unseen, losses};
use model::text::{counted, duration, grouped};

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
    /// Spans that were not shown because nobody read them in time.
    pub unread: u64,
    /// Spans that were not shown because standard output was closed before.
    pub closed: u64,
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
    /// Times that probes had no thread: the one had ended that they were tied to, or by which the kernel knows them.
    pub retied: u64,
    /// Calls of new processes that were not seen.
    pub unseen: Unseen,
    /// Files of processes in which the probes could not be put in place.
    pub uncovered: u64,
    /// What a call costs in the kernel side's programs, where they were timed.
    pub kernel_cost: Option<CallCost>,
}

/// The mean of fewer calls says more of cold caches than of what a call costs.
const FEW_CALLS: u64 = 100;

/// What the kernel measured of its programs.
#[derive(Clone, Copy, Debug)]
pub struct CallCost {
    /// Of the programs at a call's beginning and end together; without the breakpoints themselves.
    pub nanoseconds: f64,
    /// Calls that it is the mean of.
    pub calls: u64,
}

/// The last line.
pub fn summary_line(summary: &Summary) -> String {
    let mut line = format!(
        "{} ({} failed",
        counted(summary.spans, "span"),
        grouped(summary.failed)
    );
    if summary.open > 0 {
        line.push_str(&format!(", {} still running", grouped(summary.open)));
    }
    line.push_str(&format!(
        ") in {} over {}",
        counted(summary.traces, "trace"),
        duration(summary.elapsed.as_nanos() as u64)
    ));
    let lost = summary.counters.lost();
    let missing = losses::missing(&summary.counters);
    let unseen = summary.unseen.processes
        + summary.uncovered
        + summary.removed
        + summary.given_up
        + summary.retied
        + summary.counters.get(Counter::LostEvents);
    if lost > 0 {
        line.push_str(&format!(
            ", {} lost ({})",
            grouped(lost),
            losses::lost(&summary.counters)
        ));
    } else if unseen == 0 {
        line.push_str(if missing.is_empty() {
            ", none lost"
        } else {
            ", no call lost"
        });
    }
    if !missing.is_empty() {
        line.push_str(&format!(", missing: {missing}"));
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
            ", calls not seen while the probes had no thread ({})",
            counted(summary.retied, "time")
        ));
    }
    if let Some(unseen) = summary.unseen.text() {
        line.push_str(&format!(", not seen: {unseen}"));
    }
    if summary.uncovered > 0 {
        line.push_str(&format!(
            ", {} a process could not be covered",
            counted(summary.uncovered, "time")
        ));
    }
    if summary.hidden > 0 {
        line.push_str(&format!(", {} not shown", counted(summary.hidden, "trace")));
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
    if summary.unread > 0 {
        line.push_str(&format!(
            ", {} not printed because standard output is read too slowly",
            counted(summary.unread, "span")
        ));
    }
    if summary.closed > 0 {
        line.push_str(&format!(
            ", {} not printed because standard output took no more",
            counted(summary.closed, "span")
        ));
    }
    if let Some(cost) = summary.kernel_cost.filter(|cost| cost.calls >= FEW_CALLS) {
        line.push_str(&format!(
            "; the agent's programs in the kernel took {} per call (mean of {} timed)",
            duration(cost.nanoseconds as u64),
            grouped(cost.calls)
        ));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

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
        insta::assert_snapshot!(line(0, 0, 1), @"0 spans (0 failed) in 0 traces over 0 ns, none lost, 1 process was killed by a signal");
        insta::assert_snapshot!(line(2, 0, 0), @"0 spans (0 failed) in 0 traces over 0 ns, calls not seen at breakpoints that a target has removed (2)");
        insta::assert_snapshot!(line(0, 1, 2), @"0 spans (0 failed) in 0 traces over 0 ns, calls not seen in files that probes were taken out of (1), 2 processes were killed by a signal");
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
            kernel_cost: Some(CallCost {
                nanoseconds: 512.3,
                calls: 400,
            }),
            ..Summary::default()
        });
        insta::assert_snapshot!(line, @"1,234 spans (2 failed) in 10 traces over 3.00 s, 5 lost (5 because the ring buffer was full); the agent's programs in the kernel took 512 ns per call (mean of 400 timed)");
    }

    #[test]
    fn what_is_missing_is_no_lost_call() {
        let mut counters = Counters::default();
        counters.0[Counter::LostCaptures as usize] = 2;
        let line = |counters| {
            summary_line(&Summary {
                spans: 1,
                traces: 1,
                open: 1,
                counters,
                ..Summary::default()
            })
        };
        insta::assert_snapshot!(line(counters), @"1 span (0 failed, 1 still running) in 1 trace over 0 ns, no call lost, missing: 2 calls with values that could not be read");
        counters.0[Counter::LostEvents as usize] = 3;
        insta::assert_snapshot!(line(counters), @"1 span (0 failed, 1 still running) in 1 trace over 0 ns, missing: 3 process events, 2 calls with values that could not be read");
    }
}
