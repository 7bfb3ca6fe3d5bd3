//! A status for people.

use super::report::{KindReport, StatusReport, VERSION, WireReport};
use model::text::{self, counted, duration, grouped};

/// Several lines.
pub(super) fn describe(status: &StatusReport) -> String {
    let kernel = &status.kernel;
    let mut lines = vec![
        format!(
            "agent {} (version {}), running for {}",
            status.agent,
            text::shown(&status.version),
            duration(status.uptime_s.saturating_mul(1_000_000_000))
        ),
        format!(
            "  watches   {}, {}",
            counted(status.processes.len() as u64, "process"),
            counted(status.functions, "function")
        ),
        format!(
            "  kernel    {} seen, {}, {} lost, {} left out by sampling",
            counted(kernel.entered, "call"),
            counted(kernel.sent, "span"),
            grouped(kernel.lost),
            grouped(kernel.unsampled)
        ),
    ];
    for calls in &status.inlined {
        lines.push(format!(
            "  inlined   {} of {}",
            counted(calls.calls, "call"),
            text::shown(&calls.operation)
        ));
    }
    if status.killed > 0 {
        lines.push(format!(
            "  killed    {} died by a signal",
            counted(status.killed, "process")
        ));
    }
    if status.removed_breakpoints > 0 {
        lines.push(format!(
            "  removed   {}: targets took them out, calls there are not seen",
            counted(status.removed_breakpoints, "breakpoint")
        ));
    }
    for (name, books) in &status.outputs {
        // What the service has is told by kind below.
        if name != "service" {
            lines.push(describe_output(name, books));
        }
    }
    match &status.wire {
        None => lines.push("  wire      none: no API key, everything stays here".to_owned()),
        Some(wire) => describe_wire(wire, &mut lines),
    }
    if status.report > VERSION {
        lines.push(
            "  (a newer agent: this `status` may not show everything; --json does)".to_owned(),
        );
    }
    lines.join("\n")
}

fn describe_wire(wire: &WireReport, lines: &mut Vec<String>) {
    let shown_or_dash = |text: &str| match text {
        "" => "-".to_owned(),
        text => text::shown(text),
    };
    lines.push(format!(
        "  wire      {} to {}",
        shown_or_dash(&wire.project),
        shown_or_dash(&wire.domain)
    ));
    let totals = &wire.totals;
    for (name, kind) in [
        ("spans", &totals.spans),
        ("samples", &totals.samples),
        ("events", &totals.events),
    ] {
        lines.push(describe_kind(name, kind));
    }
    if totals.scrubber_fails || totals.scrub_failures > 0 {
        lines.push(format!(
            "  scrubber  {}, {} without their data so far",
            if totals.scrubber_fails {
                "fails"
            } else {
                "answers again"
            },
            counted(totals.scrub_failures, "span")
        ));
    }
    let spool = &wire.spool;
    lines.push(format!(
        "  spool     {}, {} KiB, {}",
        counted(spool.batches, "batch"),
        grouped(spool.bytes / 1024),
        match &spool.folder {
            Some(folder) => text::shown(folder),
            None => "in memory".to_owned(),
        }
    ));
    let delivering = &wire.delivering;
    if delivering.ended > 0 {
        lines.push(format!(
            "  process   ended {}, at last: it {}; {}",
            counted(delivering.ended, "time"),
            shown_or_dash(delivering.why.as_deref().unwrap_or_default()),
            match delivering.process {
                Some(pid) => format!("{pid} delivers now"),
                None => "none delivers at present".to_owned(),
            }
        ));
    }
    lines.push(match &wire.service.failing {
        Some(why) => format!("  service   failing: {}", text::shown(why)),
        None => "  service   takes everything".to_owned(),
    });
    if wire.service.rejected_entries > 0 {
        lines.push(format!(
            "  rejected  {}, the last: {}",
            counted(wire.service.rejected_entries, "batch"),
            shown_or_dash(wire.service.last_rejected.as_deref().unwrap_or_default())
        ));
    }
}

