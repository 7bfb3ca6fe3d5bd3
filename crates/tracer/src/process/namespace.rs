//! Whether a process sees other files than we do.

use std::{fs, os::unix::fs::MetadataExt as _};

use super::face;
use image::Image;

/// OVERLAYFS_SUPER_MAGIC and BTRFS_SUPER_MAGIC of include/uapi/linux/magic.h.
const OVERLAY: u32 = 0x794c_7630;
const BTRFS: u32 = 0x9123_683e;

/// The mount namespace of a process, as `stat` names it; `None` for one that can't be asked.
pub fn of(pid: u32) -> Option<(u64, u64)> {
    identity(&face(pid).to_string())
}

fn identity(who: &str) -> Option<(u64, u64)> {
    let metadata = fs::metadata(format!("/proc/{who}/ns/mnt")).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Whether a process is in our mount namespace. One that can't be asked is not.
pub(super) fn is_ours(pid: u32) -> bool {
    let own = identity("self");
    own.is_some() && of(pid) == own
}

/// Whether a file is only to be had in the mount namespace of a process: the process is in another one than we
/// are, and the file lies on what is mounted nowhere here, or on the overlay that is the process's root (a
/// container's is mounted here too, but nothing here runs from it).
///
/// Overlays may share a file's contents with others all the same: this alone is no reason to believe a
/// namespace's files, see [`DebugTrust`](image::DebugTrust).
pub(super) fn has_alone(pid: u32, image: &Image) -> bool {
    if is_ours(pid) {
        return false;
    }
    let Ok(kind) = rustix::fs::fstatfs(&image.file) else {
        return false;
    };
    let device = image.key.dev;
    match kind.f_type as u32 {
        // A device for each subvolume, which are not all told.
        BTRFS => false,
        OVERLAY => {
            let root = |path: String| fs::metadata(path).ok().map(|metadata| metadata.dev());
            let theirs = root(format!("/proc/{}/root", face(pid)));
            let is_their_root = theirs == Some(device) && theirs != root("/".to_owned());
            is_their_root || !is_mounted_here(device)
        }
        _ => !is_mounted_here(device),
    }
}

/// Whether a device is mounted in our namespace; proc_pid_mountinfo(5): the third field is `major:minor`.
fn is_mounted_here(device: u64) -> bool {
    let wanted = format!(
        "{}:{}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    );
    fs::read_to_string("/proc/self/mountinfo").map_or(true, |mounts| {
        mounts
            .lines()
            .any(|mount| mount.split(' ').nth(2) == Some(&wanted))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_in_our_own_namespace() {
        assert!(is_ours(std::process::id()));
        assert!(!is_ours(u32::MAX));
        let root = fs::metadata("/").unwrap();
        assert!(is_mounted_here(root.dev()));
        assert!(!is_mounted_here(rustix::fs::makedev(4000, 7)));
    }
}
