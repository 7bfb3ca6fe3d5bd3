//! What is particular to x86-64 of what both sides know.

/// Whether an x86 condition code holds in `flags` (the RFLAGS register).
///
/// Codes as in the low four bits of `jcc` (Intel SDM volume 2, appendix B.1.4.7).
#[inline(always)]
pub const fn condition_holds(condition: u8, flags: u64) -> bool {
    let carry = flags & 1 != 0;
    let parity = flags & 4 != 0;
    let zero = flags & 0x40 != 0;
    let sign = flags & 0x80 != 0;
    let overflow = flags & 0x800 != 0;
    let holds = match condition >> 1 {
        0 => overflow,
        1 => carry,
        2 => zero,
        3 => carry || zero,
        4 => sign,
        5 => parity,
        6 => sign != overflow,
        _ => zero || sign != overflow,
    };
    holds != (condition & 1 != 0)
}
