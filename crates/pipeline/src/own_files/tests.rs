use std::{
    fs::{self, Permissions},
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::geteuid,
};

use super::*;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

fn refused<T>(result: Result<T, Refused>, words: &str) {
    let Err(refused) = result else {
        panic!("not refused: {words}");
    };
    let said = refused.to_string();
    assert!(said.contains(words), "{said}");
}

#[test]
fn what_is_missing_is_made_and_what_was_there_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().join("there");
    fs::create_dir(&there).unwrap();
    set_mode(&there, 0o755);
    let made = Folder::make(&there.join("a/b")).unwrap();
    assert_eq!(mode(&there), 0o755);
    assert_eq!(mode(&there.join("a")), 0o700);
    assert_eq!(mode(made.path()), 0o700);
    assert_eq!(made.sub("c").unwrap().path(), there.join("a/b/c"));
    assert!(made.existing("d").unwrap().is_none());
    refused(Folder::open(&there.join("nothing/there")), "nothing");
    assert!(
        Folder::open(&there.join("nothing"))
            .unwrap_err()
            .is_missing()
    );
    // A folder that was moved is still the one that was opened.
    fs::rename(there.join("a"), folder.path().join("moved")).unwrap();
    made.create("file").unwrap().write_all(b"x").unwrap();
    assert!(folder.path().join("moved/b/file").is_file());
    assert_eq!(mode(&folder.path().join("moved/b/file")), 0o600);
    assert_eq!(made.names().unwrap().len(), 2);
}

#[test]
fn links_lead_nowhere_below_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let victim = folder.path().join("victim");
    fs::create_dir(&victim).unwrap();
    set_mode(&victim, 0o755);
    fs::write(victim.join("file"), "theirs").unwrap();
    let own = Folder::make(&folder.path().join("own")).unwrap();
    symlink("../victim", own.path().join("link")).unwrap();
    symlink("../victim/file", own.path().join("name")).unwrap();
    refused(own.sub("link"), "own/link is a symbolic link");
    refused(own.existing("link"), "own/link is a symbolic link");
    refused(own.create("name"), "own/name is a symbolic link");
    refused(own.read("name", 99), "own/name is a symbolic link");
    assert_eq!(mode(&victim), 0o755);
    assert_eq!(fs::read(victim.join("file")).unwrap(), b"theirs");
    // What the user names may lead through links that nobody else can exchange, as /var/run does.
    symlink("own", folder.path().join("safe")).unwrap();
    let through = Folder::make(&folder.path().join("safe/below")).unwrap();
    assert_eq!(through.path(), own.path().join("below"));
    let absolute = folder.path().join("absolute");
    symlink(own.path(), &absolute).unwrap();
    assert_eq!(Folder::open(&absolute).unwrap().path(), own.path());
    symlink("round", folder.path().join("round")).unwrap();
    refused(Folder::make(&folder.path().join("round")), "symbolic link");
    // In a folder where everybody may make links, none counts.
    let shared = folder.path().join("shared");
    fs::create_dir(&shared).unwrap();
    set_mode(&shared, 0o1777);
    symlink("../own", shared.join("link")).unwrap();
    refused(
        Folder::make(&shared.join("link")),
        "shared/link is a symbolic link",
    );
    refused(
        Folder::make(&shared.join("link/x")),
        "shared/link is a symbolic link",
    );
}

#[test]
fn folders_that_others_write_to_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let shared = folder.path().join("shared");
    fs::create_dir(&shared).unwrap();
    set_mode(&shared, 0o1777);
    refused(
        Folder::make(&shared),
        "shared can be written by others (mode 1777)",
    );
    // A folder of one's own in it is fine, as in /tmp.
    Folder::make(&shared.join("own")).unwrap();
    set_mode(&shared, 0o777);
    refused(Folder::make(&shared.join("own")), "shared can be written");
    refused(Folder::make(&shared.join("new")), "shared can be written");
    assert!(!shared.join("new").exists());
    assert_eq!(mode(&shared), 0o777);
    fs::write(shared.join("file"), "x").unwrap();
    refused(read(&shared.join("file"), 99), "shared can be written");
    // Nothing is there: whose folder it is does not matter.
    assert!(read(&shared.join("none"), 99).is_err_and(|refused| refused.is_missing()));
    set_mode(&shared, 0o755);
    set_mode(&shared.join("file"), 0o646);
    refused(
        read(&shared.join("file"), 99),
        "file can be written by others",
    );
    set_mode(&shared.join("file"), 0o644);
    assert!(read(&shared.join("file"), 99).unwrap().others_read);
    set_mode(&shared.join("file"), 0o600);
    assert!(!read(&shared.join("file"), 99).unwrap().others_read);
}

#[test]
fn what_is_somebody_elses_is_refused() {
    if !geteuid().is_root() {
        return; // nobody else can give things away
    }
    let folder = tempfile::tempdir().unwrap();
    let theirs = folder.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    fs::create_dir(theirs.join("own")).unwrap();
    fs::write(theirs.join("file"), "x").unwrap();
    let give = |path: &Path| chown(path, Some(65_534), Some(65_534)).unwrap();
    give(&theirs.join("file"));
    refused(
        read(&theirs.join("file"), 99),
        "theirs/file belongs to user 65534",
    );
    give(&theirs);
    refused(Folder::make(&theirs), "theirs belongs to user 65534");
    refused(
        Folder::make(&theirs.join("own")),
        "theirs belongs to user 65534",
    );
    refused(
        Folder::make(&theirs.join("new")),
        "theirs belongs to user 65534",
    );
    assert!(!theirs.join("new").exists());
    let link = folder.path().join("link");
    symlink("theirs", &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(65_534), None).unwrap();
    refused(Folder::make(&link), "link is a symbolic link");
    let own = Folder::make(&folder.path().join("own")).unwrap();
    fs::create_dir(own.path().join("sub")).unwrap();
    give(&own.path().join("sub"));
    refused(own.sub("sub"), "own/sub belongs to user 65534");
    fs::write(own.path().join("file"), "theirs").unwrap();
    give(&own.path().join("file"));
    refused(own.create("file"), "own/file belongs to user 65534");
    assert_eq!(fs::read(own.path().join("file")).unwrap(), b"theirs");
}

#[test]
fn nothing_but_files_is_read_and_nothing_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let own = Folder::make(&folder.path().join("own")).unwrap();
    let path = own.path().join("pipe");
    fifo(&path);
    let began = Instant::now();
    refused(read(&path, 99), "pipe is a FIFO, not a regular file");
    refused(own.read("pipe", 99), "pipe is a FIFO");
    refused(own.create("pipe"), "pipe is a FIFO");
    refused(own.keep("pipe"), "pipe is a FIFO");
    refused(read(Path::new("/dev/zero"), 99), "/dev/zero is a device");
    refused(read(own.path(), 99), "own is a folder, not a regular file");
    refused(Folder::make(&path), "pipe is a FIFO, not a folder");
    assert!(began.elapsed() < Duration::from_secs(5));
    fs::write(own.path().join("file"), "12345").unwrap();
    assert_eq!(own.read("file", 5).unwrap(), b"12345");
    refused(own.read("file", 4), "file is larger than 4 bytes");
    assert_eq!(read(&own.path().join("file"), 5).unwrap().bytes, b"12345");
    refused(
        Folder::make(&own.path().join("file/x")),
        "file is a file, not a folder",
    );
}
