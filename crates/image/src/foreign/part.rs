//! A part of a file as a stream.

use std::{
    borrow::Borrow,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
};

/// A part of a file, read from its beginning.
pub(crate) struct Part<F> {
    /// The file: its own or another's.
    pub file: F,
    /// Where reading goes on, in bytes from the file's beginning.
    pub at: u64,
    /// Bytes that are left of the part.
    pub left: u64,
}

impl<F: Borrow<File>> Read for Part<F> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.left).map_or(to.len(), |left| left.min(to.len()));
        let to = to.get_mut(..len).unwrap_or_default();
        let read = self.file.borrow().read_at(to, self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
