//! Kernel records as they come out of the ring buffers.

use teracron_common::{
    CaptureRecord, End, FutureRecord, PlanId, ProbeId, ProcessEvent, ProcessRecord, RecordKind,
    SpanRecord,
    record::{MESSAGE_BYTES, TYPE_NAME_BYTES},
};

/// A finished span as the kernel side saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawSpan<'a> {
    /// The fixed part.
    pub record: SpanRecord,
    /// How it ended.
    pub end: End,
    /// Mangled name of the exception's type, where there is one.
    pub type_name: &'a [u8],
    /// The exception's text.
    pub message: &'a [u8],
}

impl RawSpan<'_> {
    /// As it was at that instant (`CLOCK_MONOTONIC`, in nanoseconds), after which its callees were not seen: open, where
    /// it ended later. Answers whether it did.
    pub fn as_seen_at(&mut self, at_ns: u64) -> bool {
        let later = self.record.end_ns > at_ns;
        if later {
            self.record.end_ns = at_ns.max(self.record.start_ns);
            self.end = End::Open;
            (self.type_name, self.message) = (&[], &[]);
        }
        later
    }
}

/// What a capture plan read, for a span that comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawCapture<'a> {
    /// The plan.
    pub plan: PlanId,
    /// The span that it belongs to.
    pub span_id: [u64; 2],
    /// What was read, see [`planner::capture::read`].
    pub items: &'a [u8],
}

/// A record of the ring buffer of spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A call ended.
    Span(RawSpan<'a>),
    /// Something was read of a call.
    Capture(RawCapture<'a>),
    /// A future was polled, of which the span comes later.
    Future(FutureRecord),
}

/// Why bytes are no record: the two sides do not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a kernel record of {0} bytes makes no sense")]
pub struct BadRecord(usize);

/// Reads a record of the ring buffer of spans.
///
/// # Errors
/// Where the bytes are none.
pub fn record(bytes: &[u8]) -> Result<Record<'_>, BadRecord> {
    match bytes.first() {
        Some(kind) if u32::from(*kind) == RecordKind::Capture as u32 => {
            capture(bytes).map(Record::Capture)
        }
        Some(kind) if u32::from(*kind) == RecordKind::Future as u32 => {
            future(bytes).map(Record::Future)
        }
        _ => span(bytes).map(Record::Span),
    }
}

fn capture(bytes: &[u8]) -> Result<RawCapture<'_>, BadRecord> {
    let bad = BadRecord(bytes.len());
    let (head, items) = bytes.split_at_checked(CaptureRecord::SIZE).ok_or(bad)?;
    let word = |at: usize| -> Result<u32, BadRecord> {
        let word = head.get(at..at + 4).ok_or(bad)?;
        Ok(u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
    };
    let long = |at: usize| -> Result<u64, BadRecord> {
        Ok(u64::from(word(at)?) | u64::from(word(at + 4)?) << 32)
    };
    Ok(RawCapture {
        plan: PlanId(word(4)?),
        span_id: [long(8)?, long(16)?],
        items: items.get(..word(24)? as usize).ok_or(bad)?,
    })
}

fn future(bytes: &[u8]) -> Result<FutureRecord, BadRecord> {
    let mut words = bytes
        .chunks_exact(4)
        .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    let mut next = || words.next().ok_or(BadRecord(bytes.len()));
    let (kind, polls) = (next()?, next()?);
    let mut long =
        || -> Result<u64, BadRecord> { Ok(u64::from(next()?) | u64::from(next()?) << 32) };
    Ok(FutureRecord {
        kind,
        polls,
        span_id: [long()?, long()?],
        busy_ns: long()?,
    })
}

