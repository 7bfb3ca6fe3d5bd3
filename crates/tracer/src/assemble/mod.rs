//! Spans as the Teracron wire defines them (wire.md, "Span"), from kernel records.

mod captures;
mod clock;

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use teracron_common::{
    End, SpanRecord,
    record::{DETAIL_GOROUTINE, UNKNOWN_DELTA},
};

use captures::Captures;
pub use clock::{ClockMap, StepWatch, monotonic_ns};
use wire::{MAX_ERROR_MESSAGE, Status};

use crate::{
    decode::{RawCapture, RawSpan},
    process::{self, Layouts},
};
use image::symbol::type_name;
use model::{Polls, ProcessIdentity, Span, SpanMemory, signal_name, text};
use planner::probe::ProbeTable;

/// Names of exception types, kept because demangling is slow.
const MAX_TYPE_NAMES: usize = 4096;

/// Turns records into spans.
#[derive(Default)]
pub struct Assembler {
    /// Wall-clock time.
    pub clock: ClockMap,
    /// Bytes of a page, where records say what spans did to the memory.
    pub page_size: Option<u64>,
    known: HashMap<u32, Arc<ProcessIdentity>>,
    types: HashMap<Vec<u8>, String>,
    /// By the layout of the process and the address.
    go_types: HashMap<(u32, u64), String>,
    captures: Captures,
}

impl Assembler {
    /// Remembers who a process is while it runs.
    pub fn learn_process(&mut self, pid: u32) {
        if let Some(identity) = process::identity(pid) {
            self.known.insert(pid, Arc::new(identity));
        }
    }

    /// Who these processes are, as far as that is known.
    pub fn processes(&self, pids: &[u32]) -> Vec<Arc<ProcessIdentity>> {
        let known = |pid: &u32| self.known.get(pid).cloned();
        pids.iter()
            .map(|pid| known(pid).unwrap_or_else(|| ProcessIdentity::only(*pid)))
            .collect()
    }

    /// Forgets a process that ended.
    pub fn forget_process(&mut self, pid: u32) {
        self.known.remove(&pid);
    }

    /// Takes what was read of a call that has not ended.
    pub fn capture(&mut self, raw: &RawCapture<'_>, table: &ProbeTable) {
        self.captures.add(raw, table.captures());
    }

    /// Takes how a future was polled whose span comes later.
    pub fn polled(&mut self, span_id: [u64; 2], polls: Polls) {
        self.captures.polled(span_id, polls);
    }

    /// Forgets what was read of a call that is not told.
    pub fn forget(&mut self, span_id: [u64; 2]) {
        self.captures.take(span_id);
    }

    /// Forgets what a call gave back, which is told as open.
    pub fn forget_result(&mut self, span_id: [u64; 2]) {
        self.captures.forget_result(span_id);
    }

    /// Calls whose captures were forgotten because too many were open.
    pub fn forgotten_captures(&self) -> u64 {
        self.captures.lost()
    }

