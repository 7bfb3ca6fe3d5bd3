//! Spans as they are sent.

use std::borrow::Cow;

use wire::{Fields, Limits, Value};

use crate::{Polls, Span, SpanMemory};

/// How a call ended that did not return, though nothing failed.
pub const ENDED_WITH_PROCESS: &str = "process exit";

impl Span<'_> {
    /// The span as it is sent.
    pub fn to_wire(&self) -> wire::Span {
        wire::Span {
            trace_id: self.trace_id,
            span_id: self.span_id,
            parent_id: self.parent_id,
            workflow: self.name.workflow.clone(),
            operation: self.name.operation.clone(),
            status: self.status,
            started_at: self.started_at_ns / 1_000_000,
            duration_ms: self.duration_ns as f64 / 1e6,
            error_type: self.error_type.clone().map(Cow::into_owned),
            error_message: self.error_message.clone().map(Cow::into_owned),
            metadata: self.metadata(),
            captured_params: self.captured.clone(),
        }
    }

    /// What a span did to the memory, how it was polled, and that it did not return.
    pub fn metadata(&self) -> Fields {
        let mut fields = self.memory.map(of_memory).unwrap_or_default();
        if let Some(Polls { count, busy_ns }) = self.polls {
            let mut set = |key: &'static str, value| fields.set(key, value, Limits::METADATA);
            set("async.polls", Value::Whole(count.into()));
            set("async.busy_ms", Value::Number(busy_ns as f64 / 1e6));
        }
        if self.ended_with_process {
            let how = Value::Text(ENDED_WITH_PROCESS.into());
            fields.set("ended", how, Limits::METADATA);
        }
        fields
    }
}

fn of_memory(memory: SpanMemory) -> Fields {
    let mut fields = Fields::default();
    let mut set = |key: &'static str, value| fields.set(key, Value::Whole(value), Limits::METADATA);
    if let Some(rss) = memory.rss {
        set("mem.rss", i64::try_from(rss).unwrap_or(i64::MAX));
    }
    if let Some(delta) = memory.rss_delta {
        set("mem.rss_delta", delta);
    }
    set("mem.page_faults", memory.page_faults.into());
    fields
}
