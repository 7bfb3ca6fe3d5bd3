//! What the kernel side keeps of a process by address: the same for all processes that have the same files at the same
//! places. User space numbers these layouts and writes them before a process names one; number 0 stands for a process
//! that nobody has looked at yet.

/// Layouts that are kept at a time.
pub const MAX_LAYOUTS: u32 = 8192;
/// Ranges of memory that hold constants, per layout.
pub const MAX_CONSTANTS: usize = 16;
/// Go types with texts and functions that drop strings, of all layouts together.
pub const MAX_PLACED: u32 = 65_536;
/// [`Layout::errno`]: not known.
pub const NO_ERRNO: i64 = i64::MIN;

/// The bits of a target's value in the map of targets that are its layout's number.
const SHIFT: u32 = 8;

/// A target's value in the map of targets: its flags, with the number of its layout.
pub const fn with_layout(flags: u32, layout: u32) -> u32 {
    flags & ((1 << SHIFT) - 1) | layout << SHIFT
}

/// The number of the layout in a target's value.
pub const fn layout_of(value: u32) -> u32 {
    value >> SHIFT
}

/// A layout.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Distance of `errno` from the thread's control block, or [`NO_ERRNO`].
    pub errno: i64,
    /// Memory that holds constants of Rust programs: first byte and end; zeros where there are no more.
    pub constants: [[u64; 2]; MAX_CONSTANTS],
}

/// An address in processes of a layout: a key.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Placed {
    /// The address.
    pub address: u64,
    /// The layout's number.
    pub layout: u64,
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, 64-bit integers only, no padding.
unsafe impl aya::Pod for Layout {}
#[cfg(feature = "user")]
// SAFETY: `repr(C)`, 64-bit integers only, no padding.
unsafe impl aya::Pod for Placed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_says_its_layout_beside_its_flags() {
        let value = with_layout(3, 8191);
        assert_eq!((value & 0xff, layout_of(value)), (3, 8191));
        assert_eq!(layout_of(with_layout(value, 0)), 0);
        assert_eq!(layout_of(1), 0);
    }

    #[test]
    fn layouts_have_no_padding() {
        assert_eq!(size_of::<Layout>(), 8 + 16 * MAX_CONSTANTS);
        assert_eq!(size_of::<Placed>(), 16);
    }
}
