//! Capture plans: what the kernel side reads at a site of a function whose arguments or result are
//! asked for. A plan is a short list of steps for a machine with one value and a few places; the
//! kernel side has one interpreter for all plans, so a new capture costs the verifier nothing.
//!
//! Everything that is read is named by a step, and what no step names is not read: the boundary of
//! what leaves the target is in the plan, which `symbols --plan` prints.

use crate::ProbeId;

/// Steps of a plan.
pub const MAX_STEPS: usize = 192;
/// Plans of a run, all sets of probes together.
pub const MAX_PLANS: u32 = 1 << 16;
/// Longest string that is copied, in bytes; the wire takes as many characters (wire.md,
/// `captured_params`).
pub const MAX_TEXT: usize = 512;
/// Bytes that one hit's items may take before there is no room for another string.
pub const ROOM: usize = 4096;

/// Number of places that steps read from and write to: the registers, then [`PLACES_FROM`] on what
/// steps keep.
pub const PLACES: usize = 32;
/// Place of the frame address (CFA).
pub const PLACE_CFA: u8 = 16;
/// Place of the thread's control block (`fs`).
pub const PLACE_FS: u8 = 17;
/// Place of what the entry site keeps for the exit of the same call.
pub const PLACE_KEPT: u8 = 18;
/// First place that is free for a plan's own values.
pub const PLACES_FROM: u8 = 19;

/// What a step does. `value` is the machine's one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// The plan ends.
    End = 0,
    /// value = place\[a\]. The general registers are numbered as DWARF does (psABI, figure 3.36).
    Place = 1,
    /// value = operand.
    Constant = 2,
    /// value += operand.
    Add = 3,
    /// value = the `a` (1, 2, 4, 8) bytes at value, zero-extended. Where they can't be read: the
    /// item `key` is "unreadable", and the plan goes on at `to`.
    Load = 4,
    /// place\[a\] = value.
    Keep = 5,
    /// value -= place\[a\].
    Subtract = 6,
    /// value /= operand (unsigned, not zero).
    Divide = 7,
    /// value = (value >> a) & operand.
    Bits = 8,
    /// value = its low `a` bits, sign-extended.
    Sign = 9,
    /// Goes to `to` where the comparison `a` (a [`Compare`]) of value with operand holds.
    Jump = 10,
    /// value += place\[a\].
    AddPlace = 11,
    /// value = where the text of an error of the Go type at value lies in it; goes to `to` where that is
    /// not known.
    GoText = 12,
    /// value = address of the thread's `errno`. Where that is not known of the process: the item `key` is
    /// "unreadable", and the plan goes on at `to`.
    Errno = 13,
    /// An item: the value.
    Item = 14,
    /// An item: `place[a]` bytes at value, at most operand of them.
    Text = 15,
    /// An item: the bytes at value up to the first NUL, at most operand of them.
    CString = 16,
    /// An item: nothing is there.
    Null = 17,
    /// The call has failed.
    Fail = 18,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Compare {
    /// Equal.
    Equal = 0,
    /// Not equal.
    NotEqual = 1,
    /// Less, signed.
    Less = 2,
    /// Less or equal, signed.
    LessEqual = 3,
    /// Less, unsigned.
    Below = 4,
    /// Less or equal, unsigned.
    BelowEqual = 5,
    /// Greater, signed.
    Greater = 6,
    /// Greater or equal, signed.
    GreaterEqual = 7,
    /// Greater, unsigned.
    Above = 8,
    /// Greater or equal, unsigned.
    AboveEqual = 9,
}

/// One step.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Step {
    /// A [`Code`].
    pub code: u8,
    /// See the code.
    pub a: u8,
    /// The item that is meant, where the step makes one or fails to.
    pub key: u8,
    /// Keeps the fields aligned.
    pub reserved: u8,
    /// Where the plan goes on, always further down.
    pub to: u32,
    /// See the code.
    pub operand: u64,
}

/// A site's plan: the value in the map `PLANS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The probe.
    pub probe: ProbeId,
    /// Steps in use.
    pub len: u32,
    /// The steps.
    pub steps: [Step; MAX_STEPS],
}

/// What kind of item follows: [`ItemHead::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ItemKind {
    /// Eight bytes: a value.
    Value = 1,
    /// As many bytes as `len` says, filled up to a multiple of eight.
    Text = 2,
    /// Nothing was there.
    Null = 3,
    /// It could not be read.
    Unreadable = 4,
    /// There was no room left.
    NoRoom = 5,
}

/// What stands before each item of a [`CaptureRecord`](crate::record::CaptureRecord).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ItemHead {
    /// Which one, as the plan's steps number them.
    pub key: u8,
    /// An [`ItemKind`].
    pub kind: u8,
    /// Bytes of text that follow.
    pub len: u16,
    /// Bytes that the text has in the target; all ones where that is not known.
    pub full: u32,
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, integers only, no padding.
unsafe impl aya::Pod for Plan {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_have_no_padding() {
        assert_eq!(size_of::<Step>(), 16);
        assert_eq!(size_of::<Plan>(), 8 + 16 * MAX_STEPS);
        assert_eq!(size_of::<ItemHead>(), 8);
        const { assert!(ROOM.is_power_of_two() && PLACES.is_power_of_two()) };
    }
}
