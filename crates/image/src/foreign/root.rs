//! A root folder, and names in it that were chosen by somebody else.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, readlinkat},
    io::Errno,
};

use crate::Image;

use super::{
    LIMITS, Owner,
    open::{is_fuse, reopen, stores_files},
};

/// The kernel answers "try again" while folders are being moved.
const TRIES: usize = 8;

/// Opens files for a process that may open none itself.
pub trait Opener: Send + Sync + std::fmt::Debug {
    /// Opens a regular file below a root, as [`Root::open`] does, or as [`Root::open_owned`] where there is an owner.
    ///
    /// # Errors
    /// As these have, or what hinders asking.
    fn open(&self, root: RootId, path: &Path, owner: Option<Owner>) -> io::Result<File>;

    /// Is told which image is read from now on.
    fn reading(&self, image: &Image);
}

/// Says which image is read from now on, to whoever opens files for this process.
pub fn tell_reading(image: &Image) {
    let opener = {
        let host = HOST.lock().unwrap_or_else(PoisonError::into_inner);
        match host.as_ref().map(|root| &root.0) {
            Some(Kind::Elsewhere(opener, _)) => opener.clone(),
            _ => return,
        }
    };
    opener.reading(image);
}

/// Which root is meant, of those that a planning process may have files opened below.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub enum RootId {
    /// Ours.
    Host,
    /// That of a process.
    Process(u32),
}

/// A root folder: no name leads out of it, and the kernel's own links (`/proc/PID/fd/…`) lead nowhere.
#[derive(Debug)]
pub struct Root(Kind);

#[derive(Debug)]
enum Kind {
    /// Files are opened here.
    Folder(OwnedFd),
    /// They are asked for.
    Elsewhere(Arc<dyn Opener>, RootId),
}

/// Ours, once it was asked for: one descriptor, however many files are looked for.
static HOST: Mutex<Option<Arc<Root>>> = Mutex::new(None);

impl Root {
    /// From now on [`host`](Self::host) has files opened by somebody else.
    pub fn host_is_elsewhere(opener: Arc<dyn Opener>) {
        let mut host = HOST.lock().unwrap_or_else(PoisonError::into_inner);
        *host = Some(Arc::new(Self::elsewhere(opener, RootId::Host)));
    }

    /// A root below which somebody else opens files.
    pub fn elsewhere(opener: Arc<dyn Opener>, root: RootId) -> Self {
        Self(Kind::Elsewhere(opener, root))
    }

    /// Ours.
    ///
    /// # Errors
    /// Where it can't be opened.
    pub fn host() -> io::Result<Arc<Self>> {
        let mut host = HOST.lock().unwrap_or_else(PoisonError::into_inner);
        match &*host {
            Some(root) => Ok(root.clone()),
            None => {
                let root = Arc::new(Self::at(Path::new("/"))?);
                *host = Some(root.clone());
                Ok(root)
            }
        }
    }

    /// That of a process, where files are opened elsewhere.
    pub fn of_process(pid: u32) -> Option<Self> {
        let host = HOST.lock().unwrap_or_else(PoisonError::into_inner);
        match &host.as_ref()?.0 {
            Kind::Elsewhere(opener, _) => {
                Some(Self::elsewhere(opener.clone(), RootId::Process(pid)))
            }
            Kind::Folder(_) => None,
        }
    }

    /// The folder at a path that was not chosen by anybody else: a process's `/proc/PID/root`.
    ///
    /// # Errors
    /// Where there is none, or it is not ours to look at.
    pub fn at(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(Kind::Folder(openat(CWD, path, flags, Mode::empty())?)))
    }

    /// Opens a regular file for reading, as [`open`](super::open()) does. Links are followed within the root.
    ///
    /// # Errors
    /// Where there is none, it is no regular file or none that is stored anywhere.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        let folder = match &self.0 {
            Kind::Folder(folder) => folder,
            Kind::Elsewhere(opener, root) => return opener.open(*root, path, None),
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut tries = TRIES;
        let found = loop {
            match openat2(folder, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) if tries > 0 => tries -= 1,
                found => break found?,
            }
        };
        reopen(&found)
    }

    /// The same, if everything that leads there is believed beside a file of this owner: see [`Owner`].
    ///
    /// # Errors
    /// See [`open`](Self::open); [`io::ErrorKind::PermissionDenied`] where somebody else could have put the file
    /// there.
    pub fn open_owned(&self, path: &Path, owner: Owner) -> io::Result<File> {
        let folder = match &self.0 {
            Kind::Folder(folder) => folder,
            Kind::Elsewhere(opener, root) => return opener.open(*root, path, Some(owner)),
        };
        let (found, stat) = look_up(folder, path, owner)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && !owner.believes(&stat)
        {
            return Err(foreign());
        }
        reopen(&found)
    }
}

