//! Facts of files with code: what an ELF file and its debug information say, and which code in it is proven to be what
//! it seems. What is known of a process that maps such a file is in the crate `tracer`.
//!
//! **Invariant**: nothing here knows a process. Whoever does opens the files and says whose debug files are believed
//! of them ([`DebugPlaces`]). All bytes are foreign: their owner may have written them for us to fail on.

#![forbid(unsafe_code)]

mod copying;
pub mod debug;
mod debug_files;
mod file;
pub mod foreign;
pub mod symbol;

pub use copying::copies_stacks;
pub use debug_files::{
    DebugFiles, DebugPlaces, DebugPolicy, DebugTrust, separate as separate_debug_file,
};
pub use file::{FileKey, FileName, Image, ImageFacts, LIBRARY_FOLDERS, needed_images};
