//! Messages over a socket pair, with open files beside them.
//!
//! A message is eight bytes (the length of what follows, and how many files come along, both 32 bits) and the message
//! in postcard's format. Nothing is believed of the other side but that the kernel keeps messages in order: lengths
//! are bounded before memory is taken, and what makes no sense is an error.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Serialize, de::DeserializeOwned};

/// Longest message, in bytes: a plan of 10,000 functions with captures takes some megabytes.
const MAX_MESSAGE: usize = 256 << 20;
/// Files that come along with one message: the kernel takes 253 (SCM_MAX_FD).
pub(crate) const MAX_FILES: usize = 200;

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(UnixStream);

impl Channel {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self(socket.into())
    }

    /// Two ends.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (here, there) = UnixStream::pair()?;
        Ok((Self(here), there.into()))
    }

    /// The same end again: one to send by, one to receive.
    pub(crate) fn again(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Nothing is sent or received any more; whoever waits at either end is told.
    pub(crate) fn close(&self) {
        // It may be closed already.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }

    /// Sends a message.
    pub(crate) fn send<T: Serialize>(
        &mut self,
        message: &T,
        files: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
        if bytes.len() > MAX_MESSAGE || files.len() > MAX_FILES {
            return Err(io::Error::other("too long a message"));
        }
        let mut head = [0; 8];
        let (length, count) = head.split_at_mut(4);
        length.copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        count.copy_from_slice(&(files.len() as u32).to_le_bytes());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(io::Error::other("too many files"));
        }
        // Whoever reads no more is told by an error, not by a signal.
        let flags = SendFlags::NOSIGNAL;
        let sent = loop {
            match sendmsg(&self.0, &[IoSlice::new(&head)], &mut beside, flags) {
                Err(rustix::io::Errno::INTR) => {}
                sent => break sent?,
            }
        };
        self.0.write_all(head.get(sent..).unwrap_or_default())?;
        self.0.write_all(&bytes)
    }

    /// Receives a message, and the files that come along; the other side has closed where there is none.
    pub(crate) fn receive<T: DeserializeOwned>(&mut self) -> io::Result<(T, Vec<File>)> {
        let mut head = [0; 8];
        let mut files = Vec::new();
        let mut read = 0;
        while let Some(room) = head.get_mut(read..).filter(|room| !room.is_empty()) {
            match self.receive_some(room, &mut files) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let [a, b, c, d, e, f, g, h] = head;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let count = u32::from_le_bytes([e, f, g, h]) as usize;
        if length > MAX_MESSAGE || count != files.len() {
            return Err(io::Error::other("a message that makes no sense"));
        }
        // Memory is taken as bytes come, not by what is claimed.
        let mut bytes = Vec::new();
        let mut body = (&self.0).take(length as u64);
        if body.read_to_end(&mut bytes)? != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let message = postcard::from_bytes(&bytes).map_err(io::Error::other)?;
        Ok((message, files))
    }

    fn receive_some(&self, room: &mut [u8], files: &mut Vec<File>) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            self.0.as_fd(),
            &mut [IoSliceMut::new(room)],
            &mut beside,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                files.extend(more.map(File::from));
            }
        }
        Ok(received.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_with_their_files() {
        let (mut here, there) = Channel::pair().unwrap();
        let mut there = Channel::new(there);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        let files: Vec<BorrowedFd<'_>> = (0..MAX_FILES).map(|_| file.as_fd()).collect();
        here.send(&vec![1u8, 2, 3], &files).unwrap();
        here.send(&vec![4u8], &[]).unwrap();
        let (message, files) = there.receive::<Vec<u8>>().unwrap();
        assert_eq!((message, files.len()), (vec![1, 2, 3], MAX_FILES));
        assert_eq!(files[7].metadata().unwrap().len(), 7);
        assert_eq!(there.receive::<Vec<u8>>().unwrap().0, [4]);
        drop(here);
        let end = there.receive::<Vec<u8>>().unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        for bytes in [
            &[0xff; 8][..],
            &[4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            &[4, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
            &[200, 0, 0, 0, 0, 0, 0, 0, 1],
        ] {
            let (here, there) = Channel::pair().unwrap();
            (&here.0).write_all(bytes).unwrap();
            drop(here);
            let mut there = Channel::new(there);
            assert!(there.receive::<Vec<u8>>().is_err(), "{bytes:?}");
        }
    }
}