/// Reads a span record.
///
/// # Errors
/// Where the bytes are none.
pub fn span(bytes: &[u8]) -> Result<RawSpan<'_>, BadRecord> {
    let bad = BadRecord(bytes.len());
    let (head, text) = bytes.split_at_checked(SpanRecord::SIZE).ok_or(bad)?;
    let mut words = head
        .chunks_exact(4)
        .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    let mut next = || words.next().ok_or(bad);
    let [kind, end, detail, _] = next()?.to_le_bytes();
    let mut record = SpanRecord {
        kind,
        end,
        detail,
        future: 0,
        probe: ProbeId(next()?),
        tgid: next()?,
        tid: next()?,
        start_ns: 0,
        end_ns: 0,
        trace_id: [0; 2],
        span_id: [0; 2],
        parent_id: [0; 2],
        type_len: 0,
        message_len: 0,
        rss_pages: 0,
        rss_delta: 0,
        page_faults: 0,
    };
    let mut long = || -> Result<u64, BadRecord> {
        let low = next()?;
        Ok(u64::from(low) | (u64::from(next()?) << 32))
    };
    record.start_ns = long()?;
    record.end_ns = long()?;
    record.trace_id = [long()?, long()?];
    record.span_id = [long()?, long()?];
    record.parent_id = [long()?, long()?];
    let lengths = next()?;
    record.type_len = lengths as u16;
    record.message_len = (lengths >> 16) as u16;
    record.rss_pages = next()?;
    record.rss_delta = next()? as i32;
    record.page_faults = next()?;
    let end = End::from_u32(record.end.into()).ok_or(bad)?;
    let (type_len, message_len) = match record.kind {
        kind if kind == RecordKind::Span as u8 => (0, 0),
        kind if kind == RecordKind::SpanWithText as u8 => {
            (record.type_len.into(), record.message_len.into())
        }
        _ => return Err(bad),
    };
    if type_len > TYPE_NAME_BYTES || message_len > MESSAGE_BYTES {
        return Err(bad);
    }
    let (type_name, rest) = text.split_at_checked(type_len).ok_or(bad)?;
    let message = rest.get(..message_len).ok_or(bad)?;
    Ok(RawSpan {
        record,
        end,
        type_name,
        message,
    })
}

/// A change of a process. Times are `CLOCK_MONOTONIC`, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A traced process forked a child, which is traced too.
    Forked {
        /// The process.
        parent: u32,
        /// Its child.
        child: u32,
        /// When.
        at_ns: u64,
    },
    /// The process runs a new program.
    Executed {
        /// The process.
        pid: u32,
        /// The id that the calling thread had until then; `pid` where its leader called.
        old_tid: u32,
        /// When.
        at_ns: u64,
    },
    /// The process ended.
    Exited {
        /// The process.
        pid: u32,
        /// As `wait` reports it.
        code: u32,
        /// When.
        at_ns: u64,
    },
    /// A thread of the process has ended, the main one or one that probes are tied to, and others go on.
    ThreadEnded {
        /// The process.
        pid: u32,
        /// The thread.
        tid: u32,
    },
    /// The process has mapped something else.
    Mapped(u32),
    /// A thread of the process gets a signal that ends it.
    Dying(Dying),
}

/// A signal that ends a process with a core dump, as it reached a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dying {
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// When.
    pub at_ns: u64,
    /// The signal.
    pub signal: u32,
    /// `si_code`: above zero where the kernel sent it, because of what the thread did.
    pub code: i32,
    /// Where the thread was; `None` where that is not known.
    pub ip: Option<u64>,
    /// `si_addr`, or who sent it: see [`teracron_common::DyingRecord::detail`].
    pub detail: u64,
}

