//! Building the kernel side, byte for byte the same everywhere.
//!
//! The compiler's output depends on the folder that it works in (crate hashes, debug paths), so the
//! sources are copied to one fixed place and every path is remapped; tools are pinned. What remains
//! of debug information is BTF, which the kernel and aya need.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::shell::{Result, cargo, need, output, root, run, which};

/// Where the build happens, on every machine.
const WORKSHOP: &str = "/tmp/teracron-ebpf-build";
const TARGET: &str = "bpfel-unknown-none";
/// The checked-in object was built by these.
const RUSTC: &str = "1.96.0";
const BPF_LINKER: &str = "0.13.0";

struct Toolchain {
    /// Environment for cargo.
    env: Vec<(&'static str, String)>,
    /// Arguments for cargo.
    args: Vec<String>,
    /// What was found, for people.
    name: String,
    /// The object will be the same byte for byte.
    pinned: bool,
    linker: PathBuf,
    objcopy: PathBuf,
}

pub(crate) fn build(check: bool, install: bool) -> Result<()> {
    if install {
        install_toolchain()?;
    }
    let toolchain = find_toolchain()?;
    println!("building the kernel side with {}", toolchain.name);
    let object = compile(&toolchain)?;
    let place = root().join("teracron-ebpf/teracron-ebpf.o");
    if !check {
        fs::write(&place, &object).map_err(|error| format!("{}: {error}", place.display()))?;
        println!("wrote {} ({} bytes)", place.display(), object.len());
        return Ok(());
    }
    let present = fs::read(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    if present == object {
        println!(
            "teracron-ebpf.o is what its source compiles to ({} bytes)",
            object.len()
        );
        Ok(())
    } else if toolchain.pinned {
        let kept = Path::new(WORKSHOP).join("built.o");
        let _ = fs::write(&kept, &object);
        Err(format!(
            "teracron-ebpf.o is not what its source compiles to (built: {}); run `cargo xtask build-ebpf` and commit it",
            kept.display()
        ))
    } else {
        Err(format!(
            "teracron-ebpf.o differs, but it can only be compared with rustc {RUSTC} and bpf-linker {BPF_LINKER}"
        ))
    }
}

/// Debian's packages and one crate; other systems have their own ways.
fn install_toolchain() -> Result<()> {
    need(&[
        ("/usr/bin/rustc", "rustc-web"),
        (
            "/usr/lib/rustlib/bpfel-unknown-none",
            "libstd-rust-web-dev-bpf",
        ),
        ("/usr/lib/llvm-22/bin/llvm-config", "llvm-22-dev"),
        ("/usr/lib/llvm-22/lib/libPolly.a", "libpolly-22-dev"),
        ("/usr/lib/llvm-22/bin/llvm-objcopy", "llvm-22"),
    ])?;
    if linker().is_none_or(|path| version_of(&path).is_none_or(|found| found != BPF_LINKER)) {
        println!("installing bpf-linker {BPF_LINKER}");
        run(cargo()
            .env("LLVM_PREFIX", "/usr/lib/llvm-22")
            .args([
                "install",
                "bpf-linker",
                "--locked",
                "--force",
                "--version",
                BPF_LINKER,
            ])
            .args(["--no-default-features", "--features", "llvm-22"]))?;
    }
    Ok(())
}

fn linker() -> Option<PathBuf> {
    which("bpf-linker").or_else(|| {
        let cargo_home = env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))?;
        let path = cargo_home.join("bin/bpf-linker");
        path.is_file().then_some(path)
    })
}

fn version_of(program: &Path) -> Option<String> {
    let text = output(Command::new(program).arg("--version")).ok()?;
    text.split_whitespace().nth(1).map(str::to_owned)
}