    /// Makes a span; `None` for a probe that the table does not know.
    pub fn span<'a>(
        &'a mut self,
        raw: &RawSpan<'a>,
        table: &'a ProbeTable,
        layouts: &Layouts,
    ) -> Option<Span<'a>> {
        let name = table.name(raw.record.probe)?;
        let pid = raw.record.tgid;
        let captured = self.captures.take(raw.record.span_id).unwrap_or_default();
        if !self.known.contains_key(&pid) {
            self.learn_process(pid);
        }
        // One that has ended is asked once.
        self.known
            .entry(pid)
            .or_insert_with(|| ProcessIdentity::only(pid));
        // The name of the type: mangled, or a zero and the address of a Go type.
        let go_type = match raw.type_name {
            [0, address @ ..] => {
                let address = address.try_into().map(u64::from_le_bytes);
                Some(
                    address
                        .ok()
                        .and_then(|it| self.go_type(pid, it, table, layouts)),
                )
            }
            _ => None,
        };
        if go_type.is_none() && !raw.type_name.is_empty() && !self.types.contains_key(raw.type_name)
        {
            let name = type_name(&String::from_utf8_lossy(raw.type_name));
            if self.types.len() >= MAX_TYPE_NAMES {
                self.types.clear();
            }
            self.types.insert(raw.type_name.to_vec(), name);
        }
        let error_go_type = captured
            .go_type
            .filter(|_| raw.end == End::Rule)
            .and_then(|address| self.go_type(pid, address, table, layouts));
        // A server's process that has done its work ends so inside what it does all its life.
        let is_ordinary_exit = raw.end == End::ProcessExited && raw.record.detail == 0;
        let error_type: Option<Cow<'a, str>> = match raw.end {
            End::Returned | End::Open => None,
            End::Exception => Some(match (go_type, self.types.get(raw.type_name)) {
                (Some(Some(name)), _) => Cow::Owned(name),
                (Some(None), _) => Cow::Borrowed("panic"),
                (None, Some(name)) => Cow::Borrowed(name.as_str()),
                (None, None) => Cow::Borrowed("exception"),
            }),
            End::LongJump => Some(Cow::Borrowed("longjmp")),
            End::ThreadExited if raw.record.detail == DETAIL_GOROUTINE => {
                Some(Cow::Borrowed("runtime.Goexit"))
            }
            End::ThreadExited => Some(Cow::Borrowed("thread exited")),
            End::ProcessExited if is_ordinary_exit => None,
            End::ProcessExited => Some(Cow::Borrowed("process exited")),
            End::Signal => Some(signal_name(raw.record.detail.into())),
            End::Exec => Some(Cow::Borrowed("exec")),
            End::Unwound => Some(Cow::Borrowed("unwound")),
            End::Cancelled => Some(Cow::Borrowed("cancelled")),
            End::Rule => {
                let name = captured.error_type.or(error_go_type);
                Some(match (name, captured.failure) {
                    (Some(name), _) => Cow::Owned(name),
                    (None, Some(name)) => Cow::Owned(name.to_string()),
                    (None, None) => Cow::Borrowed("failed"),
                })
            }
        };
        let error_message = match raw.end {
            End::Rule => captured
                .error_message
                .map(|text| Cow::Owned(text::cut(&text, MAX_ERROR_MESSAGE))),
            End::ProcessExited if !is_ordinary_exit => {
                Some(Cow::Owned(format!("exit code {}", raw.record.detail)))
            }
            End::Exception if !raw.message.is_empty() => Some(message(raw.message)),
            End::Exception => error_type
                .as_deref()
                .and_then(fixed_text)
                .map(Cow::Borrowed),
            _ => None,
        };
        Some(Span {
            trace_id: raw.record.trace_id,
            span_id: raw.record.span_id,
            parent_id: raw.record.parent_id,
            name,
            status: match raw.end {
                End::Open => Status::Started,
                End::Returned => Status::Succeeded,
                End::ProcessExited if is_ordinary_exit => Status::Succeeded,
                _ => Status::Failed,
            },
            started_at_ns: self.clock.wall(raw.record.start_ns),
            duration_ns: raw.record.end_ns.saturating_sub(raw.record.start_ns),
            error_type,
            error_message,
            process: self.known.get(&pid)?,
            tid: raw.record.tid,
            memory: self
                .page_size
                .filter(|_| raw.end != End::Open)
                .map(|size| memory_of(&raw.record, size)),
            polls: captured.polls,
            ended_with_process: is_ordinary_exit,
            captured: captured.parameters,
        })
    }
}

fn message(bytes: &[u8]) -> Cow<'_, str> {
    match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(text) if text.len() <= MAX_ERROR_MESSAGE => Cow::Borrowed(text),
        text => Cow::Owned(text::cut(&text, MAX_ERROR_MESSAGE)),
    }
}

/// `what()` of the standard library's exceptions that keep no text: it is a constant of libstdc++.
fn fixed_text(type_name: &str) -> Option<&'static str> {
    Some(match type_name {
        "std::exception" => "std::exception",
        "std::bad_alloc" => "std::bad_alloc",
        "std::bad_array_new_length" => "std::bad_array_new_length",
        "std::bad_cast" => "std::bad_cast",
        "std::bad_typeid" => "std::bad_typeid",
        "std::bad_exception" => "std::bad_exception",
        "std::bad_function_call" => "bad_function_call",
        "std::bad_weak_ptr" => "bad_weak_ptr",
        "std::bad_optional_access" => "bad optional access",
        "std::bad_any_cast" => "bad any_cast",
        _ => return None,
    })
}

impl Assembler {
    /// The name of the Go type at an address of a process.
    fn go_type(
        &mut self,
        pid: u32,
        address: u64,
        table: &ProbeTable,
        layouts: &Layouts,
    ) -> Option<String> {
        let key = (layouts.number(pid), address);
        if let Some(name) = self.go_types.get(&key) {
            return Some(name.clone());
        }
        let name = table.go_type_name(&layouts.get(pid)?.types, address)?;
        if self.go_types.len() >= MAX_TYPE_NAMES {
            self.go_types.clear();
        }
        self.go_types.insert(key, name.clone());
        Some(name)
    }
}

fn memory_of(record: &SpanRecord, page_size: u64) -> SpanMemory {
    let rss = u64::from(record.rss_pages) * page_size;
    SpanMemory {
        rss: (rss > 0).then_some(rss),
        rss_delta: (record.rss_delta != UNKNOWN_DELTA)
            .then(|| i64::from(record.rss_delta) * page_size as i64),
        page_faults: record.page_faults,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_bounded() {
        assert_eq!(message(b"x\xffy"), "x\u{fffd}y");
        assert_eq!(message(&[b'a'; 2000]).len(), 1024);
    }
}
