//! All tests.

use std::process::{Command, Stdio};

use crate::shell::{Result, again_as_root, cargo, need, run, step};

/// Programs that nobody here wrote, and what drives them.
pub(crate) const FOREIGN: &[(&str, &str)] = &[
    ("/usr/lib/postgresql", "postgresql"),
    ("redis-server", "redis-server"),
    ("redis-benchmark", "redis-tools"),
    ("nginx", "nginx-light"),
    ("wrk", "wrk"),
    ("/usr/bin/python3", "python3"),
    (
        "/usr/lib/python3/dist-packages/greenlet",
        "python3-greenlet",
    ),
    (
        "/usr/share/gocode/src/github.com/nats-io/nats-server",
        "golang-github-nats-io-nats-server-dev",
    ),
];

pub(crate) fn test(args: &[String]) -> Result<()> {
    if again_as_root()? {
        return Ok(());
    }
    // Compilers for the targets, and programs whose every function the site planner is tried on.
    need(&[
        ("gcc", "gcc"),
        ("g++", "g++"),
        ("clang++", "clang"),
        ("llvm-dwp", "llvm"),
        ("dwz", "dwz"),
        ("/usr/include/c++/v1", "libc++-dev"),
        ("/usr/lib/x86_64-linux-gnu/libc++abi.so", "libc++abi-dev"),
        ("python3", "python3"),
        ("git", "git"),
        ("/usr/sbin/bpftool", "bpftool"),
        ("pgrep", "procps"),
        // The oldest Go; newer ones come as a Python package.
        ("/usr/lib/go-1.19/bin/go", "golang-1.19-go"),
        ("/usr/share/go-1.19/src/runtime", "golang-1.19-src"),
        // Debug files.
        ("objcopy", "binutils"),
        ("xz", "xz-utils"),
        // The reference client, and core dumps.
        ("/etc/ssl/certs/ca-certificates.crt", "ca-certificates"),
        ("gcore", "gdb"),
    ])?;
    need(FOREIGN)?;
    if run(Command::new("python3")
        .args(["-c", "import ensurepip, venv"])
        .stderr(Stdio::null()))
    .is_err()
    {
        need(&[("/nonexistent", "python3-venv")])?;
    }
    let cargo_test = |which: &[&str]| {
        let mut command = cargo();
        command
            .args(["test", "--workspace", "--locked"])
            .args(which);
        command
    };
    for which in [ANY, ROOT] {
        step("building the tests", || {
            run(cargo_test(which).arg("--no-run").args(before_names(args)))
        })?;
    }
    // Where some fail the others are worth knowing, too.
    let any = step("running the tests that need nothing", || {
        run(cargo_test(ANY).args(args))
    });
    let root = step("running the tests that need root", || {
        run(cargo_test(ROOT).args(args))
    });
    any.and(root)
}

/// What any user can run: cargo's own choice.
const ANY: &[&str] = &["--no-fail-fast"];
/// The program that cargo leaves out unless it is named.
const ROOT: &[&str] = &["--test", "root"];

/// Arguments that concern what is built, not which tests of it run.
fn before_names(args: &[String]) -> &[String] {
    args.split(|arg| arg == "--").next().unwrap_or_default()
}
