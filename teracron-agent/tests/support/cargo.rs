//! Rust targets that need the packages of others: built by cargo.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Builds the async target with cargo's arguments; answers the program.
pub fn build(arguments: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/targets/async");
    let name: String = std::iter::once("async")
        .chain(arguments.iter().copied())
        .flat_map(str::chars)
        .filter(|character| character.is_alphanumeric())
        .collect();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let output = Command::new("cargo")
        .current_dir(source)
        .args(["build", "--locked", "--target-dir"])
        .arg(&folder)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("cargo is needed: {error}"));
    assert!(
        output.status.success(),
        "cargo build {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let profile = if arguments.contains(&"--release") {
        "release"
    } else {
        "debug"
    };
    folder.join(profile).join("async-target")
}
