//! The static binary, with its symbols apart.
//!
//! static-pie with glibc: musl's standard library can't be had from Debian. Names are then looked up by what glibc has
//! built in (teracron-agent/src/static_names.rs), certificates come from the usual files.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{SIZE_LIMIT, read};
use crate::shell::{Result, cargo, output, root, run, step, target_dir};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds it; answers the stripped binary and the file with its symbols.
pub(super) fn build(folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let places = Places::find()?;
    step("building the static binary", || {
        run(cargo()
            .args(["rustc", "--release", "--locked", "--target", TARGET])
            .args(["--package", "teracron-agent", "--bin", "teracron-agent"])
            // 0.6 MB less; glibc relocates itself so since 2.36.
            .args(["--", "-Clink-arg=-Wl,-z,pack-relative-relocs"])
            .env_remove("RUSTFLAGS")
            .env("CARGO_ENCODED_RUSTFLAGS", places.flags().join("\u{1f}"))
            .env("CFLAGS", places.c_flags()))
    })?;
    let built = target_dir().join(TARGET).join("release/teracron-agent");
    let (binary, symbols) = (
        folder.join("teracron-agent"),
        folder.join("teracron-agent.debug"),
    );
    run(Command::new("objcopy")
        .args(["--only-keep-debug", "--compress-debug-sections"])
        .args([&built, &symbols]))?;
    run(Command::new("objcopy")
        .arg("--strip-all")
        .arg(format!("--add-gnu-debuglink={}", symbols.display()))
        .args([&built, &binary]))?;
    verify(&binary, &symbols, &places)?;
    Ok((binary, symbols))
}

/// What must hold of every binary that leaves this machine.
fn verify(binary: &Path, symbols: &Path, places: &Places) -> Result<()> {
    let size = fs::metadata(binary).map_err(|e| e.to_string())?.len();
    if size > SIZE_LIMIT {
        return Err(format!(
            "{} has {size} bytes; at most {SIZE_LIMIT} are wanted",
            binary.display()
        ));
    }
    let headers = output(
        Command::new("readelf")
            .arg("--headers")
            .arg(binary)
            .arg("--wide"),
    )?;
    if headers.contains("INTERP") || !headers.contains("DYN (") {
        return Err(format!("{} is not static-pie: {headers}", binary.display()));
    }
    let id = build_id(binary)?;
    if id != build_id(symbols)? {
        return Err("binary and symbols have different build IDs".to_owned());
    }
    for file in [binary, symbols] {
        // What is compressed can't be searched.
        let plain = file.with_extension("plain");
        run(Command::new("objcopy")
            .arg("--decompress-debug-sections")
            .args([file, &plain]))?;
        let content = read(&plain)?;
        let _ = fs::remove_file(&plain);
        if let Some(place) = places.found_in(&content) {
            return Err(format!(
                "{} names a folder of this machine: {place}",
                file.display()
            ));
        }
    }
    println!("build ID {id}");
    Ok(())
}

/// A file's build ID, in hexadecimal.
pub(super) fn build_id(file: &Path) -> Result<String> {
    let notes = output(Command::new("readelf").arg("--notes").arg(file))?;
    notes
        .lines()
        .find_map(|line| line.trim().strip_prefix("Build ID: "))
        .map(str::to_owned)
        .ok_or_else(|| format!("{} has no build ID", file.display()))
}

/// Folders of this machine, none of which a package may name.
struct Places {
    /// Folder, and what stands for it in debug information and messages.
    remapped: Vec<(String, &'static str)>,
}

impl Places {
    fn find() -> Result<Self> {
        let home = env::var("HOME").map_err(|_| "HOME is not set")?;
        let cargo_home = env::var("CARGO_HOME").unwrap_or_else(|_| format!("{home}/.cargo"));
        let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
        // The last that fits counts.
        let mut remapped = vec![
            (cargo_home.clone(), "/cargo"),
            (sysroot.trim().to_owned(), "/rust"),
            (root().display().to_string(), "/teracron"),
            (target_dir().display().to_string(), "/teracron/target"),
        ];
        let sources = Path::new(&cargo_home).join("registry/src");
        for entry in fs::read_dir(&sources).into_iter().flatten().flatten() {
            remapped.push((entry.path().display().to_string(), "/crates"));
        }
        Ok(Self { remapped })
    }

    fn flags(&self) -> Vec<String> {
        let mut flags = vec![
            "-Ctarget-feature=+crt-static".to_owned(),
            "-Clink-arg=-Wl,--build-id=sha1".to_owned(),
            // Else getrandom looks the system call up by dlsym, finds nothing in a static program, and wants /dev/urandom.
            "--cfg=getrandom_backend=\"linux_getrandom\"".to_owned(),
        ];
        for (from, to) in &self.remapped {
            flags.push(format!("--remap-path-prefix={from}={to}"));
        }
        flags
    }

    fn c_flags(&self) -> String {
        self.remapped
            .iter()
            .map(|(from, to)| format!("-ffile-prefix-map={from}={to}"))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// One that is named in a file.
    fn found_in(&self, content: &[u8]) -> Option<&str> {
        self.remapped
            .iter()
            .map(|(from, _)| from.as_str())
            .find(|from| {
                content
                    .windows(from.len())
                    .any(|window| window == from.as_bytes())
            })
    }
}
