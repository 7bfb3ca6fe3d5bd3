//! A folder that the agent keeps things in.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, fstat, ftruncate, mkdirat, openat, renameat, statat,
        unlinkat,
    },
    io::Errno,
    process::geteuid,
};

use super::{
    refused::{Refused, kind},
    walk::{Found, PRIVATE_FOLDER, look_in, read_found, walk},
};

/// A folder of the agent's user, held open: whatever becomes of its name, this is the one.
#[derive(Debug)]
pub struct Folder {
    handle: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens a folder; what is missing of its path is made, for its owner alone.
    ///
    /// # Errors
    /// Where a part of the path is not trusted, or the folder is not our own.
    pub fn make(path: &Path) -> Result<Self, Refused> {
        Self::open_found(walk(path, true)?)
    }

    /// Opens a folder that is there.
    ///
    /// # Errors
    /// Where it is not, a part of the path is not trusted, or the folder is not our own.
    pub fn open(path: &Path) -> Result<Self, Refused> {
        Self::open_found(walk(path, false)?)
    }

    /// One that was opened elsewhere; `path` is what it is called there.
    ///
    /// # Errors
    /// Where it is no folder, or not one's own, or others may write to it.
    pub fn of_handle(handle: OwnedFd, path: PathBuf) -> Result<Self, Refused> {
        let stat = fstat(&handle).map_err(|error| Refused::system(&path, error))?;
        let found = Found { handle, path, stat };
        found.check_own()?;
        Ok(Self {
            handle: found.handle,
            path: found.path,
        })
    }

    /// The open folder, to be handed over, and its path when it was opened.
    pub fn into_handle(self) -> (OwnedFd, PathBuf) {
        (self.handle, self.path)
    }

    fn open_found(found: Found) -> Result<Self, Refused> {
        found.check_own()?;
        Ok(Self {
            handle: found.open()?,
            path: found.path,
        })
    }

    /// Opens a folder in it, which is made where it is missing.
    ///
    /// # Errors
    /// Where it is a symbolic link, no folder, or not our own.
    pub fn sub(&self, name: &str) -> Result<Self, Refused> {
        match mkdirat(&self.handle, name, PRIVATE_FOLDER) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(Refused::system(&self.path.join(name), error)),
        }
        Self::open_found(look_in(&self.handle, &self.path, name)?)
    }

    /// Opens a folder in it; `None` where there is none.
    ///
    /// # Errors
    /// As for [`sub`](Self::sub).
    pub fn existing(&self, name: &str) -> Result<Option<Self>, Refused> {
        match look_in(&self.handle, &self.path, name) {
            Ok(found) => Self::open_found(found).map(Some),
            Err(refused) if refused.is_missing() => Ok(None),
            Err(refused) => Err(refused),
        }
    }

    /// Its path when it was opened: to show, not to use.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path that leads into this very folder, for what takes no handles.
    pub fn link(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))
    }

    /// Names of what is in it, as far as they are text.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.handle)? {
            if let Ok(name) = entry?.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Whether something in it is of this kind and our own.
    pub fn has_own(&self, name: &str, wanted: FileType) -> bool {
        statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == wanted && stat.st_uid == geteuid().as_raw()
        })
    }

    /// Reads a file of at most `max` bytes.
    ///
    /// # Errors
    /// Where it is not there, no regular file, or too large.
    pub fn read(&self, name: &str, max: u64) -> Result<Vec<u8>, Refused> {
        let found = look_in(&self.handle, &self.path, name)?;
        found.must_be(FileType::RegularFile)?;
        read_found(&found, max)
    }

    /// Opens a file for writing, empty, for its owner alone; it is made where it is missing.
    ///
    /// # Errors
    /// Where something else has its name, or the system says no.
    pub fn create(&self, name: &str) -> Result<File, Refused> {
        let file = self.open_file(name, OFlags::CREATE)?;
        ftruncate(&file, 0).map_err(|error| Refused::system(&self.path.join(name), error))?;
        Ok(file)
    }

    /// Opens a file for writing as it is; it is made where it is missing.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub fn keep(&self, name: &str) -> Result<File, Refused> {
        self.open_file(name, OFlags::CREATE)
    }

    /// Makes a file that was not there.
    ///
    /// # Errors
    /// Where there is one, or the system says no.
    pub fn create_new(&self, name: &str) -> Result<File, Refused> {
        self.open_file(name, OFlags::CREATE | OFlags::EXCL)
    }

    /// Opens a file for writing that is there.
    ///
    /// # Errors
    /// Where it is not, or is no regular file.
    pub fn change(&self, name: &str) -> Result<File, Refused> {
        self.open_file(name, OFlags::empty())
    }

    fn open_file(&self, name: &str, how: OFlags) -> Result<File, Refused> {
        let path = self.path.join(name);
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let not_regular = |found| Refused::Kind {
            path: path.clone(),
            found,
            wanted: "a regular file",
        };
        // The folder is our own: only root or we can have put a device here, and a FIFO does not make us wait.
        let file = match openat(
            &self.handle,
            name,
            flags | how | OFlags::CLOEXEC,
            Mode::RUSR | Mode::WUSR,
        ) {
            Ok(file) => file,
            Err(Errno::LOOP) => return Err(Refused::Link { path }),
            Err(Errno::NXIO) => return Err(not_regular("a FIFO or a socket")),
            // Somebody else's, which says less about what is wrong than what it is.
            Err(Errno::ACCESS) => {
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                let found = statat(&self.handle, name, flags)
                    .map_err(|error| Refused::system(&path, error))?;
                return Err(match FileType::from_raw_mode(found.st_mode) {
                    FileType::RegularFile => Refused::system(&path, Errno::ACCESS),
                    other => not_regular(kind(other)),
                });
            }
            Err(error) => return Err(Refused::system(&path, error)),
        };
        let stat = fstat(&file).map_err(|error| Refused::system(&path, error))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            other => return Err(not_regular(kind(other))),
        }
        if stat.st_uid != geteuid().as_raw() {
            return Err(Refused::Owner {
                path,
                owner: stat.st_uid,
                own: geteuid().as_raw(),
            });
        }
        Ok(File::from(file))
    }

    /// Gives a file another name, or another folder.
    ///
    /// # Errors
    /// Where the system says no.
    pub fn rename(&self, name: &str, folder: &Self, new: &str) -> io::Result<()> {
        Ok(renameat(&self.handle, name, &folder.handle, new)?)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// Where the system says no.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.handle, name, AtFlags::empty())?)
    }

    /// Makes what was made, renamed and removed in it last.
    ///
    /// # Errors
    /// Where the system can't.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.handle)?)
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}