fn describe_output(name: &str, books: &KindReport) -> String {
    let dropped = books.dropped.iter().filter(|(_, count)| **count > 0);
    let dropped: Vec<String> = dropped
        .map(|(cause, count)| {
            let cause = text::shown(&cause.replace('_', " "));
            format!(", {} dropped: {cause}", grouped(*count))
        })
        .collect();
    format!(
        "  {:<9} {} received, {} written, {} waiting{}",
        text::shown(name),
        counted(books.received, "span"),
        grouped(books.shipped),
        grouped(books.pending),
        dropped.concat()
    )
}

fn describe_kind(name: &str, kind: &KindReport) -> String {
    let dropped = kind
        .dropped
        .values()
        .fold(0u64, |sum, count| sum.saturating_add(*count));
    format!(
        "  {name:<9} {} received, {} left over, {} shipped, {} in the spool, {} in memory, {} dropped",
        grouped(kind.received),
        grouped(kind.left_over),
        grouped(kind.shipped),
        grouped(kind.spooled),
        grouped(kind.pending),
        grouped(dropped)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Kernel;

    #[test]
    fn statuses_for_people() {
        let board = crate::status::Board::default();
        let status = board.status(std::time::Duration::from_secs(75));
        let local = describe(&status).replace(&std::process::id().to_string(), "PID");
        insta::assert_snapshot!(local, @r"
        agent PID (version 0.1.0), running for 75.0 s
          watches   0 processes, 0 functions
          kernel    0 calls seen, 0 spans, 0 lost, 0 left out by sampling
          wire      none: no API key, everything stays here
        ");
    }

    #[test]
    fn one_of_each_of_a_newer_agent_that_sends() {
        let mut wire = WireReport {
            project: "a-b-001".to_owned(),
            domain: "x\x1b[2J".to_owned(),
            ..WireReport::default()
        };
        wire.totals.spans.dropped = [("of_tomorrow", u64::MAX), ("torn", 1)]
            .map(|(name, count)| (name.to_owned(), count))
            .into();
        let console = KindReport {
            received: 1_200,
            pending: 3,
            shipped: 1_100,
            dropped: [("not_shown", 97), ("unheard\x1b_of", 0)]
                .map(|(name, count)| (name.to_owned(), count))
                .into(),
            ..KindReport::default()
        };
        wire.spool.batches = 1;
        wire.service.rejected_entries = 1;
        let status = StatusReport {
            report: VERSION + 1,
            agent: 7,
            version: "9".to_owned(),
            processes: vec![1],
            outputs: [("console", console)]
                .map(|(name, books)| (name.to_owned(), books))
                .into(),
            functions: 1,
            kernel: Kernel {
                entered: 1,
                sent: 1,
                ..Kernel::default()
            },
            killed: 1,
            removed_breakpoints: 2,
            wire: Some(wire),
            ..StatusReport::default()
        };
        insta::assert_snapshot!(describe(&status), @r"
        agent 7 (version 9), running for 0 ns
          watches   1 process, 1 function
          kernel    1 call seen, 1 span, 0 lost, 0 left out by sampling
          killed    1 process died by a signal
          removed   2 breakpoints: targets took them out, calls there are not seen
          console   1,200 spans received, 1,100 written, 3 waiting, 97 dropped: not shown
          wire      a-b-001 to x\u{1b}[2J
          spans     0 received, 0 left over, 0 shipped, 0 in the spool, 0 in memory, 18,446,744,073,709,551,615 dropped
          samples   0 received, 0 left over, 0 shipped, 0 in the spool, 0 in memory, 0 dropped
          events    0 received, 0 left over, 0 shipped, 0 in the spool, 0 in memory, 0 dropped
          spool     1 batch, 0 KiB, in memory
          service   takes everything
          rejected  1 batch, the last: -
          (a newer agent: this `status` may not show everything; --json does)
        ");
    }
}
