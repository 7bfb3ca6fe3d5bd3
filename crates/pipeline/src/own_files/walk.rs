//! From a path to an open file, part by part.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::File,
    io::Read as _,
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{
        CWD, FileType, Mode, OFlags, Stat, StatVfsMountFlags, fstat, fstatvfs, mkdirat, openat,
        readlinkat,
    },
    io::Errno,
    process::geteuid,
};

use super::refused::{Refused, kind};

/// Symbolic links that are followed in one path: the kernel's own limit.
const MAX_LINKS: usize = 40;
/// Made for the agent's user alone.
pub(super) const PRIVATE_FOLDER: Mode = Mode::RWXU;
const STICKY: u32 = 0o1000;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
const OTHERS_READ: u32 = 0o044;

/// Something that was looked up, not opened.
pub(super) struct Found {
    pub handle: OwnedFd,
    pub path: PathBuf,
    pub stat: Stat,
}

impl Found {
    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    fn look(at: impl AsFd, name: &Path, path: PathBuf) -> Result<Self, Refused> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let looked = openat(at, name, flags, Mode::empty())
            .and_then(|handle| fstat(&handle).map(|stat| (handle, stat)));
        match looked {
            Ok((handle, stat)) => Ok(Self { handle, path, stat }),
            Err(error) => Err(Refused::system(&path, error)),
        }
    }

    /// Whether others than its owner and root can write to it.
    pub(super) fn others_write(&self) -> bool {
        let Stat {
            st_mode: mode,
            st_uid: user,
            st_gid: group,
            ..
        } = self.stat;
        // A group of its owner's number is his alone, where distributions make one for each user.
        let group_is_others = group != 0 && group != user;
        let writable = mode & OTHERS_WRITE != 0 || (mode & GROUP_WRITES != 0 && group_is_others);
        // As Kubernetes mounts its ConfigMaps: mode 0777, but nobody can write.
        writable && !self.is_read_only()
    }

    fn is_read_only(&self) -> bool {
        fstatvfs(&self.handle).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY))
    }

    /// Whether it belongs to root, to us, or to whoever called `sudo`.
    fn is_trusted(&self) -> bool {
        let owner = self.stat.st_uid;
        let own = geteuid().as_raw();
        let caller = || {
            let caller = std::env::var("SUDO_UID").ok()?;
            caller.parse::<u32>().ok()
        };
        owner == 0 || owner == own || (own == 0 && caller() == Some(owner))
    }

    fn owner(&self) -> Refused {
        Refused::Owner {
            path: self.path.clone(),
            owner: self.stat.st_uid,
            own: geteuid().as_raw(),
        }
    }

    pub(super) fn writable(&self) -> Refused {
        Refused::Writable {
            path: self.path.clone(),
            mode: self.stat.st_mode & 0o7777,
        }
    }

    /// A folder on the way.
    fn check_way(&self) -> Result<(), Refused> {
        if !self.is_trusted() {
            return Err(self.owner());
        }
        if self.others_write() && self.stat.st_mode & STICKY == 0 {
            return Err(self.writable());
        }
        Ok(())
    }

    /// A folder that the agent keeps things in.
    pub(super) fn check_own(&self) -> Result<(), Refused> {
        self.must_be(FileType::Directory)?;
        if self.stat.st_uid != geteuid().as_raw() {
            return Err(self.owner());
        }
        if self.others_write() {
            return Err(self.writable());
        }
        Ok(())
    }

    pub(super) fn must_be(&self, wanted: FileType) -> Result<(), Refused> {
        if self.kind() == wanted {
            return Ok(());
        }
        Err(match self.kind() {
            FileType::Symlink => Refused::Link {
                path: self.path.clone(),
            },
            found => Refused::Kind {
                path: self.path.clone(),
                found: kind(found),
                wanted: match wanted {
                    FileType::Directory => "a folder",
                    _ => "a regular file",
                },
            },
        })
    }

    /// Opens for reading what was looked up: that very thing, whatever has its name by now.
    pub(super) fn open(&self) -> Result<OwnedFd, Refused> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = match self.kind() {
            FileType::Directory => openat(&self.handle, ".", flags, Mode::empty()),
            _ => {
                let link = format!("/proc/self/fd/{}", self.handle.as_raw_fd());
                openat(CWD, link, flags, Mode::empty())
            }
        };
        opened.map_err(|error| Refused::system(&self.path, error))
    }
}

