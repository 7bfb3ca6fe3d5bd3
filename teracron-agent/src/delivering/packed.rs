//! Spans on the way from process to process: names that repeat go once.

use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};

use wire::{Fields, Span, Status};

/// Some spans.
#[derive(Serialize, Deserialize)]
pub(super) struct Packed {
    names: Vec<Arc<str>>,
    spans: Vec<Bare>,
}

/// A span whose names stand elsewhere.
#[derive(Serialize, Deserialize)]
struct Bare {
    ids: [Id; 3],
    /// Places of workflow and operation among the names.
    names: [u32; 2],
    status: Status,
    started_at: u64,
    duration_ms: f64,
    error: Option<Box<(Option<String>, Option<String>)>>,
    metadata: Fields,
    captured_params: Fields,
}

/// As bytes: random numbers only grow as variable ones.
type Id = [[u8; 8]; 2];

fn bytes(id: [u64; 2]) -> Id {
    id.map(u64::to_le_bytes)
}

fn number(id: Id) -> [u64; 2] {
    id.map(u64::from_le_bytes)
}

impl Packed {
    pub(super) fn new(spans: Vec<Span>) -> Self {
        let mut names: Vec<Arc<str>> = Vec::new();
        // By address first: a probe's spans share its names.
        let mut places: HashMap<(usize, usize), u32> = HashMap::new();
        let mut place = |name: Arc<str>| {
            let key = (name.as_ptr() as usize, name.len());
            *places.entry(key).or_insert_with(|| {
                // They live in `names`, so no other comes to lie where one was.
                names.push(name);
                names.len() as u32 - 1
            })
        };
        let spans = spans
            .into_iter()
            .map(|span| Bare {
                ids: [span.trace_id, span.span_id, span.parent_id].map(bytes),
                names: [place(span.workflow), place(span.operation)],
                status: span.status,
                started_at: span.started_at,
                duration_ms: span.duration_ms,
                error: match (span.error_type, span.error_message) {
                    (None, None) => None,
                    texts => Some(Box::new(texts)),
                },
                metadata: span.metadata,
                captured_params: span.captured_params,
            })
            .collect();
        Self { names, spans }
    }

    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// The spans; `None` where what came makes no sense.
    pub(super) fn unpack(self) -> Option<Vec<Span>> {
        let Self { names, spans } = self;
        spans
            .into_iter()
            .map(|bare| {
                let name = |place: u32| names.get(place as usize).cloned();
                let [trace_id, span_id, parent_id] = bare.ids.map(number);
                let (error_type, error_message) = bare.error.map_or((None, None), |texts| *texts);
                Some(Span {
                    trace_id,
                    span_id,
                    parent_id,
                    workflow: name(bare.names[0])?,
                    operation: name(bare.names[1])?,
                    status: bare.status,
                    started_at: bare.started_at,
                    duration_ms: bare.duration_ms,
                    error_type,
                    error_message,
                    metadata: bare.metadata,
                    captured_params: bare.captured_params,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection, option, prelude::*};
    use wire::{Limits, Value};

    fn span() -> impl Strategy<Value = Span> {
        let name = || prop_oneof![Just("a"), Just("b"), Just("")];
        let text = || option::of("\\PC{0,30}");
        let fields = || {
            collection::vec(("[a-z]{1,9}", any::<i64>(), "\\PC{0,9}"), 0..4).prop_map(|all| {
                let mut fields = Fields::default();
                for (key, number, text) in all {
                    fields.set(key.clone(), Value::Whole(number), Limits::METADATA);
                    fields.set(format!("{key}2"), Value::Text(text), Limits::METADATA);
                }
                fields
            })
        };
        let status = prop_oneof![
            Just(Status::Started),
            Just(Status::Succeeded),
            Just(Status::Failed)
        ];
        (
            any::<[[u64; 2]; 3]>(),
            name(),
            name(),
            status,
            any::<u64>(),
            0.0..1e9f64,
            text(),
            text(),
            fields(),
            fields(),
        )
            .prop_map(
                |(
                    [trace_id, span_id, parent_id],
                    workflow,
                    operation,
                    status,
                    at,
                    ms,
                    kind,
                    message,
                    metadata,
                    captured_params,
                )| Span {
                    trace_id,
                    span_id,
                    parent_id,
                    workflow: workflow.into(),
                    operation: operation.into(),
                    status,
                    started_at: at,
                    duration_ms: ms,
                    error_type: kind,
                    error_message: message,
                    metadata,
                    captured_params,
                },
            )
    }

    /// Not a check: what the way costs a span on each side. `cargo test --release … -- --ignored --nocapture`.
    #[test]
    #[ignore = "a figure"]
    fn cost() {
        use std::time::Instant;
        let mut metadata = Fields::default();
        for key in ["mem.rss", "mem.rss_delta", "mem.page_faults"] {
            metadata.set(key, Value::Whole(184_320_000), Limits::METADATA);
        }
        let (workflow, operation): (Arc<str>, Arc<str>) = ("payment".into(), "shop::charge".into());
        let span = |number: u64| Span {
            trace_id: [0x0123_4567_89ab_cdef, number],
            span_id: [0xfedc_ba98_7654_3210, number],
            parent_id: [7, number],
            workflow: workflow.clone(),
            operation: operation.clone(),
            status: Status::Succeeded,
            started_at: 1_790_000_000_000,
            duration_ms: 0.412_345,
            error_type: None,
            error_message: None,
            metadata: metadata.clone(),
            captured_params: Fields::default(),
        };
        let chunks: Vec<Vec<Span>> = (0..500).map(|_| (0..1024).map(span).collect()).collect();
        let count = (chunks.len() * 1024) as f64;
        let began = Instant::now();
        let bytes: Vec<Vec<u8>> = chunks
            .into_iter()
            .map(|spans| postcard::to_stdvec(&Packed::new(spans)).unwrap())
            .collect();
        let there = began.elapsed();
        let size: usize = bytes.iter().map(Vec::len).sum();
        let began = Instant::now();
        for bytes in &bytes {
            let packed: Packed = postcard::from_bytes(bytes).unwrap();
            assert_eq!(packed.unpack().unwrap().len(), 1024);
        }
        let back = began.elapsed();
        println!(
            "{:.0} ns to pack, {:.0} ns to unpack, {:.0} bytes a span",
            there.as_nanos() as f64 / count,
            back.as_nanos() as f64 / count,
            size as f64 / count
        );
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(spans in collection::vec(span(), 0..20)) {
            let bytes = postcard::to_stdvec(&Packed::new(spans.clone())).unwrap();
            let packed: Packed = postcard::from_bytes(&bytes).unwrap();
            prop_assert_eq!(packed.unpack().unwrap(), spans);
        }

        #[test]
        fn nothing_is_too_strange(bytes in collection::vec(any::<u8>(), 0..300)) {
            if let Ok(packed) = postcard::from_bytes::<Packed>(&bytes) {
                let _ = packed.unpack();
            }
        }
    }
}