/// Reads a process record.
///
/// # Errors
/// Where the bytes are none.
pub fn change(bytes: &[u8]) -> Result<Change, BadRecord> {
    let bad = BadRecord(bytes.len());
    let word = |index: usize| -> Result<u32, BadRecord> {
        let at = index * 4;
        let bytes = bytes.get(at..at + 4).ok_or(bad)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    if bytes.len() < size_of::<ProcessRecord>() || word(0)? != RecordKind::Process as u32 {
        return Err(bad);
    }
    let (pid, other) = (word(2)?, word(3)?);
    let at_ns = u64::from(word(4)?) | u64::from(word(5)?) << 32;
    match word(1)? {
        event if event == ProcessEvent::Fork as u32 => Ok(Change::Forked {
            parent: pid,
            child: other,
            at_ns,
        }),
        event if event == ProcessEvent::Exec as u32 => Ok(Change::Executed {
            pid,
            old_tid: other,
            at_ns,
        }),
        event if event == ProcessEvent::Exit as u32 => Ok(Change::Exited {
            pid,
            code: other,
            at_ns,
        }),
        event if event == ProcessEvent::ThreadEnded as u32 => {
            Ok(Change::ThreadEnded { pid, tid: other })
        }
        event if event == ProcessEvent::Mapped as u32 => Ok(Change::Mapped(pid)),
        event if event == ProcessEvent::Dying as u32 => {
            let long = |index: usize| -> Result<u64, BadRecord> {
                Ok(u64::from(word(index)?) | u64::from(word(index + 1)?) << 32)
            };
            Ok(Change::Dying(Dying {
                pid,
                tid: other,
                at_ns,
                signal: word(6)?,
                code: word(7)? as i32,
                ip: Some(long(8)?).filter(|ip| *ip != 0),
                detail: long(10)?,
            }))
        }
        _ => Err(bad),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> SpanRecord {
        SpanRecord {
            kind: 2,
            probe: ProbeId(7),
            tgid: 100,
            tid: 101,
            start_ns: 1 << 40,
            end_ns: (1 << 40) + 5,
            trace_id: [1, 2],
            span_id: [3, 4],
            parent_id: [5, 6],
            end: 1,
            detail: 0,
            future: 0,
            type_len: 3,
            message_len: 4,
            rss_pages: 1000,
            rss_delta: -5,
            page_faults: 7,
        }
    }

    #[test]
    fn what_ends_after_the_run_is_open() {
        let (start, end) = (record().start_ns, record().end_ns);
        let at = |at_ns| {
            let mut raw = RawSpan {
                record: record(),
                end: End::Exception,
                type_name: b"a",
                message: b"b",
            };
            assert_eq!(raw.as_seen_at(at_ns), at_ns < end);
            (raw.end, raw.record.end_ns, raw.message.len())
        };
        assert_eq!(at(end), (End::Exception, end, 1));
        assert_eq!(at(end - 1), (End::Open, end - 1, 0));
        // Begun just before the kernel side knew.
        assert_eq!(at(start - 1), (End::Open, start, 0));
    }

    fn bytes(record: &SpanRecord) -> Vec<u8> {
        record.as_bytes().to_vec()
    }

    #[test]
    fn reads_what_the_kernel_writes() {
        let mut raw = bytes(&record());
        raw.extend_from_slice(b"abcdefg\0");
        let span = span(&raw).unwrap();
        assert_eq!(span.record, record());
        assert_eq!(span.end, End::Exception);
        assert_eq!(span.type_name, b"abc");
        assert_eq!(span.message, b"defg");
    }

    #[test]
    fn reads_captures() {
        let mut raw = Vec::new();
        for word in [4u32, 9, 1, 0, 2, 0, 8, 0, 0x0103, 0] {
            raw.extend_from_slice(&word.to_le_bytes());
        }
        let Record::Capture(capture) = super::record(&raw).unwrap() else {
            panic!("not a capture");
        };
        assert_eq!((capture.plan, capture.span_id), (PlanId(9), [1, 2]));
        assert_eq!(capture.items.len(), 8);
        assert!(super::record(&raw[..39]).is_err());
        assert!(super::record(&raw[..20]).is_err());
    }

    #[test]
    fn reads_polls() {
        let mut raw = Vec::new();
        for word in [5u32, 3, 1, 0, 2, 0, 7, 1] {
            raw.extend_from_slice(&word.to_le_bytes());
        }
        let Record::Future(future) = super::record(&raw).unwrap() else {
            panic!("no future");
        };
        assert_eq!((future.polls, future.span_id), (3, [1, 2]));
        assert_eq!(future.busy_ns, 7 | 1 << 32);
        assert!(super::record(&raw[..31]).is_err());
    }

    #[test]
    fn reads_changes() {
        let raw = |event: u32| -> Vec<u8> {
            [3, event, 10, 11, 7, 1]
                .into_iter()
                .flat_map(u32::to_le_bytes)
                .collect()
        };
        let at_ns = 7 | 1 << 32;
        let expected = [
            Change::Forked {
                parent: 10,
                child: 11,
                at_ns,
            },
            Change::Executed {
                pid: 10,
                old_tid: 11,
                at_ns,
            },
            Change::Exited {
                pid: 10,
                code: 11,
                at_ns,
            },
            Change::Mapped(10),
        ];
        for (event, expected) in (1..).zip(expected) {
            assert_eq!(change(&raw(event)), Ok(expected));
            assert!(change(&raw(event)[..23]).is_err());
        }
        assert!(change(&raw(0)).is_err() && change(&raw(99)).is_err());
        let mut dying = raw(5);
        assert!(change(&dying).is_err());
        let rest = [11, u32::MAX, 0x1139, 0x5581, 7, 0];
        dying.extend(rest.into_iter().flat_map(u32::to_le_bytes));
        assert_eq!(
            change(&dying),
            Ok(Change::Dying(Dying {
                pid: 10,
                tid: 11,
                at_ns,
                signal: 11,
                code: -1,
                ip: Some(0x5581_0000_1139),
                detail: 7,
            }))
        );
        assert!(change(&dying[..47]).is_err());
    }

    #[test]
    fn refuses_what_is_cut_off() {
        let mut raw = bytes(&record());
        raw.extend_from_slice(b"abcdef");
        assert!(span(&raw).is_err());
        assert!(span(&raw[..90]).is_err());
        assert!(change(&[3, 0, 0]).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = super::record(&bytes);
            let _ = span(&bytes);
            let _ = change(&bytes);
        }
    }
}
