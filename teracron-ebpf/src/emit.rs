//! Sending records to user space.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::helpers::generated::{bpf_ringbuf_output, bpf_ringbuf_query};
use teracron_common::{Counter, FailureText, RecordKind, SpanRecord, TEXT_BYTES};

use crate::{
    kernel::count_at,
    maps::{FAILURES, SPANS},
};

/// `BPF_RB_NO_WAKEUP`; one more is `BPF_RB_FORCE_WAKEUP`.
const NO_WAKEUP: u64 = 1;
/// `BPF_RB_AVAIL_DATA`.
const AVAILABLE: u64 = 0;

/// The ring buffer of spans, as helpers take it.
#[inline(always)]
pub fn spans() -> *mut c_void {
    (&raw const SPANS).cast_mut().cast()
}

/// Wakes the reader with the first record after it has read everything. It then looks by itself
/// every few milliseconds for as long as there are more: a wake-up per span would cost more than
/// the span, because it runs inside the probe.
#[inline(always)]
pub fn wake_flags() -> u64 {
    // SAFETY: a map of the right kind.
    let unread = unsafe { bpf_ringbuf_query(spans(), AVAILABLE) };
    // 1 where nothing is unread, without a branch, which would double the verifier's work in every
    // iteration of a loop.
    let mut some = (unread | unread.wrapping_neg()) >> 63;
    // SAFETY: a move to itself, which keeps the compiler from making it a branch again.
    unsafe { asm!("{0} = {0}", inout(reg) some) };
    NO_WAKEUP + (some ^ 1)
}

/// Sends the record of an ended call.
#[inline(always)]
pub fn send(record: &SpanRecord) {
    output(record, SpanRecord::SIZE as u64);
}

/// Sends `size` bytes that begin with a record.
#[inline(always)]
fn output(record: &SpanRecord, size: u64) {
    // SAFETY: a map of the right kind; the caller has `size` bytes behind the reference.
    let result = unsafe {
        bpf_ringbuf_output(
            spans(),
            (&raw const *record).cast_mut().cast(),
            size,
            wake_flags(),
        )
    };
    const { assert!(Counter::LostRing as u32 == Counter::Sent as u32 + 1) };
    count_at(Counter::Sent as u32 + (result as u64 >> 63) as u32);
}

/// Sends the record of a call that an exception left, with the exception's type and text where
/// the thread has them; `false` where it has not.
#[inline(always)]
pub fn send_with_text(record: &SpanRecord, key: u64) -> bool {
    let Some(failure) = FAILURES.get_ptr_mut(key) else {
        return false;
    };
    // SAFETY: a map value that only this thread writes.
    let failure: &mut FailureText = unsafe { &mut *failure };
    let (type_len, message_len) = (failure.record.type_len, failure.record.message_len);
    let end = failure.record.end;
    failure.record = *record;
    failure.record.kind = RecordKind::SpanWithText as u8;
    failure.record.end = end;
    failure.record.type_len = type_len;
    failure.record.message_len = message_len;
    let mut size = type_len as u64 + message_len as u64;
    // SAFETY: a move to itself; behind it the compiler can't drop the mask, which the verifier
    // needs.
    unsafe { asm!("{0} = {0}", inout(reg) size) };
    // The mask holds back nothing: `describe` keeps within the text's bytes.
    output(
        &failure.record,
        SpanRecord::SIZE as u64 + (size & (TEXT_BYTES as u64 - 1)),
    );
    true
}
