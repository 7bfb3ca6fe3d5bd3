//! From a path to an open file, without opening anything else on the way.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, fstatfs, openat};

/// File systems whose files are the kernel's or a daemon's doing: reading or opening one can have effects.
/// Numbers from include/uapi/linux/magic.h, some from the file systems' own sources (named beside).
const NO_STORAGE: [u32; 37] = [
    0x0000_9fa0, // procfs
    0x6265_6572, // sysfs
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x0000_1cd1, // devpts
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup 2
    0xcafe_4a11, // bpf
    0x7363_6673, // securityfs
    0x6265_6570, // configfs (fs/configfs/mount.c)
    0x6165_676c, // pstore
    0xde5e_81e4, // efivarfs
    0x4249_4e4d, // binfmt_misc
    0x1980_0202, // mqueue (ipc/mqueue.c)
    0xf97c_ff8c, // selinux
    0x4341_5d53, // smack
    0x5a3c_69f0, // apparmor
    0x0000_9fa2, // usbfs
    0x0000_9fa1, // openprom
    0x6e73_6673, // nsfs
    0x5049_5045, // pipes
    0x534f_434b, // sockets
    0x0904_1934, // anonymous inodes
    0x6264_6576, // block devices
    0x6461_7861, // dax devices
    0x0765_5821, // resctrl
    0xabba_1974, // xenfs
    0x6573_5543, // fusectl (fs/fuse/control.c)
    0x0000_0187, // autofs
    0x6759_6969, // rpc_pipefs (net/sunrpc/rpc_pipe.c)
    0x6e66_7364, // nfsd (fs/nfsd/nfsctl.c)
    0x444d_4142, // dma-buf
    0x5345_434d, // secretmem
    0x5049_4446, // pidfs
    0x474d_454d, // guest memory
    0x0a64_7361, // functionfs (drivers/usb/gadget/function/f_fs.c)
    0x6f70_726f, // oprofile (drivers/oprofile)
];

/// FUSE: a user's program answers for it, and says who owns what.
const FUSE: u32 = 0x6573_5546;

/// Opens a regular file for reading. The path is the user's own, or a link of the kernel's that leads to what a
/// process has mapped; for names that a target chose see [`Root::open`](super::Root::open).
///
/// # Errors
/// Where there is none, it is no regular file or none that is stored anywhere.
pub fn open(path: &Path) -> io::Result<File> {
    let found = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    reopen(&found)
}

/// Opens for reading what was only looked up, if it is a regular file and stored somewhere.
pub(super) fn reopen(found: &OwnedFd) -> io::Result<File> {
    let stat = fstat(found)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("not a regular file"));
    }
    if !stores_files(found)? {
        return Err(io::Error::other(
            "a file of the kernel's own file systems, not a stored one",
        ));
    }
    // Not to wait for whoever holds a lease on it; and nothing becomes the controlling terminal.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let link = format!("/proc/self/fd/{}", found.as_raw_fd());
    let file = openat(CWD, link, flags, Mode::empty())?;
    if identity(&fstat(&file)?) != identity(&stat) {
        return Err(io::Error::other("another file was opened than was found"));
    }
    Ok(File::from(file))
}

/// Whether the file system of something stores files.
pub(super) fn stores_files(found: &OwnedFd) -> io::Result<bool> {
    Ok(!NO_STORAGE.contains(&kind(found)?))
}

/// Whether a user's program answers for the file system of something.
pub(super) fn is_fuse(found: &OwnedFd) -> io::Result<bool> {
    Ok(kind(found)? == FUSE)
}

fn kind(found: &OwnedFd) -> io::Result<u32> {
    // The field's width differs between machines; the numbers have 32 bits.
    Ok(fstatfs(found)?.f_type as u32)
}

fn identity(stat: &Stat) -> (u64, u64, u32) {
    // The kind of file: S_IFMT.
    (stat.st_dev, stat.st_ino, stat.st_mode & 0o170_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn fifo(path: &Path) {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(CWD, path, FileType::Fifo, mode, 0).unwrap();
    }

    #[test]
    fn regular_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "content").unwrap();
        std::os::unix::fs::symlink("file", folder.path().join("link")).unwrap();
        for name in ["file", "link"] {
            let mut text = String::new();
            let mut file = open(&folder.path().join(name)).unwrap();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "content");
        }
        // What a process runs, by the kernel's link.
        open(Path::new("/proc/self/exe")).unwrap();
        // Memory that was made to be run: tmpfs.
        let memory = rustix::fs::memfd_create("code", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        open(Path::new(&format!("/proc/self/fd/{}", memory.as_raw_fd()))).unwrap();
    }

    #[test]
    fn nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        fifo(&pipe);
        let refused = |path: &Path, words: &str| {
            let error = open(path).unwrap_err().to_string();
            assert!(error.contains(words), "{}: {error}", path.display());
        };
        refused(&pipe, "not a regular file");
        refused(folder.path(), "not a regular file");
        refused(Path::new("/dev/null"), "not a regular file");
        refused(Path::new("/dev/kmsg"), "not a regular file");
        refused(Path::new("/proc/self/environ"), "kernel's own");
        refused(Path::new("/proc/kmsg"), "kernel's own");
        refused(Path::new("/sys/kernel/notes"), "kernel's own");
        refused(Path::new("/proc/self/ns/mnt"), "kernel's own");
    }
}
