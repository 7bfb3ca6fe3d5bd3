//! Spans on the way from process to process: names that repeat go once.

use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};

use wire::{Fields, Span, Status};

/// Some spans.
#[derive(Serialize, Deserialize)]
pub struct Packed {
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
    /// Packs spans.
    pub fn new(spans: Vec<Span>) -> Self {
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
    pub fn unpack(self) -> Option<Vec<Span>> {
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
