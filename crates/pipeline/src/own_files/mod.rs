//! The agent's own folders and files: spool, run folder, credentials, configuration. All of them are opened here.
//!
//! The agent runs as root, and what it is told to use may lie where others can write: a symbolic link, a folder of
//! somebody else's or a FIFO would make root change, delete or wait for what was never meant. So a path is followed
//! part by part, by handles that nobody can exchange afterwards, and every part must be trusted:
//!
//! - folders on the way belong to root, to the agent's user or to whoever called `sudo`, and nobody else may write
//!   to them, or they are sticky as `/tmp` is;
//! - symbolic links on the way belong to these, too, and lie where nobody else may write (`/var/run`); below the
//!   folder that was named there are none;
//! - that folder, and all below it, is the agent's user's own;
//! - files are regular ones, whose size is bounded. Nothing else is even opened.
//!
//! Only what the agent makes gets its mode from it; what was there before stays as it is.

mod folder;
mod given;
mod refused;
mod walk;

pub use folder::Folder;
pub use given::{User, give};
pub use refused::Refused;
pub use walk::{Content, read, read_regular};

#[cfg(test)]
mod tests;
