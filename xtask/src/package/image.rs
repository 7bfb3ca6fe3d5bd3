//! What is in the image: the agent, certificates, two users. packaging/Dockerfile copies it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::{place, read};
use crate::shell::Result;

/// `root` traces, `teracron` owns nothing but the spool. Its number is one that neither systemd nor Debian gives
/// (systemd's UIDS-GIDS.md): with the host's processes in sight it must be nobody's.
const PASSWD: &str =
    "root:x:0:0:root:/:/\nteracron:x:60999:60999:Teracron agent:/var/lib/teracron:/\n";
const GROUP: &str = "root:x:0:\nteracron:x:60999:\n";

/// Lays the tree out; answers its folder.
pub(super) fn build(folder: &Path, binary: &Path) -> Result<PathBuf> {
    let tree = folder.join("image");
    let _ = fs::remove_dir_all(&tree);
    place(&tree, "usr/bin/teracron-agent", 0o755, &read(binary)?)?;
    let certificates = Path::new("/etc/ssl/certs/ca-certificates.crt");
    place(
        &tree,
        "etc/ssl/certs/ca-certificates.crt",
        0o644,
        &read(certificates)?,
    )?;
    place(&tree, "etc/passwd", 0o644, PASSWD.as_bytes())?;
    place(&tree, "etc/group", 0o644, GROUP.as_bytes())?;
    for (name, mode) in [
        ("etc/teracron", 0o755),
        ("run/teracron", 0o755),
        ("tmp", 0o1777),
        ("var/lib/teracron", 0o700),
    ] {
        let path = tree.join(name);
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        fs::create_dir_all(&path).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    Ok(tree)
}
