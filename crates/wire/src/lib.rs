//! What the Teracron service accepts: the types of the wire, and their bytes.
//!
//! The reference is the Python package `teracron-sdk` 0.6.1: what is written here is, byte for byte,
//! what it would have sent.

#![forbid(unsafe_code)]

pub mod api_key;
mod event;
mod fields;
mod json;
mod metrics;
pub mod seal;
mod span;

pub use event::{Event, events_body};
pub use fields::{Fields, Limits, Value};
pub use json::write_fields;
pub use metrics::{CPU_SCALE, Sample, metrics_body};
pub use span::{Span, Status, open_spans, push_span, spans_body};

/// Characters of an error message that the wire takes.
pub const MAX_ERROR_MESSAGE: usize = 1024;

/// An id: 32 lower-case hexadecimal digits.
pub fn hex(id: [u64; 2]) -> String {
    format!("{:016x}{:016x}", id[0], id[1])
}

/// Cuts a string to `limit` characters, in place.
pub fn cut(text: &mut String, limit: usize) {
    // A character has at most four bytes: the usual string needs no counting.
    if text.len() > limit
        && let Some((end, _)) = text.char_indices().nth(limit)
    {
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::hex;

    #[test]
    fn ids() {
        assert_eq!(hex([1, 0xabc]), "00000000000000010000000000000abc");
    }
}
