//! Waiting for descriptors.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// Lets the event loop wait until `inner` can be read.
pub fn readable<T: AsFd + AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: every type that is passed here owns one descriptor for its whole life and answers
    // the same each time.
    Ok(unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) }?)
}
