//! A folder for a process of another user: made by root in root's own, and given away with what is in it.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, fchown, fstat, mkdirat, openat},
    io::Errno,
    process::geteuid,
};

use super::{
    Folder,
    refused::Refused,
    walk::{PRIVATE_FOLDER, look_in},
};

/// Folders within folders that are given away: `SLUG/N/dead`.
const DEPTH: u32 = 3;
/// Names in one folder that are looked at: a spool has some thousands.
const MAX_NAMES: usize = 1 << 20;

/// A user and its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub user: u32,
    /// The group's.
    pub group: u32,
}

/// Makes the folder `name` in a folder of root's own, and gives it to a user, with what its owner until now has in it:
/// folders, and regular files of one name only, as the agent of earlier versions made them. `former` are users that
/// such folders were given to by earlier runs. What is anybody else's stays as it is. Answers the open folder.
///
/// # Errors
/// Where a part of the path is not to be trusted, or the folder is somebody else's.
pub fn give(
    within: &Path,
    name: &str,
    to: User,
    former: &[u32],
) -> Result<(OwnedFd, PathBuf), Refused> {
    let folder = Folder::make(within)?;
    let path = folder.path().join(name);
    match mkdirat(folder.as_fd(), name, PRIVATE_FOLDER) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(Refused::system(&path, error)),
    }
    let found = look_in(folder.as_fd(), folder.path(), name)?;
    found.must_be(FileType::Directory)?;
    let (owner, own) = (found.stat.st_uid, geteuid().as_raw());
    if owner != own && owner != to.user && !former.contains(&owner) {
        return Err(Refused::Owner { path, owner, own });
    }
    if found.others_write() {
        return Err(found.writable());
    }
    let opened = found.open()?;
    give_folder(opened.as_fd(), owner, to, DEPTH).map_err(|error| Refused::system(&path, error))?;
    Ok((opened, path))
}

/// What is in it first: nobody but the owner, and root, can put anything there meanwhile, and where the folder is given
/// already, all in it is. So what root has in a folder that was given is never touched: its new owner may have brought it
/// there.
fn give_folder(folder: BorrowedFd<'_>, owner: u32, to: User, depth: u32) -> Result<(), Errno> {
    if owner == to.user {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(to.user), Gid::from_raw(to.group));
    if depth > 0 {
        for entry in Dir::read_from(folder)?.take(MAX_NAMES) {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let Ok(found) = openat(folder, name, flags, Mode::empty()) else {
                continue; // it is gone
            };
            let stat = fstat(&found)?;
            if stat.st_uid != owner {
                continue;
            }
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    let inner = openat(&found, ".", flags, Mode::empty())?;
                    give_folder(inner.as_fd(), owner, to, depth - 1)?;
                }
                // A file that has another name, too, may be anything.
                FileType::RegularFile if stat.st_nlink == 1 => {
                    let flags = AtFlags::EMPTY_PATH;
                    chownat(&found, "", Some(user), Some(group), flags)?;
                }
                _ => {}
            }
        }
    }
    fchown(folder, Some(user), Some(group))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, symlink},
    };

    const USER: User = User {
        user: 60_999,
        group: 60_999,
    };

    /// Needs root.
    #[test]
    fn what_the_agent_made_is_given_and_nothing_else() {
        if !geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let spool = root.path().join("spool");
        let folder = Folder::make(&spool).unwrap().sub("shop").unwrap();
        let numbered = folder.sub("0").unwrap();
        drop(numbered.create("1.sealed").unwrap());
        drop(numbered.sub("dead").unwrap().create("2.sealed").unwrap());
        let outside = root.path().join("victim");
        fs::write(&outside, "").unwrap();
        symlink(&outside, spool.join("shop/link")).unwrap();
        fs::hard_link(&outside, spool.join("shop/0/3.sealed")).unwrap();
        fs::write(spool.join("shop/theirs"), "").unwrap();
        std::os::unix::fs::chown(spool.join("shop/theirs"), Some(1), None).unwrap();
        for _ in 0..2 {
            let (handle, path) = give(&spool, "shop", USER, &[]).unwrap();
            assert_eq!(fstat(&handle).unwrap().st_uid, USER.user);
            assert_eq!(path, spool.join("shop"));
        }
        let owner = |name: &str| fs::symlink_metadata(spool.join(name)).unwrap().uid();
        for (name, wanted) in [
            ("", 0),
            ("shop", USER.user),
            ("shop/0", USER.user),
            ("shop/0/1.sealed", USER.user),
            ("shop/0/dead/2.sealed", USER.user),
            ("shop/0/3.sealed", 0),
            ("shop/link", 0),
            ("shop/theirs", 1),
        ] {
            assert_eq!(owner(name), wanted, "{name}");
        }
        assert_eq!(fs::metadata(&outside).unwrap().uid(), 0);
        std::os::unix::fs::chown(spool.join("shop"), Some(1), None).unwrap();
        assert!(give(&spool, "shop", USER, &[]).is_err(), "a third user's");
        // But a former one's.
        std::os::unix::fs::chown(spool.join("shop"), Some(1), None).unwrap();
        give(&spool, "shop", USER, &[1]).unwrap();
        assert_eq!(
            (owner("shop"), owner("shop/theirs")),
            (USER.user, USER.user)
        );
    }
}