fn find_toolchain() -> Result<Toolchain> {
    let linker = linker().ok_or_else(|| {
        format!(
            "bpf-linker is missing. On Debian: `cargo xtask build-ebpf --install`. Elsewhere: `cargo install bpf-linker --version {BPF_LINKER}` (needs LLVM), or the project's released binary"
        )
    })?;
    let objcopy = ["/usr/lib/llvm-22/bin/llvm-objcopy", "/usr/bin/llvm-objcopy"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
        .or_else(|| which("llvm-objcopy"))
        .ok_or("llvm-objcopy is missing: install LLVM's tools (Debian: llvm-22)")?;
    let linker_version = version_of(&linker).unwrap_or_default();

    // Debian's compiler with its prebuilt core for BPF…
    let debian = Path::new("/usr/bin/rustc");
    if debian.is_file() && Path::new("/usr/lib/rustlib").join(TARGET).is_dir() {
        let version = version_of(debian).unwrap_or_default();
        return Ok(Toolchain {
            env: vec![
                ("RUSTC", debian.display().to_string()),
                // aya-ebpf and the assembly in this crate need unstable features.
                ("RUSTC_BOOTSTRAP", "1".to_owned()),
            ],
            args: Vec::new(),
            name: format!("Debian's rustc {version} and bpf-linker {linker_version}"),
            pinned: version == RUSTC && linker_version == BPF_LINKER,
            linker,
            objcopy,
        });
    }
    // …or a nightly that builds core itself.
    let sysroot = output(Command::new("rustc").args(["+nightly", "--print", "sysroot"]))
        .map_err(|_| missing_compiler("there is no nightly toolchain"))?;
    let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core");
    if !source.is_dir() {
        return Err(missing_compiler("the nightly toolchain has no rust-src"));
    }
    Ok(Toolchain {
        env: vec![("RUSTUP_TOOLCHAIN", "nightly".to_owned())],
        args: vec!["-Zbuild-std=core".to_owned()],
        name: format!("the nightly toolchain and bpf-linker {linker_version}"),
        pinned: false,
        linker,
        objcopy,
    })
}

fn missing_compiler(what: &str) -> String {
    format!(
        "no compiler for {TARGET}: {what}. On Debian: `cargo xtask build-ebpf --install` (packages rustc-web and libstd-rust-web-dev-bpf). Elsewhere: `rustup toolchain install nightly --component rust-src`"
    )
}

fn compile(toolchain: &Toolchain) -> Result<Vec<u8>> {
    let workshop = Path::new(WORKSHOP);
    let _ = fs::remove_dir_all(workshop.join("teracron-ebpf"));
    let _ = fs::remove_dir_all(workshop.join("teracron-common"));
    for part in ["teracron-ebpf", "teracron-common"] {
        copy(&root().join(part), &workshop.join(part))?;
    }
    // teracron-common inherits from the workspace's manifest.
    let manifest = fs::read_to_string(root().join("Cargo.toml")).map_err(|e| e.to_string())?;
    let manifest: String = manifest
        .lines()
        .map(|line| match line.strip_prefix("members =") {
            Some(_) => "members = [\"teracron-common\"]\n".to_owned(),
            None => format!("{line}\n"),
        })
        .collect();
    fs::write(workshop.join("Cargo.toml"), manifest).map_err(|e| e.to_string())?;
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
        .ok_or("neither CARGO_HOME nor HOME is set")?;
    let mut flags = vec![
        "-Cdebuginfo=2".to_owned(),
        format!("-Clinker={}", toolchain.linker.display()),
        "-Clink-arg=--btf".to_owned(),
        format!("--remap-path-prefix={WORKSHOP}=/teracron"),
    ];
    // Where the registry's sources lie differs from machine to machine.
    let sources = cargo_home.join("registry/src");
    if let Ok(entries) = fs::read_dir(&sources) {
        for entry in entries.flatten() {
            flags.push(format!(
                "--remap-path-prefix={}=/crates",
                entry.path().display()
            ));
        }
    }
    let mut command = cargo();
    command
        .current_dir(workshop.join("teracron-ebpf"))
        .args([
            "build",
            "--release",
            "--locked",
            "--quiet",
            "--target",
            TARGET,
        ])
        .args(&toolchain.args)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .env("CARGO_INCREMENTAL", "0")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    for (name, value) in &toolchain.env {
        command.env(name, value);
    }
    run(&mut command)?;
    let built = workshop
        .join("teracron-ebpf/target")
        .join(TARGET)
        .join("release/teracron-ebpf");
    let stripped = workshop.join("stripped.o");
    run(Command::new(&toolchain.objcopy)
        .arg("--strip-debug")
        .args([&built, &stripped]))?;
    fs::read(&stripped).map_err(|error| format!("{}: {error}", stripped.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let failed = |error: std::io::Error| format!("{} to {}: {error}", from.display(), to.display());
    fs::create_dir_all(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)?.flatten() {
        let name = entry.file_name();
        if name == "target" {
            continue;
        }
        if entry.file_type().map_err(failed)?.is_dir() {
            copy(&entry.path(), &to.join(&name))?;
        } else {
            fs::copy(entry.path(), to.join(&name)).map_err(failed)?;
        }
    }
    Ok(())
}
