//! Batches: what is sent together, full by number or due by time.

mod samples;
mod spans;

use std::time::Instant;

use model::Kind;
use wire::seal::Plaintext;

pub use samples::Samples;
pub use spans::Spans;

/// A batch that is ready to be sealed.
pub struct Batch {
    /// What it holds.
    pub kind: Kind,
    /// How many.
    pub count: u32,
    /// The request's body.
    pub plaintext: Plaintext,
}

/// When a batch is due.
fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// A span without anything, for tests.
#[cfg(test)]
pub fn empty_span() -> wire::Span {
    wire::Span {
        trace_id: [1, 2],
        span_id: [3, 4],
        parent_id: [0, 0],
        workflow: "w".into(),
        operation: "o".into(),
        status: wire::Status::Failed,
        started_at: 1,
        duration_ms: 1.0,
        error_type: None,
        error_message: None,
        metadata: wire::Fields::default(),
        captured_params: wire::Fields::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use wire::Sample;

    #[test]
    fn spans_are_flushed_by_number_and_time() {
        let now = Instant::now();
        let mut spans = Spans::new("a-b-001", 3, Duration::from_secs(10), true);
        assert!(spans.due().is_none() && spans.flush().is_empty());
        assert!(spans.push(&empty_span(), now).is_empty());
        assert_eq!(spans.due(), Some(now + Duration::from_secs(10)));
        assert!(spans.push(&empty_span(), now).is_empty());
        let full = spans.push(&empty_span(), now);
        let kinds: Vec<(Kind, u32)> = full.iter().map(|batch| (batch.kind, batch.count)).collect();
        assert_eq!(kinds, [(Kind::Spans, 3), (Kind::Events, 6)]);
        assert!(spans.due().is_none());
        let expected = wire::spans_body("a-b-001", &[(); 3].map(|()| empty_span()));
        assert_eq!(full[0].plaintext.len(), expected.len());
    }

    #[test]
    fn a_batch_of_samples_is_of_one_process() {
        let now = Instant::now();
        let mut samples = Samples::new(2, Duration::from_secs(60));
        let sample = Sample::default();
        assert!(samples.push(1, "gcc 12", sample, now).is_empty());
        assert!(samples.push(2, "gcc 12", sample, now).is_empty());
        assert_eq!(samples.push(1, "gcc 12", sample, now)[0].count, 2);
        // The same id, another program.
        assert_eq!(samples.push(2, "native", sample, now)[0].count, 1);
        assert!(samples.take_due(now).is_empty());
        assert_eq!(samples.take_due(now + Duration::from_secs(60)).len(), 1);
        assert!(samples.flush().is_empty() && samples.due().is_none());
    }
}
