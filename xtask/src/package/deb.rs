//! The Debian package (deb-control(5), Debian Policy), made by dpkg-deb.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{VERSION, place, read, source_date};
use crate::shell::{Result, output, root, run};

/// After unpacking. Nothing is started: what is traced is for the administrator to say.
const POSTINST: &str = r#"#!/bin/sh
set -e
if [ "$1" = configure ]; then
    if command -v systemd-sysusers >/dev/null; then
        systemd-sysusers teracron-agent.conf
    elif ! getent passwd teracron >/dev/null; then
        useradd --system --user-group --home-dir /var/lib/teracron --no-create-home \
            --shell /usr/sbin/nologin teracron
    fi
    if [ -d /run/systemd/system ]; then
        systemctl --system daemon-reload || true
        # An update of one that runs.
        if [ -n "$2" ]; then
            systemctl try-restart teracron-agent.service || true
        fi
    fi
fi
"#;
const PRERM: &str = r#"#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl disable --now teracron-agent.service || true
fi
"#;
/// The user stays, as Debian's packages leave theirs: numbers are not given twice.
const POSTRM: &str = r#"#!/bin/sh
set -e
if [ "$1" = purge ]; then
    rm -rf /var/lib/teracron
    rmdir --ignore-fail-on-non-empty /etc/teracron 2>/dev/null || true
fi
if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload || true
fi
"#;

/// What it is called.
pub(super) fn file_name() -> String {
    format!("teracron-agent_{VERSION}_amd64.deb")
}

/// Makes it; answers the file.
pub(super) fn build(folder: &Path, binary: &Path, pages: &Path) -> Result<PathBuf> {
    let tree = folder.join("deb");
    let _ = fs::remove_dir_all(&tree);
    let packaging = root().join("packaging");
    place(&tree, "usr/bin/teracron-agent", 0o755, &read(binary)?)?;
    for (from, to, mode) in [
        (
            "teracron-agent.service",
            "usr/lib/systemd/system/teracron-agent.service",
            0o644,
        ),
        (
            "before-6.12.conf",
            "usr/lib/systemd/system/teracron-agent.service.d/before-6.12.conf",
            0o644,
        ),
        (
            "teracron-agent.sysusers",
            "usr/lib/sysusers.d/teracron-agent.conf",
            0o644,
        ),
        // It may come to hold a key.
        ("agent.toml", "etc/teracron/agent.toml", 0o600),
        ("copyright", "usr/share/doc/teracron-agent/copyright", 0o644),
    ] {
        place(&tree, to, mode, &read(&packaging.join(from))?)?;
    }
    documentation(&tree, pages)?;
    let size: u64 = files(&tree)?
        .iter()
        .map(|(_, size)| size.div_ceil(1024))
        .sum();
    let control = format!(
        "Package: teracron-agent\nVersion: {VERSION}\nArchitecture: amd64\nMaintainer: {}\n\
         Installed-Size: {size}\nRecommends: ca-certificates, systemd\nSection: admin\nPriority: optional\n\
         Homepage: {}\nDescription: traces named functions of running processes\n \
         Puts eBPF probes on functions of a process that is already running and turns their\n \
         calls into spans: no source, no rebuild, no restart. Spans and memory samples are\n \
         encrypted for the owner of an API key before they leave the machine.\n",
        maintainer()?,
        env!("CARGO_PKG_REPOSITORY"),
    );
    place(&tree, "DEBIAN/control", 0o644, control.as_bytes())?;
    place(
        &tree,
        "DEBIAN/conffiles",
        0o644,
        b"/etc/teracron/agent.toml\n",
    )?;
    for (name, script) in [("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)] {
        place(&tree, &format!("DEBIAN/{name}"), 0o755, script.as_bytes())?;
    }
    let sums = output(Command::new("sh").current_dir(&tree).args([
        "-c",
        "find etc usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum",
    ]))?;
    place(&tree, "DEBIAN/md5sums", 0o644, sums.as_bytes())?;
    let deb = folder.join(file_name());
    run(Command::new("dpkg-deb")
        .args(["--root-owner-group", "-Zxz", "--build"])
        .env("SOURCE_DATE_EPOCH", source_date()?)
        .args([&tree, &deb])
        .stdout(std::process::Stdio::null()))?;
    Ok(deb)
}

/// Manual pages, completions, the log of changes.
fn documentation(tree: &Path, pages: &Path) -> Result<()> {
    for (from, to) in [
        (
            "teracron-agent.bash",
            "usr/share/bash-completion/completions/teracron-agent",
        ),
        (
            "_teracron-agent",
            "usr/share/zsh/vendor-completions/_teracron-agent",
        ),
        (
            "teracron-agent.fish",
            "usr/share/fish/vendor_completions.d/teracron-agent.fish",
        ),
    ] {
        place(tree, to, 0o644, &read(&pages.join(from))?)?;
    }
    for entry in fs::read_dir(pages)
        .map_err(|error| error.to_string())?
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".1") {
            let to = format!("usr/share/man/man1/{name}.gz");
            place(tree, &to, 0o644, &compressed(&entry.path())?)?;
        }
    }
    place(
        tree,
        "usr/share/doc/teracron-agent/changelog.gz",
        0o644,
        &compressed(&root().join("CHANGELOG.md"))?,
    )
}

/// Without name and time, so that it is the same every time.
fn compressed(path: &Path) -> Result<Vec<u8>> {
    let output = Command::new("gzip")
        .args(["-9", "--no-name", "--stdout"])
        .arg(path)
        .output()
        .map_err(|error| format!("gzip: {error}"))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(format!("gzip {}: {}", path.display(), output.status))
    }
}

/// Who made the last change.
fn maintainer() -> Result<String> {
    let line =
        output(
            Command::new("git")
                .current_dir(root())
                .args(["log", "-1", "--format=%an <%ae>"]),
        )?;
    Ok(line.trim().to_owned())
}

/// Files below a folder with their sizes.
fn files(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)
        .map_err(|error| format!("{}: {error}", folder.display()))?
        .flatten()
    {
        let metadata = entry.metadata().map_err(|error| error.to_string())?;
        if metadata.is_dir() {
            all.extend(files(&entry.path())?);
        } else {
            all.push((entry.path(), metadata.len()));
        }
    }
    Ok(all)
}
