//! Why a file or folder is not used.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::fs::FileType;

use model::text::shown;

/// Why a file or folder of the agent's own is not used, with the part of the path that it is about.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The system says no.
    #[error("{}: {error}", show(path))]
    System {
        /// What it is about.
        path: PathBuf,
        /// The system's word.
        error: io::Error,
    },
    /// A symbolic link that is not followed.
    #[error(
        "{} is a symbolic link, and not followed here; name another place, or remove it",
        show(path)
    )]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// Somebody else's.
    #[error(
        "{} belongs to user {owner}, who could exchange what is in it; give it to user {own} (chown), or use another",
        show(path)
    )]
    Owner {
        /// The file or folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it should be.
        own: u32,
    },
    /// For others to write to.
    #[error(
        "{} can be written by others (mode {mode:04o}); take that away (chmod go-w), or use another",
        show(path)
    )]
    Writable {
        /// The file or folder.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A FIFO, a device, a folder.
    #[error("{} is {found}, not {wanted}", show(path))]
    Kind {
        /// What was found.
        path: PathBuf,
        /// What it is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// More than such a file ever holds.
    #[error("{} is larger than {max} bytes", show(path))]
    Large {
        /// The file.
        path: PathBuf,
        /// The limit, in bytes.
        max: u64,
    },
}

fn show(path: &Path) -> String {
    shown(&path.to_string_lossy())
}

impl Refused {
    pub(super) fn system(path: &Path, error: impl Into<io::Error>) -> Self {
        Self::System {
            path: path.to_owned(),
            error: error.into(),
        }
    }

    /// Whether it is simply not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::System { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        match refused {
            // What callers look at.
            Refused::System { error, .. } => error,
            other => Self::other(other.to_string()),
        }
    }
}

/// What a file is, in words.
pub(super) fn kind(file_type: FileType) -> &'static str {
    match file_type {
        FileType::RegularFile => "a file",
        FileType::Directory => "a folder",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "of no known kind",
    }
}
