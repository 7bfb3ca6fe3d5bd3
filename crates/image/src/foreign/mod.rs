//! Files that somebody else chose: what a target has mapped, what its dynamic section and its debug
//! information name. Every one of them is opened here and nowhere else.
//!
//! Opening is an act: a watchdog starts, a tape rewinds, `/proc/kmsg` takes messages away from the log
//! daemon, a FIFO blocks. So a path is looked up first (`O_PATH`, which opens nothing), what was found must
//! be a regular file of a file system that stores files, and only then that very inode is opened for reading.
//!
//! [`Root`] is where names are looked up that a target chose: they can't lead out of it. [`Owner`] says
//! whose files are believed beside a given one. What reading one may cost, [`Budget`] says.

mod budget;
mod open;
mod owner;
mod part;
mod room;
mod root;

use std::time::Duration;

pub use budget::{Budget, Cost, Exceeded, Reading};
pub use open::open;
pub use owner::Owner;
pub(crate) use part::Part;
pub use room::{keep as keep_room, left as room};
pub use root::{Opener, Root, RootId, tell_reading};

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

/// What one file may cost: a [`Budget`] of it.
#[derive(Clone, Copy, Debug)]
pub struct FileLimits {
    /// Headers of sections and segments. A kernel has some hundred; an object file one for each function.
    pub sections: u64,
    /// Bytes of sections that are read as a whole (unwind tables, Go's tables, versions of symbols), together.
    pub section_data: u64,
    /// Entries of symbol tables: 96 MiB. A browser's debug file has two millions.
    pub symbols: u64,
    /// Bytes of names of symbols. A large C++ program has 200 MiB of them.
    pub names: u64,
    /// Bytes that compressed sections come to. The debug information of a kernel has 1 GiB, of a browser 5.
    pub decompressed: u64,
    /// Bytes of one table of abbreviations. A compiler writes one for a unit, of some kilobytes; what linkers optimised
    /// has some hundred.
    pub abbreviations: u64,
    /// Bytes of the head of one line program. A unit of 5,000 source files takes 200 KiB.
    pub line_heads: u64,
    /// Bytes that all demangled names came to. Those of a large C++ program take 400 MiB.
    pub demangling: u64,
    /// Bytes of memory that are kept of a file; a sixth of what there is where that is less.
    pub memory: u64,
    /// How long a file is read, all in all. The largest (5 GB of debug information) take some ten seconds where the
    /// disk is quick.
    pub time: Duration,
}

impl FileLimits {
    fn of(&self, cost: Cost) -> u64 {
        match cost {
            Cost::Sections => self.sections,
            Cost::SectionData => self.section_data,
            Cost::Symbols => self.symbols,
            Cost::Names => self.names,
            Cost::Decompressed => self.decompressed,
            Cost::Abbreviations => self.abbreviations,
            Cost::LineHeads => self.line_heads,
            Cost::Demangling => self.demangling,
            Cost::Memory => self.memory,
        }
    }
}

/// The limits in force for each file.
pub const FILE_LIMITS: FileLimits = FileLimits {
    sections: 256 << 10,
    section_data: 1 << 30,
    symbols: 4 << 20,
    names: 1 << 30,
    decompressed: 8 << 30,
    abbreviations: 2 << 20,
    line_heads: 2 << 20,
    demangling: 2 << 30,
    memory: 3 << 30,
    time: Duration::from_secs(120),
};
