//! One JSON object per line.

use std::io::{self, Write as _};

use serde_json::json;
use teracron_common::{Counter, Counters};
use wire::write_fields;

use super::{Death, InlinedCalls, Lines, Sink, Unseen, queue::books};
use model::{ProcessSample, Span, text, totals::KindTotals};
use wire::hex;

/// Writes JSON lines.
pub struct Json<L: Lines> {
    out: L,
    line: Vec<u8>,
    received: u64,
}

impl<L: Lines> Json<L> {
    /// Writes to `out`.
    pub fn new(out: L) -> Self {
        Self {
            out,
            line: Vec::with_capacity(1024),
            received: 0,
        }
    }

    fn object(&mut self, object: &serde_json::Value) -> io::Result<()> {
        write_safe(&mut self.out, format!("{object}\n").as_bytes(), 0)
    }
}

/// Writes a line without what a terminal would obey.
fn write_safe(out: &mut impl Lines, line: &[u8], spans: u64) -> io::Result<()> {
    match std::str::from_utf8(line) {
        Ok(text) => out.add(text::json(text).as_bytes(), spans),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// The wire's fields in the wire's order, then the agent's own. Written by hand because this runs
/// for every span: `serde_json` for the strings, the rest as it is.
fn write_span(line: &mut Vec<u8>, span: &Span<'_>) -> io::Result<()> {
    line.clear();
    write!(
        line,
        "{{\"type\":\"span\",\"trace_id\":\"{:016x}{:016x}\",\"span_id\":\"{:016x}{:016x}\",\"parent_span_id\":",
        span.trace_id[0], span.trace_id[1], span.span_id[0], span.span_id[1]
    )?;
    if span.parent_id == [0, 0] {
        line.extend_from_slice(b"null");
    } else {
        write!(line, "\"{}\"", hex(span.parent_id))?;
    }
    line.extend_from_slice(b",\"workflow\":");
    serde_json::to_writer(&mut *line, &span.name.workflow)?;
    line.extend_from_slice(b",\"operation\":");
    serde_json::to_writer(&mut *line, &span.name.operation)?;
    write!(
        line,
        ",\"status\":\"{}\",\"started_at\":{},\"duration_ms\":",
        span.status.name(),
        span.started_at_ns / 1_000_000
    )?;
    serde_json::to_writer(&mut *line, &(span.duration_ns as f64 / 1e6))?;
    line.extend_from_slice(b",\"error_type\":");
    serde_json::to_writer(&mut *line, &span.error_type.as_deref())?;
    line.extend_from_slice(b",\"error_message\":");
    serde_json::to_writer(&mut *line, &span.error_message.as_deref())?;
    line.extend_from_slice(b",\"metadata\":");
    write_fields(line, &span.metadata());
    line.extend_from_slice(b",\"captured_params\":");
    if span.captured.is_empty() {
        line.extend_from_slice(b"null");
    } else {
        write_fields(line, &span.captured);
    }
    let pid = span.process.pid;
    write!(line, ",\"pid\":{pid},\"tid\":{},\"comm\":", span.tid)?;
    serde_json::to_writer(&mut *line, &span.process.comm)?;
    writeln!(
        line,
        ",\"started_at_ns\":{},\"duration_ns\":{}}}",
        span.started_at_ns, span.duration_ns
    )
}

impl<L: Lines> Sink for Json<L> {
    fn name(&self) -> &'static str {
        "json"
    }

    fn books(&self) -> KindTotals {
        books(self.received, 0, 0, self.out.unwritten())
    }

    fn span(&mut self, span: &Span<'_>) -> io::Result<()> {
        self.received += 1;
        write_span(&mut self.line, span)?;
        write_safe(&mut self.out, &self.line, 1)
    }

    fn memory(&mut self, sample: &ProcessSample) -> io::Result<()> {
        let figures = &sample.sample;
        let line = json!({
            "type": "memory",
            "pid": sample.process.pid,
            "timestamp": figures.timestamp,
            "heap_total": figures.vms,
            "heap_used": figures.uss,
            "rss": figures.rss,
            "cpu_usage_pct": figures.cpu,
            "runtime_version": sample.runtime,
        });
        self.object(&line)
    }

    fn loss(&mut self, counters: &Counters) -> io::Result<()> {
        let line = json!({
            "type": "loss",
            "entered": counters.get(Counter::Entered),
            "sent": counters.get(Counter::Sent),
            "lost": counters.lost(),
            "ring_full": counters.get(Counter::LostRing),
            "frames_full": counters.get(Counter::LostFrames),
            "threads_full": counters.get(Counter::LostThreads),
            "end_unknown": counters.get(Counter::LostEnds),
            "memory_unreadable": counters.get(Counter::Unreadable),
            "process_events": counters.get(Counter::LostEvents),
            "captures": counters.get(Counter::LostCaptures),
            "origins": counters.get(Counter::LostOrigins),
            "unsampled": counters.get(Counter::Unsampled),
        });
        self.object(&line)
    }

    fn inlined(&mut self, calls: &[InlinedCalls]) -> io::Result<()> {
        for calls in calls {
            let line = json!({
                "type": "inlined",
                "workflow": calls.workflow,
                "operation": calls.operation,
                "calls": calls.calls,
            });
            self.object(&line)?;
        }
        Ok(())
    }

    fn death(&mut self, death: &Death) -> io::Result<()> {
        let line = json!({
            "type": "death",
            "pid": death.pid,
            "comm": death.comm,
            "signal": death.signal,
            "address": death.address.map(|address| format!("{address:#x}")),
            "module": death.module,
            "offset": death.offset,
            "function": death.function,
            "probes_suspected": death.suspected,
        });
        self.object(&line)
    }

    fn unseen(&mut self, unseen: &Unseen) -> io::Result<()> {
        if unseen.processes > 0 {
            let line = json!({
                "type": "unseen",
                "processes": unseen.processes,
                "ended_before": unseen.ended,
                "longest_ns": unseen.longest.as_nanos() as u64,
                "total_ns": unseen.total.as_nanos() as u64,
            });
            self.object(&line)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        let flushed = self.out.flush();
        self.out.close();
        flushed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{ProbeName, ProcessIdentity};
    use std::{borrow::Cow, sync::LazyLock};
    use wire::Status;

    static NAME: LazyLock<ProbeName> = LazyLock::new(|| ProbeName {
        workflow: "pay\"ment".into(),
        operation: "shop::Cart::total".into(),
    });

    static SHOP: LazyLock<ProcessIdentity> = LazyLock::new(|| of("shop"));

    fn of(comm: &str) -> ProcessIdentity {
        ProcessIdentity {
            pid: 10,
            comm: comm.to_owned(),
            ..ProcessIdentity::default()
        }
    }

    fn span() -> Span<'static> {
        Span {
            trace_id: [1, 2],
            span_id: [3, 4],
            parent_id: [0, 0],
            name: &NAME,
            status: Status::Failed,
            started_at_ns: 1_700_000_000_123_456_789,
            duration_ns: 1_500_000,
            error_type: Some(Cow::Borrowed("std::runtime_error")),
            error_message: Some(Cow::Borrowed("no\nmoney \u{1b}[31m")),
            process: &SHOP,
            tid: 11,
            polls: None,
            ended_with_process: false,
            captured: Default::default(),
            memory: None,
        }
    }

    #[test]
    fn a_line_is_an_object_with_the_wires_fields() {
        let mut out = Vec::new();
        let mut json = Json::new(&mut out);
        json.span(&span()).unwrap();
        json.span(&Span {
            parent_id: [9, 9],
            error_type: None,
            error_message: None,
            status: Status::Succeeded,
            process: &of("sh\u{9b}2J\u{202e}öp"),
            ..span()
        })
        .unwrap();
        let text = String::from_utf8(out).unwrap();
        insta::assert_snapshot!(text, @r#"
        {"type":"span","trace_id":"00000000000000010000000000000002","span_id":"00000000000000030000000000000004","parent_span_id":null,"workflow":"pay\"ment","operation":"shop::Cart::total","status":"failed","started_at":1700000000123,"duration_ms":1.5,"error_type":"std::runtime_error","error_message":"no\nmoney \u001b[31m","metadata":null,"captured_params":null,"pid":10,"tid":11,"comm":"shop","started_at_ns":1700000000123456789,"duration_ns":1500000}
        {"type":"span","trace_id":"00000000000000010000000000000002","span_id":"00000000000000030000000000000004","parent_span_id":"00000000000000090000000000000009","workflow":"pay\"ment","operation":"shop::Cart::total","status":"succeeded","started_at":1700000000123,"duration_ms":1.5,"error_type":null,"error_message":null,"metadata":null,"captured_params":null,"pid":10,"tid":11,"comm":"sh\u009b2J\u202eöp","started_at_ns":1700000000123456789,"duration_ns":1500000}
        "#);
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
    }
}
