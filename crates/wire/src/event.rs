//! Workflow events (wire.md, "Workflow events"): what began and ended, without any value.

use std::{string::String, sync::Arc, vec::Vec};

use super::{Span, Status, json};

/// Characters of an error message in an event.
const MAX_MESSAGE: usize = 512;

/// An event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    kind: &'static str,
    workflow: Arc<str>,
    trace_id: [u64; 2],
    span_id: [u64; 2],
    operation: Arc<str>,
    timestamp: u64,
    /// Of a failure: type and text.
    error: Option<(String, String)>,
    /// Of an end: milliseconds.
    duration_ms: Option<f64>,
}

impl Event {
    /// What a span has to tell: that it began and, where it has ended, how.
    pub fn of(span: &Span) -> Vec<Self> {
        let root = span.parent_id == [0, 0];
        let begin = Self {
            kind: if root {
                "workflow_started"
            } else {
                "step_started"
            },
            workflow: span.workflow.clone(),
            trace_id: span.trace_id,
            span_id: span.span_id,
            operation: span.operation.clone(),
            timestamp: span.started_at,
            error: None,
            duration_ms: None,
        };
        let kind = match (span.status, root) {
            (Status::Started, _) => return Vec::from([begin]),
            (Status::Succeeded, true) => "workflow_completed",
            (Status::Succeeded, false) => "step_completed",
            (Status::Failed, true) => "workflow_failed",
            (Status::Failed, false) => "step_failed",
        };
        let error = (span.status == Status::Failed)
            .then(|| {
                let mut message = span.error_message.clone().unwrap_or_default();
                super::cut(&mut message, MAX_MESSAGE);
                (span.error_type.clone().unwrap_or_default(), message)
            })
            .filter(|(_, message)| !message.is_empty());
        let end = Self {
            kind,
            timestamp: span.started_at + span.duration_ms as u64,
            error,
            duration_ms: Some(rounded(span.duration_ms)),
            ..begin.clone()
        };
        Vec::from([begin, end])
    }

    fn write(&self, out: &mut Vec<u8>) {
        let failed = self.kind.ends_with("failed");
        out.extend_from_slice(b"{\"type\":");
        json::text(out, self.kind);
        out.extend_from_slice(b",\"workflow\":");
        json::text(out, &self.workflow);
        out.extend_from_slice(b",\"trace_id\":");
        json::text(out, &super::hex(self.trace_id));
        out.extend_from_slice(b",\"span_id\":");
        json::text(out, &super::hex(self.span_id));
        out.extend_from_slice(b",\"operation\":");
        json::text(out, &self.operation);
        out.extend_from_slice(b",\"severity\":");
        json::text(out, if failed { "error" } else { "info" });
        out.extend_from_slice(b",\"timestamp\":");
        json::whole(out, self.timestamp);
        if let Some((kind, message)) = &self.error {
            out.extend_from_slice(b",\"error_type\":");
            json::text(out, if kind.is_empty() { "Unknown" } else { kind });
            out.extend_from_slice(b",\"error_message\":");
            json::text(out, message);
        }
        if let Some(duration) = self.duration_ms {
            out.extend_from_slice(b",\"metadata\":{\"duration_ms\":");
            json::float(out, duration);
            out.push(b'}');
        }
        out.push(b'}');
    }
}

/// To two decimals, the exact value decides and of two the even one, as Python's `round` does.
fn rounded(number: f64) -> f64 {
    std::format!("{number:.2}").parse().unwrap_or(number)
}

/// A whole body of events.
pub fn events_body(slug: &str, events: &[Event]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(b"{\"type\":\"events\",\"project_slug\":");
    json::text(&mut out, slug);
    out.extend_from_slice(b",\"events\":[");
    for (place, event) in events.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        event.write(&mut out);
    }
    out.extend_from_slice(b"]}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fields;

    /// As the reference's `build_workflow_failed_event` and `json.dumps` give it.
    #[test]
    fn a_failure_tells_its_begin_and_its_end() {
        let span = Span {
            trace_id: [0, 1],
            span_id: [0, 2],
            parent_id: [0, 0],
            workflow: "pay".into(),
            operation: "charge".into(),
            status: Status::Failed,
            started_at: 1000,
            duration_ms: 12.345,
            error_type: Some("E".into()),
            error_message: Some("x".repeat(600)),
            metadata: Fields::default(),
            captured_params: Fields::default(),
        };
        let body = String::from_utf8(events_body("a-b-001", &Event::of(&span))).unwrap();
        let x = "x".repeat(512);
        assert_eq!(
            body,
            std::format!(
                "{{\"type\":\"events\",\"project_slug\":\"a-b-001\",\"events\":[{{\"type\":\"workflow_started\",\"workflow\":\"pay\",\"trace_id\":\"00000000000000000000000000000001\",\"span_id\":\"00000000000000000000000000000002\",\"operation\":\"charge\",\"severity\":\"info\",\"timestamp\":1000}},{{\"type\":\"workflow_failed\",\"workflow\":\"pay\",\"trace_id\":\"00000000000000000000000000000001\",\"span_id\":\"00000000000000000000000000000002\",\"operation\":\"charge\",\"severity\":\"error\",\"timestamp\":1012,\"error_type\":\"E\",\"error_message\":\"{x}\",\"metadata\":{{\"duration_ms\":12.35}}}}]}}"
            )
        );
    }
}
