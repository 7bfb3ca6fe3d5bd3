//! `cargo xtask`: builds, tests, measures and shows the agent. `cargo xtask --help` lists what.

mod bench;
mod demo;
mod ebpf;
#[path = "../../teracron-agent/tests/support/go_toolchain.rs"]
#[allow(dead_code)] // most of it is for tests
mod go_toolchain;
mod kernels;
mod manual;
mod package;
mod shell;
mod soak;
mod survive;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Builds, tests, measures and shows the Teracron agent"
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the agent, start a small payment service and trace it for ten seconds.
    Demo,
    /// Run all tests, installing what they need.
    Test {
        /// Passed on to `cargo test`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Build the kernel side and put it beside its source.
    BuildEbpf {
        /// Don't replace the object: fail if the built one differs.
        #[arg(long)]
        check: bool,
        /// Install the toolchain from Debian's packages and crates.io first.
        #[arg(long)]
        install: bool,
    },
    /// Measure what tracing costs, beside other tools.
    Bench {
        /// Seconds for each measurement.
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
        /// Where the machine-readable results go.
        #[arg(long, default_value = "target/bench.json")]
        out: std::path::PathBuf,
        /// Only these rows.
        #[arg(long)]
        only: Option<bench::Part>,
    },
    /// Run the core of the end-to-end tests on other kernels, under QEMU.
    TestKernels {
        /// Only kernels whose version begins so.
        #[arg(long)]
        only: Option<String>,
    },
    /// Run the survival matrix: targets of many kinds under many conditions; writes docs/survival.md.
    Survive(survive::Options),
    /// Run the proofs that take long.
    Soak {
        /// One of them: kills, giant, fuzz.
        #[arg(long)]
        only: Option<String>,
    },
    /// Write the manual page and shell completions to target/manual.
    Manual,
    /// Build a static binary, a Debian package and an image into target/package.
    Package {
        /// Install, start and check them, too.
        #[arg(long)]
        check: bool,
        /// Build nothing: check what was packaged last.
        #[arg(long, requires = "check")]
        as_built: bool,
    },
    /// Start a program as a container runtime would, for `package --check`.
    #[command(hide = true)]
    Enter(package::enter::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Demo => demo::demo(),
        Task::Test { args } => test::test(&args),
        Task::BuildEbpf { check, install } => ebpf::build(check, install),
        Task::Bench { seconds, out, only } => bench::bench(seconds, &out, only),
        Task::TestKernels { only } => kernels::test(only.as_deref()),
        Task::Survive(options) => survive::survive(&options),
        Task::Soak { only } => soak::soak(only.as_deref()),
        Task::Manual => manual::write(),
        Task::Package { check, as_built } => package::package(check, as_built),
        Task::Enter(options) => package::enter::enter(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    /// `cargo xtask build-ebpf` would build the agent first, and `cargo xtask demo` build it twice.
    #[test]
    fn it_depends_on_none_of_our_crates() {
        let manifest = include_str!("../Cargo.toml");
        assert!(!manifest.contains("path =") && !manifest.contains("teracron-"));
    }
}
