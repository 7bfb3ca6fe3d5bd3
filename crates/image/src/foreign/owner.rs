//! Whose files are believed beside a given file.

use std::{fs::File, io, os::unix::fs::MetadataExt as _};

use rustix::fs::Stat;
use serde::{Deserialize, Serialize};

/// For everybody to write to.
const OTHERS_WRITE: u32 = 0o002;
/// For its group to write to.
const GROUP_WRITES: u32 = 0o020;
/// In such a folder only an entry's owner can exchange it.
const STICKY: u32 = 0o1000;

/// The owner of a file, and who else may write to it.
///
/// A file beside it is believed where it, every folder on the way to it and every link that was followed belongs
/// to root or to this owner, and nobody else may write to them: whoever could change what is believed could
/// change the file itself already. (A group may, where the file itself is that group's to write to, as all files
/// are that a umask of 002 made.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    user: u32,
    /// A group that may write to the file.
    group: Option<u32>,
}

impl Owner {
    /// Of an open file.
    ///
    /// # Errors
    /// Where it can't be asked.
    pub fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            user: metadata.uid(),
            group: (metadata.mode() & GROUP_WRITES != 0).then_some(metadata.gid()),
        })
    }

    /// Root's own: nobody else is believed.
    pub fn root() -> Self {
        Self {
            user: 0,
            group: None,
        }
    }

    /// Whoever runs this.
    #[cfg(test)]
    pub fn current() -> Self {
        Self {
            user: rustix::process::geteuid().as_raw(),
            group: None,
        }
    }

    /// Whether a link may be followed.
    pub(super) fn believes_link(self, stat: &Stat) -> bool {
        stat.st_uid == 0 || stat.st_uid == self.user
    }

    /// Whether a folder may lead on.
    pub(super) fn believes_folder(self, stat: &Stat) -> bool {
        stat.st_mode & STICKY != 0 && self.believes_link(stat) || self.believes(stat)
    }

    /// Whether a file is believed.
    pub(super) fn believes(self, stat: &Stat) -> bool {
        let group_is_his = self.group == Some(stat.st_gid);
        self.believes_link(stat)
            && stat.st_mode & OTHERS_WRITE == 0
            && (stat.st_mode & GROUP_WRITES == 0 || group_is_his)
    }
}
