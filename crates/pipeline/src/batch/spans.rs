//! Batches of spans, and of the events that they tell.

use std::time::{Duration, Instant};

use wire::{Event, Span, events_body, open_spans, push_span};

use super::{Batch, Kind};
use wire::seal::Plaintext;

/// A span's fixed part on the wire, generously.
const FIXED_BYTES: usize = 512;

/// Spans that wait, already as the request's body.
pub struct Spans {
    slug: String,
    size: usize,
    interval: Duration,
    plaintext: Plaintext,
    count: u32,
    due: Option<Instant>,
    /// `None` where events are not asked for.
    events: Option<Vec<Event>>,
    /// The last batch's length: the next will be like it.
    usual: usize,
}

impl Spans {
    /// None yet.
    pub fn new(slug: &str, size: usize, interval: Duration, events: bool) -> Self {
        Self {
            slug: slug.to_owned(),
            size,
            interval,
            plaintext: Plaintext::with_capacity(0),
            count: 0,
            due: None,
            events: events.then(Vec::new),
            usual: 0,
        }
    }

    /// Takes a span; answers the batches that are full with it.
    pub fn push(&mut self, span: &Span, now: Instant) -> Vec<Batch> {
        if self.count == 0 {
            self.plaintext = Plaintext::with_capacity(self.usual + FIXED_BYTES);
            let slug = &self.slug;
            self.plaintext
                .append(FIXED_BYTES, |out| open_spans(out, slug));
            self.due = Some(now + self.interval);
        }
        let first = self.count == 0;
        self.plaintext
            .append(room(span), |out| push_span(out, span, first));
        self.count += 1;
        if let Some(events) = &mut self.events {
            events.extend(Event::of(span));
        }
        if self.count as usize >= self.size {
            self.flush()
        } else {
            Vec::new()
        }
    }

    /// Everything that waits.
    pub fn flush(&mut self) -> Vec<Batch> {
        if self.count == 0 {
            return Vec::new();
        }
        self.plaintext.append(2, |out| out.extend_from_slice(b"]}"));
        self.usual = self.plaintext.len();
        self.due = None;
        let plaintext = std::mem::replace(&mut self.plaintext, Plaintext::with_capacity(0));
        let mut batches = vec![Batch {
            kind: Kind::Spans,
            count: std::mem::take(&mut self.count),
            plaintext,
        }];
        if let Some(events) = &mut self.events {
            let events = std::mem::take(events);
            batches.push(Batch {
                kind: Kind::Events,
                count: events.len() as u32,
                plaintext: Plaintext::from_bytes(events_body(&self.slug, &events)),
            });
        }
        batches
    }

    /// When what waits is due.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }
}

/// The most bytes that a span can take: a character is at most six for each of its bytes.
fn room(span: &Span) -> usize {
    use wire::Value;
    let texts = [&span.error_type, &span.error_message];
    let mut bytes = span.workflow.len() + span.operation.len();
    bytes += texts.into_iter().flatten().map(String::len).sum::<usize>();
    for fields in [&span.metadata, &span.captured_params] {
        for (key, value) in fields.iter() {
            bytes += key.len() + 8;
            if let Value::Text(text) = value {
                bytes += text.len();
            }
        }
    }
    FIXED_BYTES + bytes * 6
}
