//! Files that somebody else chose: what a target has mapped, what its dynamic section and its debug
//! information name. Every one of them is opened here and nowhere else.
//!
//! Opening is an act: a watchdog starts, a tape rewinds, `/proc/kmsg` takes messages away from the log
//! daemon, a FIFO blocks. So a path is looked up first (`O_PATH`, which opens nothing), what was found must
//! be a regular file of a file system that stores files, and only then that very inode is opened for reading.
//!
//! [`Root`] is where names are looked up that a target chose: they can't lead out of it. [`Owner`] says
//! whose files are believed beside a given one.

mod open;
mod owner;
mod root;

pub use open::open;
pub use owner::Owner;
pub use root::Root;

/// How much is read of foreign files, and how far names are followed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest debug file whose checksum is computed, in bytes.
    pub checksum: u64,
    /// Symbolic links that are followed in one path; the kernel's own limit.
    pub links: usize,
    /// Parts of one path, those of links included.
    pub parts: usize,
    /// Bytes of a process's command line that are looked at.
    pub command_line: u64,
    /// Bytes of a process's environment that are looked at.
    pub environment: u64,
    /// Bytes of machine code of one file that are searched.
    pub code: u64,
}

/// The limits in force.
pub const LIMITS: Limits = Limits {
    checksum: 4 << 30,
    links: 40,
    parts: 512,
    command_line: 256 << 10,
    environment: 2 << 20,
    code: 2 << 30,
};