/// Looks a name up in an open folder. A symbolic link is found itself.
pub(super) fn look_in(folder: impl AsFd, path: &Path, name: &str) -> Result<Found, Refused> {
    Found::look(folder, Path::new(name), path.join(name))
}

/// Follows a path whose every part must be trusted; `make` makes folders that are missing.
///
/// What is not there is told before who owns what is on the way: nobody is asked to change the owner of a folder
/// in which there is nothing.
pub(super) fn walk(path: &Path, make: bool) -> Result<Found, Refused> {
    let mut parts = parts_of(path);
    let begin = |name: &str| Found::look(CWD, Path::new(name), PathBuf::from(name));
    let mut here = begin(if path.is_absolute() { "/" } else { "." })?;
    let (mut links, mut refused) = (0, None);
    while let Some(part) = parts.pop_front() {
        here.must_be(FileType::Directory)?;
        if let Err(error) = here.check_way() {
            if make {
                return Err(error);
            }
            refused.get_or_insert(error);
        }
        let path = match here.path.as_os_str().as_encoded_bytes() {
            b"." => PathBuf::from(&part),
            _ => here.path.join(&part),
        };
        let name = Path::new(&part);
        let mut found = Found::look(&here.handle, name, path.clone());
        if make && found.as_ref().is_err_and(Refused::is_missing) {
            match mkdirat(&here.handle, name, PRIVATE_FOLDER) {
                // Somebody was faster: looked at as if it had been there.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(Refused::system(&path, error)),
            }
            found = Found::look(&here.handle, name, path);
        }
        let found = found?;
        if found.kind() != FileType::Symlink {
            here = found;
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(Refused::system(&found.path, Errno::LOOP));
        }
        // A sticky folder's links do not count: others can make hard links to what is root's.
        if !found.is_trusted() || here.others_write() {
            return Err(refused.unwrap_or(Refused::Link { path: found.path }));
        }
        let target = readlinkat(&found.handle, "", Vec::new())
            .map_err(|error| Refused::system(&found.path, error))?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            here = begin("/")?;
        }
        let mut followed = parts_of(&target);
        followed.append(&mut parts);
        parts = followed;
    }
    match refused {
        Some(refused) => Err(refused),
        None => Ok(here),
    }
}

fn parts_of(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

/// What was read of a file.
pub struct Content {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether others than the owner can read it.
    pub others_read: bool,
}

/// Reads a file that the user named, or whose place is fixed, and that is trusted: configuration, credentials.
///
/// # Errors
/// Where it is not there, is no regular file, is larger than `max` bytes, or somebody else could have written it.
pub fn read(path: &Path, max: u64) -> Result<Content, Refused> {
    let found = walk(path, false)?;
    found.must_be(FileType::RegularFile)?;
    if !found.is_trusted() {
        return Err(found.owner());
    }
    if found.others_write() {
        return Err(found.writable());
    }
    let bytes = read_found(&found, max)?;
    Ok(Content {
        bytes,
        others_read: found.stat.st_mode & OTHERS_READ != 0,
    })
}

pub(super) fn read_found(found: &Found, max: u64) -> Result<Vec<u8>, Refused> {
    let file = File::from(found.open()?);
    let mut bytes = Vec::new();
    file.take(max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| Refused::system(&found.path, error))?;
    if bytes.len() as u64 > max {
        return Err(Refused::Large {
            path: found.path.clone(),
            max,
        });
    }
    Ok(bytes)
}

/// Reads a file that the user named and that may be anybody's: certificates of an authority.
///
/// # Errors
/// Where it is not there, is no regular file, or is larger than `max` bytes.
pub fn read_regular(path: &Path, max: u64) -> Result<Vec<u8>, Refused> {
    let looked = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .and_then(|handle| fstat(&handle).map(|stat| (handle, stat)));
    let (handle, stat) = looked.map_err(|error| Refused::system(path, error))?;
    let found = Found {
        handle,
        path: path.to_owned(),
        stat,
    };
    found.must_be(FileType::RegularFile)?;
    read_found(&found, max)
}
