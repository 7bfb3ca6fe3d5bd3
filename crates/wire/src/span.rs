//! Spans (wire.md, "Span").

use std::{string::String, sync::Arc, vec::Vec};

use serde::{Deserialize, Serialize};

use super::{Fields, json};

/// Whether and how a span ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Still running.
    Started,
    /// Returned.
    Succeeded,
    /// Ended in another way.
    Failed,
}

impl Status {
    /// As on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

/// A span as it is sent. What serde makes of it goes from process to process, not to the service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// The call chain.
    pub trace_id: [u64; 2],
    /// This span.
    pub span_id: [u64; 2],
    /// The span around it; zero for a root.
    pub parent_id: [u64; 2],
    /// The workflow.
    pub workflow: Arc<str>,
    /// Qualified function name.
    pub operation: Arc<str>,
    /// Status.
    pub status: Status,
    /// Wall clock, Unix milliseconds.
    pub started_at: u64,
    /// Milliseconds, from a monotonic clock.
    pub duration_ms: f64,
    /// Class name of what was raised.
    pub error_type: Option<String>,
    /// At most [`MAX_ERROR_MESSAGE`](super::MAX_ERROR_MESSAGE) characters.
    pub error_message: Option<String>,
    /// See [`Limits::METADATA`](super::Limits::METADATA).
    pub metadata: Fields,
    /// See [`Limits::CAPTURED`](super::Limits::CAPTURED).
    pub captured_params: Fields,
}

/// Writes 32 hexadecimal digits in quotes.
fn id(out: &mut Vec<u8>, id: [u64; 2]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for half in id {
        for shift in (0..16).rev() {
            out.push(DIGITS[(half >> (shift * 4)) as usize & 15]);
        }
    }
    out.push(b'"');
}

/// Begins a body of spans.
pub fn open_spans(out: &mut Vec<u8>, slug: &str) {
    out.extend_from_slice(b"{\"type\":\"trace\",\"project_slug\":");
    json::text(out, slug);
    out.extend_from_slice(b",\"spans\":[");
}

/// Adds a span to a body; `first` where it is the first. A body ends with `]}`.
pub fn push_span(out: &mut Vec<u8>, span: &Span, first: bool) {
    out.extend_from_slice(if first { b"{" } else { b",{" });
    out.extend_from_slice(b"\"trace_id\":");
    id(out, span.trace_id);
    out.extend_from_slice(b",\"span_id\":");
    id(out, span.span_id);
    out.extend_from_slice(b",\"parent_span_id\":");
    if span.parent_id == [0, 0] {
        out.extend_from_slice(b"null");
    } else {
        id(out, span.parent_id);
    }
    out.extend_from_slice(b",\"workflow\":");
    json::text(out, &span.workflow);
    out.extend_from_slice(b",\"operation\":");
    json::text(out, &span.operation);
    out.extend_from_slice(b",\"status\":\"");
    out.extend_from_slice(span.status.name().as_bytes());
    out.extend_from_slice(b"\",\"started_at\":");
    json::whole(out, span.started_at);
    out.extend_from_slice(b",\"duration_ms\":");
    json::float(out, span.duration_ms);
    out.extend_from_slice(b",\"error_type\":");
    json::maybe_text(out, span.error_type.as_deref());
    out.extend_from_slice(b",\"error_message\":");
    json::maybe_text(out, span.error_message.as_deref());
    out.extend_from_slice(b",\"metadata\":");
    json::write_fields(out, &span.metadata);
    out.extend_from_slice(b",\"captured_params\":");
    json::write_fields(out, &span.captured_params);
    out.push(b'}');
}

/// A whole body of spans.
pub fn spans_body(slug: &str, spans: &[Span]) -> Vec<u8> {
    let mut out = Vec::new();
    open_spans(&mut out, slug);
    for (place, span) in spans.iter().enumerate() {
        push_span(&mut out, span, place == 0);
    }
    out.extend_from_slice(b"]}");
    out
}
