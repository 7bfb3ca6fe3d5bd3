//! Places where the compiler put a function's code into its caller: there is no call to see the end of, so
//! calls are only counted.

use aya_ebpf::{
    EbpfContext as _, helpers::generated::bpf_get_attach_cookie, macros::uprobe,
    programs::ProbeContext,
};
use teracron_common::{Age, EnterCookie};

use crate::{
    kernel::{current_ids, increment},
    maps::{INLINED, TARGETS},
    span,
};

/// The first instruction of inlined code.
#[uprobe]
pub fn inline_count(ctx: ProbeContext) -> u32 {
    // SAFETY: the context is the one the kernel passed.
    let cookie = EnterCookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    // Of two sets of probes that are attached, only the one in force counts.
    let Some((_, Age::Current)) = span::age_of(cookie) else {
        return 0;
    };
    let (tgid, _) = current_ids();
    if TARGETS.get_ptr(tgid).is_none() {
        return 0;
    }
    if let Some(value) = INLINED.get_ptr_mut(cookie.id.probe()) {
        increment(value);
    }
    0
}