/// Walks a path part by part, as the kernel would, and looks at each folder and link on the way.
fn look_up(below: &OwnedFd, path: &Path, owner: Owner) -> io::Result<(OwnedFd, Stat)> {
    let root = openat(
        below,
        ".",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let stat = fstat(&root)?;
    check_folder(&root, &stat, None, owner)?;
    let mut folders = vec![(root, stat)];
    // The next part is the last.
    let mut ahead = parts(path);
    let (mut links, mut steps) = (0, 0);
    while let Some(part) = ahead.pop() {
        steps += 1;
        if steps > LIMITS.parts {
            return Err(Errno::NAMETOOLONG.into());
        }
        if part == OsStr::new(".") {
            continue;
        }
        if part == OsStr::new("..") {
            if folders.len() > 1 {
                folders.pop();
            }
            continue;
        }
        let Some((folder, above)) = folders.last() else {
            return Err(Errno::NOENT.into());
        };
        let found = openat2(
            folder,
            &part,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
        )?;
        let stat = fstat(&found)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                links += 1;
                if links > LIMITS.links {
                    return Err(Errno::LOOP.into());
                }
                if !owner.believes_link(&stat) {
                    return Err(foreign());
                }
                let target = readlinkat(&found, "", Vec::new())?.into_bytes();
                let target = PathBuf::from(OsString::from_vec(target));
                if target.is_absolute() {
                    folders.truncate(1);
                }
                ahead.extend(parts(&target));
            }
            FileType::Directory => {
                check_folder(&found, &stat, Some(above), owner)?;
                folders.push((found, stat));
            }
            _ if ahead.is_empty() => {
                // A file can be mounted, too.
                if stat.st_dev != above.st_dev && is_fuse(&found)? {
                    return Err(foreign());
                }
                return Ok((found, stat));
            }
            _ => return Err(Errno::NOTDIR.into()),
        }
    }
    folders.pop().ok_or_else(|| Errno::NOENT.into())
}

/// Whether a folder may lead on; `above` is the one that it is in.
fn check_folder(
    folder: &OwnedFd,
    stat: &Stat,
    above: Option<&Stat>,
    owner: Owner,
) -> io::Result<()> {
    // Owners that a user's program has made up are no owners.
    if above.is_none_or(|above| above.st_dev != stat.st_dev)
        && (is_fuse(folder)? || !stores_files(folder)?)
        || !owner.believes_folder(stat)
    {
        return Err(foreign());
    }
    Ok(())
}

/// The parts of a path, the last first. What ends in a slash is a folder.
fn parts(path: &Path) -> Vec<OsString> {
    let bytes = path.as_os_str().as_bytes();
    let mut parts: Vec<OsString> = bytes
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty())
        .map(|part| OsStr::from_bytes(part).to_owned())
        .collect();
    if bytes.ends_with(b"/") {
        parts.push(".".into());
    }
    parts.reverse();
    parts
}

