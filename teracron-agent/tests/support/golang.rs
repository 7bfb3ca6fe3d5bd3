//! Go programs of the tests.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
};

#[path = "go_toolchain.rs"]
mod toolchain;

pub(crate) use toolchain::GO_VERSIONS;

/// Only one build at a time: they share caches.
static BUILDING: Mutex<()> = Mutex::new(());

/// Builds a program from its released source, as Debian has it.
#[allow(dead_code)] // not every test needs one
pub fn build_released(package: &str, version: &str) -> PathBuf {
    let _one = BUILDING.lock().unwrap_or_else(|error| error.into_inner());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let name = package.rsplit('/').next().unwrap();
    let out = folder.join(format!("{name}-{version}-{}", std::process::id()));
    if !out.exists() {
        toolchain::build_released(package, folder, version, &out);
    }
    out
}

/// Builds `tests/targets/SOURCE`, a Go program with C in it.
#[allow(dead_code)] // not every test needs one
pub fn build_cgo(source: &str, version: &str, flags: &[&str]) -> PathBuf {
    let _one = BUILDING.lock().unwrap_or_else(|error| error.into_inner());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let key: String = flags
        .iter()
        .flat_map(|flag| flag.chars())
        .filter(char::is_ascii_alphanumeric)
        .collect();
    let name = format!("{source}-{version}-{key}-{}.so", std::process::id());
    let out = folder.join(name);
    if out.exists() {
        return out;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/targets")
        .join(source);
    toolchain::build_cgo(&source, folder, version, flags, &out);
    out
}

/// The `go` command of a version: a Go program, as it is released.
#[allow(dead_code)] // not every test needs one
pub fn go_itself(version: &str) -> PathBuf {
    let _one = BUILDING.lock().unwrap_or_else(|error| error.into_inner());
    toolchain::own_programs(Path::new(env!("CARGO_TARGET_TMPDIR")), version).join("go")
}

/// Builds `tests/targets/go` with a version of Go.
#[allow(dead_code)] // not every test needs one
pub fn build(version: &str, flags: &[&str]) -> PathBuf {
    let _one = BUILDING.lock().unwrap_or_else(|error| error.into_inner());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let key: String = flags
        .iter()
        .flat_map(|flag| flag.chars())
        .filter(char::is_ascii_alphanumeric)
        .collect();
    let out = folder.join(format!("go-{version}-{key}-{}", std::process::id()));
    // On another kernel there is no toolchain: the targets come from a run that had one.
    let prebuilt = std::env::var_os("TERACRON_PREBUILT")
        .map(|folder| PathBuf::from(folder).join(format!("go{version}{key}")));
    if let Some(path) = &prebuilt
        && path.exists()
    {
        return path.clone();
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/targets/go");
    if out.exists() {
        // Another test has built it and may be running it.
        return out;
    }
    toolchain::build_go(&source, folder, version, flags, &out);
    if let Some(path) = prebuilt {
        std::fs::copy(&out, path).unwrap();
    }
    out
}
