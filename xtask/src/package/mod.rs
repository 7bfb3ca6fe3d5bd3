//! `cargo xtask package`: a static binary, a Debian package and an image, in target/package.

mod binary;
mod cgroup;
mod check;
mod deb;
pub(crate) mod enter;
mod image;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    manual,
    shell::{Result, need, output, root, step, target_dir},
};

/// All packages are of this version: the workspace has one.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Bytes that the stripped binary may have.
const SIZE_LIMIT: u64 = 16_000_000;
/// What the agent needs on Linux 6.12 and newer, as capabilities(7) names it, without CAP_. Measured by `--check`:
/// unit and manifests ask for these and no others.
const CAPABILITIES: [&str; 9] = [
    "BPF",
    "PERFMON",
    "SYS_PTRACE",
    "DAC_READ_SEARCH",
    "CHECKPOINT_RESTORE",
    "SETUID",
    "SETGID",
    "KILL",
    "CHOWN",
];
/// Those of them that tracing alone does without: to end a process of another user that does not end by itself, and to
/// give it the spool's folder (`tests/root/walls.rs`, `tests/root/delivering.rs`).
const BESIDE_TRACING: [&str; 2] = ["KILL", "CHOWN"];
/// What perf events want besides; before 6.12 they set the breakpoints of one process.
const PERF_EVENTS: &str = "SYS_ADMIN";

/// What was built.
struct Built {
    /// The stripped binary.
    binary: PathBuf,
    /// Its symbols.
    symbols: PathBuf,
    /// The Debian package.
    deb: PathBuf,
    /// The image's file tree.
    image: PathBuf,
}

/// Builds everything, unless that is done; with `check` also installs and starts it.
pub(crate) fn package(check: bool, as_built: bool) -> Result<()> {
    if check && crate::shell::again_as_root()? {
        return Ok(());
    }
    let folder = target_dir().join("package");
    let built = if as_built {
        Built {
            binary: folder.join("teracron-agent"),
            symbols: folder.join("teracron-agent.debug"),
            deb: folder.join(deb::file_name()),
            image: folder.join("image"),
        }
    } else {
        build(&folder)?
    };
    for path in [&built.binary, &built.symbols, &built.deb] {
        let bytes = fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("{:>12} bytes  {}", bytes.len(), path.display());
    }
    println!("{:>12}        {}/", "", built.image.display());
    if check {
        check::check(&built, &folder.join("check"))?;
    }
    Ok(())
}

fn build(folder: &Path) -> Result<Built> {
    need(&[
        ("gcc", "gcc"),
        ("objcopy", "binutils"),
        ("dpkg-deb", "dpkg"),
        ("gzip", "gzip"),
        ("/etc/ssl/certs/ca-certificates.crt", "ca-certificates"),
    ])?;
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let (binary, symbols) = binary::build(folder)?;
    let pages = folder.join("manual");
    let _ = fs::remove_dir_all(&pages);
    manual::write_to(&binary, &pages)?;
    let deb = step("making the Debian package", || {
        deb::build(folder, &binary, &pages)
    })?;
    let image = step("laying out the image", || image::build(folder, &binary))?;
    Ok(Built {
        binary,
        symbols,
        deb,
        image,
    })
}

/// When the source was last changed: what every file of a package is dated, in Unix seconds.
fn source_date() -> Result<String> {
    let seconds =
        output(
            Command::new("git")
                .current_dir(root())
                .args(["log", "-1", "--format=%ct"]),
        )?;
    Ok(seconds.trim().to_owned())
}

/// Writes a file below a tree, with its folders and mode.
fn place(tree: &Path, name: &str, mode: u32, content: &[u8]) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = tree.join(name);
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    fs::write(&path, content).map_err(failed)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(failed)
}

/// Reads a file of the source tree, or of what was built.
fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}