fn foreign() -> io::Error {
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        "somebody else than root or the program's owner could have put it there",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{
        fs::{self, Permissions},
        io::Read as _,
        os::unix::fs::{PermissionsExt as _, chown, symlink},
    };

    fn text(file: io::Result<File>) -> io::Result<String> {
        let mut text = String::new();
        file?.read_to_string(&mut text)?;
        Ok(text)
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn no_name_leads_out() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("root");
        fs::create_dir_all(inside.join("a/b")).unwrap();
        fs::write(folder.path().join("secret"), "outside").unwrap();
        fs::write(inside.join("secret"), "inside").unwrap();
        symlink("/secret", inside.join("a/absolute")).unwrap();
        symlink("../../../../secret", inside.join("a/b/relative")).unwrap();
        symlink("loop", inside.join("loop")).unwrap();
        let root = Root::at(&inside).unwrap();
        let owner = Owner::current();
        for path in [
            "/secret",
            "secret",
            "../secret",
            "/a/b/../../../../../secret",
            "/a/absolute",
            "/a/b/relative",
            "//a/./b//relative",
        ] {
            let path = Path::new(path);
            assert_eq!(text(root.open(path)).unwrap(), "inside", "{path:?}");
            assert_eq!(
                text(root.open_owned(path, owner)).unwrap(),
                "inside",
                "{path:?}"
            );
        }
        for path in ["/loop", "/a", "", "/", "/secret/x", "/none", "/a/none/x"] {
            let path = Path::new(path);
            assert!(root.open(path).is_err(), "{path:?}");
            assert!(root.open_owned(path, owner).is_err(), "{path:?}");
        }
    }

    #[test]
    fn the_kernels_links_lead_nowhere() {
        let host = Root::host().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        use std::os::fd::AsRawFd as _;
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        let link = Path::new(&link);
        assert!(host.open(link).is_err());
        assert!(host.open_owned(link, Owner::current()).is_err());
        assert!(host.open(file.path()).is_ok());
    }

    #[test]
    fn what_others_can_write_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let file = inner.join("a.debug");
        fs::write(&file, "debug").unwrap();
        mode(&file, 0o644);
        let root = Root::at(folder.path()).unwrap();
        let path = Path::new("/inner/a.debug");
        let owner = Owner::current();
        let opened = |owner: Owner| root.open_owned(path, owner).is_ok();
        assert!(opened(owner));
        for bad in [0o666, 0o664, 0o646] {
            mode(&file, bad);
            assert!(!opened(owner), "{bad:o}");
            mode(&file, 0o644);
            assert!(opened(owner));
        }
        for bad in [0o777, 0o775, 0o757] {
            mode(&inner, bad);
            assert!(!opened(owner), "{bad:o}");
            mode(&inner, 0o755);
        }
        // As /tmp is.
        mode(&inner, 0o1777);
        assert!(opened(owner));
        mode(&inner, 0o755);
        // A umask of 002: the same group may write to the program itself.
        mode(&file, 0o664);
        mode(&inner, 0o775);
        let program = folder.path().join("program");
        fs::write(&program, "").unwrap();
        mode(&program, 0o775);
        let owner = Owner::of(&File::open(&program).unwrap()).unwrap();
        assert!(opened(owner));
        mode(&program, 0o755);
        let owner = Owner::of(&File::open(&program).unwrap()).unwrap();
        assert!(!opened(owner));
    }

    /// Needs root.
    #[test]
    fn what_belongs_to_others_is_not_believed() {
        if !rustix_is_root() {
            return;
        }
        const NOBODY: Option<u32> = Some(65534);
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let file = inner.join("a.debug");
        fs::write(&file, "debug").unwrap();
        symlink("inner/a.debug", folder.path().join("link")).unwrap();
        let root = Root::at(folder.path()).unwrap();
        let opened = |path: &str, owner: Owner| root.open_owned(Path::new(path), owner).is_ok();
        let roots = Owner::root();
        assert!(opened("/inner/a.debug", roots) && opened("/link", roots));
        chown(&file, NOBODY, None).unwrap();
        assert!(!opened("/inner/a.debug", roots));
        // Beside a program of the same user they are.
        let program = folder.path().join("program");
        fs::write(&program, "").unwrap();
        chown(&program, NOBODY, None).unwrap();
        let nobodys = Owner::of(&File::open(&program).unwrap()).unwrap();
        assert!(opened("/inner/a.debug", nobodys));
        chown(&file, Some(0), None).unwrap();
        chown(&inner, NOBODY, None).unwrap();
        assert!(!opened("/inner/a.debug", roots));
        assert!(opened("/inner/a.debug", nobodys));
        chown(&inner, Some(0), None).unwrap();
        std::os::unix::fs::lchown(folder.path().join("link"), NOBODY, None).unwrap();
        assert!(!opened("/link", roots));
        assert!(opened("/link", nobodys));
        chown(folder.path(), NOBODY, None).unwrap();
        assert!(!opened("/inner/a.debug", roots));
    }

    fn rustix_is_root() -> bool {
        rustix::process::geteuid().is_root()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        /// Whatever a target names: both ways of looking it up come to the same file, or to none.
        #[test]
        fn both_ways_agree(parts in proptest::collection::vec("a|b|c|\\.\\.|\\.||f|x", 0..8), absolute: bool) {
            let folder = tempfile::tempdir().unwrap();
            let inside = folder.path().join("root");
            fs::create_dir_all(inside.join("a/b")).unwrap();
            fs::write(inside.join("a/b/f"), "1").unwrap();
            fs::write(inside.join("a/f"), "2").unwrap();
            fs::write(folder.path().join("f"), "outside").unwrap();
            symlink("a/b", inside.join("c")).unwrap();
            symlink("/a", inside.join("a/b/x")).unwrap();
            symlink("../../../..", inside.join("b")).unwrap();
            let root = Root::at(&inside).unwrap();
            let mut path = parts.join("/");
            if absolute {
                path.insert(0, '/');
            }
            let path = Path::new(&path);
            let plain = text(root.open(path)).ok();
            let owned = text(root.open_owned(path, Owner::current())).ok();
            prop_assert_ne!(plain.as_deref(), Some("outside"));
            prop_assert_eq!(plain, owned);
        }
    }
}
