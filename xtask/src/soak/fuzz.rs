//! Every fuzz target, many runs.

use std::{fs, process::Command};

use crate::shell::{Result, cargo, output, root, run, step};

/// Runs of each target.
const RUNS: u64 = 10_000_000;
/// What cargo-fuzz tells the compiler, but for the address sanitizer: our code has no `unsafe` there.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1 -Cdebug-assertions";

pub(super) fn fuzz() -> Result<()> {
    let folder = root().join("fuzz");
    let compiler = output(Command::new("rustc").args(["+nightly", "-vV"]))?;
    let host = compiler
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .ok_or("rustc does not say what it compiles for")?
        .to_owned();
    step("building the fuzz targets", || {
        // Another toolchain than the one that runs us.
        let mut build = Command::new("cargo");
        build.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
        run(build.current_dir(&folder).env("RUSTFLAGS", FLAGS).args([
            "+nightly",
            "build",
            "--locked",
            "--release",
            "--target",
            &host,
        ]))
    })?;
    let targets = cargo_targets(&folder)?;
    for target in targets {
        let corpus = folder.join("corpus").join(&target);
        fs::create_dir_all(&corpus).map_err(|error| format!("{}: {error}", corpus.display()))?;
        step(&format!("{RUNS} runs of {target}"), || {
            run(
                Command::new(folder.join(format!("target/{host}/release/{target}")))
                    .current_dir(&folder)
                    .arg(format!("-runs={RUNS}"))
                    .args(["-max_len=65536", "-timeout=30", "-rss_limit_mb=1024"])
                    .args(["-print_final_stats=1", "-verbosity=0"])
                    .arg(&corpus),
            )
        })?;
    }
    Ok(())
}

fn cargo_targets(folder: &std::path::Path) -> Result<Vec<String>> {
    let metadata =
        output(
            cargo()
                .current_dir(folder)
                .args(["metadata", "--no-deps", "--format-version=1"]),
        )?;
    // Of one package, whose targets are all of them fuzz targets.
    Ok(metadata
        .split("\"kind\":[\"bin\"]")
        .skip(1)
        .filter_map(|rest| rest.split("\"name\":\"").nth(1)?.split('"').next())
        .map(str::to_owned)
        .collect())
}
