//! Which traces are kept (wire.md, "Sampling"): all or nothing per trace, the same for every service
//! that sees its id. The kernel side decides, so that a trace that is not kept costs the least.

/// The share of traces that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// With [`SOME`]: ids whose hash is at most this are kept.
    pub threshold: u64,
    /// [`ALL`], [`NONE`] or [`SOME`].
    pub mode: u32,
}

/// [`Sampling::mode`]: every trace is kept.
pub const ALL: u32 = 0;
/// [`Sampling::mode`]: none is.
pub const NONE: u32 = 1;
/// [`Sampling::mode`]: the hash of the id decides.
pub const SOME: u32 = 2;

impl Sampling {
    /// For a share of traces; what is not a number keeps none, as the reference client does.
    pub fn of(rate: f64) -> Self {
        let (mode, threshold) = if rate >= 1.0 {
            (ALL, u64::MAX)
        } else if rate > 0.0 {
            // The reference multiplies in double precision, where 2^64 - 1 is 2^64, and truncates.
            (SOME, (rate * 18_446_744_073_709_551_616.0) as u64)
        } else {
            (NONE, 0)
        };
        Self { threshold, mode }
    }

    /// Whether a trace is kept.
    #[inline(always)]
    pub fn keeps(self, trace_id: [u64; 2]) -> bool {
        match self.mode {
            ALL => true,
            NONE => false,
            _ => hash(trace_id) <= self.threshold,
        }
    }
}

/// Verdicts about traces to come, made by user space: `skip` ids were drawn and their hashes were over
/// the threshold, then `id` was drawn and is kept. So the rule holds to the letter, and a trace that is
/// left out costs the kernel side a subtraction instead of a hash.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// Traces to leave out.
    pub skip: u32,
    /// The rate that it was made for: [`Control::epoch`](crate::Control::epoch). 0: nothing here.
    pub epoch: u32,
    /// The trace after these; zero where there is none.
    pub id: [u64; 2],
}

/// Four hexadecimal digits of the low 16 bits, the first in the lowest byte.
#[inline(always)]
const fn digits(bits: u32) -> u32 {
    let bits = bits & 0xffff;
    let values = bits >> 12 | bits & 0xf00 | (bits & 0xf0) << 12 | (bits & 0xf) << 24;
    let letters = ((values + 0x0606_0606) >> 4) & 0x0101_0101;
    values + 0x3030_3030 + letters * 39
}

/// The first eight bytes of the MD5 of the id's 32 hexadecimal digits, as a big-endian number.
///
/// MD5 (RFC 1321) of exactly one block, written out: the verifier would follow each turn of a loop,
/// and half of the block is constant.
#[inline(always)]
pub const fn hash(trace_id: [u64; 2]) -> u64 {
    let [high, low] = trace_id;
    let w0 = digits((high >> 48) as u32);
    let w1 = digits((high >> 32) as u32);
    let w2 = digits((high >> 16) as u32);
    let w3 = digits(high as u32);
    let w4 = digits((low >> 48) as u32);
    let w5 = digits((low >> 32) as u32);
    let w6 = digits((low >> 16) as u32);
    let w7 = digits(low as u32);
    // The end mark, and the length in bits.
    let (w8, w14) = (0x80, 256);
    let (w9, w10, w11, w12, w13, w15) = (0, 0, 0, 0, 0, 0);
    let (mut a, mut b, mut c, mut d) = (
        0x6745_2301u32,
        0xefcd_ab89u32,
        0x98ba_dcfeu32,
        0x1032_5476u32,
    );
    macro_rules! round {
        ($mix:ident: $($word:ident $turn:literal $constant:literal),*) => {$({
            let mixed: u32 = mixes!($mix);
            let sum = a.wrapping_add(mixed).wrapping_add($constant).wrapping_add($word);
            let next = b.wrapping_add(sum.rotate_left($turn));
            (a, b, c, d) = (d, next, b, c);
        })*};
    }
    macro_rules! mixes {
        (f) => {
            d ^ (b & (c ^ d))
        };
        (g) => {
            c ^ (d & (b ^ c))
        };
        (h) => {
            b ^ c ^ d
        };
        (i) => {
            c ^ (b | !d)
        };
    }
    round!(f: w0 7 0xd76aa478, w1 12 0xe8c7b756, w2 17 0x242070db, w3 22 0xc1bdceee,
        w4 7 0xf57c0faf, w5 12 0x4787c62a, w6 17 0xa8304613, w7 22 0xfd469501,
        w8 7 0x698098d8, w9 12 0x8b44f7af, w10 17 0xffff5bb1, w11 22 0x895cd7be,
        w12 7 0x6b901122, w13 12 0xfd987193, w14 17 0xa679438e, w15 22 0x49b40821);
    round!(g: w1 5 0xf61e2562, w6 9 0xc040b340, w11 14 0x265e5a51, w0 20 0xe9b6c7aa,
        w5 5 0xd62f105d, w10 9 0x02441453, w15 14 0xd8a1e681, w4 20 0xe7d3fbc8,
        w9 5 0x21e1cde6, w14 9 0xc33707d6, w3 14 0xf4d50d87, w8 20 0x455a14ed,
        w13 5 0xa9e3e905, w2 9 0xfcefa3f8, w7 14 0x676f02d9, w12 20 0x8d2a4c8a);
    round!(h: w5 4 0xfffa3942, w8 11 0x8771f681, w11 16 0x6d9d6122, w14 23 0xfde5380c,
        w1 4 0xa4beea44, w4 11 0x4bdecfa9, w7 16 0xf6bb4b60, w10 23 0xbebfbc70,
        w13 4 0x289b7ec6, w0 11 0xeaa127fa, w3 16 0xd4ef3085, w6 23 0x04881d05,
        w9 4 0xd9d4d039, w12 11 0xe6db99e5, w15 16 0x1fa27cf8, w2 23 0xc4ac5665);
    round!(i: w0 6 0xf4292244, w7 10 0x432aff97, w14 15 0xab9423a7, w5 21 0xfc93a039,
        w12 6 0x655b59c3, w3 10 0x8f0ccc92, w10 15 0xffeff47d, w1 21 0x85845dd1,
        w8 6 0x6fa87e4f, w15 10 0xfe2ce6e0, w6 15 0xa3014314, w13 21 0x4e0811a1,
        w4 6 0xf7537e82, w11 10 0xbd3af235, w2 15 0x2ad7d2bb, w9 21 0xeb86d391);
    // The other half of the digest.
    let _ = (c, d);
    let (first, second) = (
        a.wrapping_add(0x6745_2301).swap_bytes(),
        b.wrapping_add(0xefcd_ab89).swap_bytes(),
    );
    (first as u64) << 32 | second as u64
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, integers only, no padding.
unsafe impl aya::Pod for Ahead {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_md5() {
        // printf %032x 0 | md5sum and the like.
        for (id, hash_of) in [
            ([0, 0], 0xcd9e_459e_a708_a948),
            (
                [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210],
                0x957b_4974_3a06_a938,
            ),
        ] {
            assert_eq!(hash(id), hash_of, "{id:x?}");
        }
    }

    #[test]
    fn the_ends_of_the_range() {
        assert_eq!(Sampling::of(f64::NAN).mode, NONE);
        assert_eq!(Sampling::of(-1.0).mode, NONE);
        assert_eq!(Sampling::of(0.0).mode, NONE);
        assert_eq!(Sampling::of(1.0).mode, ALL);
        assert_eq!(Sampling::of(0.5).threshold, 1 << 63);
    }
}
