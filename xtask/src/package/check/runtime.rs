//! The image, built from the Dockerfile and run by a container runtime as deploy/compose.yaml asks for it.
//!
//! podman and runc: they need no service, and run under cgroups of both versions.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use super::{Shop, Told, arguments, needed};
use crate::shell::{Result, root, run, target_dir};

const NAME: &str = "teracron-agent:check";

/// Builds it and traces a process of the host.
pub(super) fn check(work: &Path) -> Result<()> {
    let podman = || {
        let mut command = Command::new("podman");
        command
            .args(["--runtime", "runc", "--storage-driver", "vfs"])
            .args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"])
            .arg("--root")
            .arg(work.join("podman"))
            .arg("--runroot")
            .arg(work.join("podman-run"));
        command
    };
    run(podman()
        .args(["build", "--quiet", "--tag", NAME, "--file"])
        .arg(root().join("packaging/Dockerfile"))
        .arg(target_dir().join("package"))
        .stdout(Stdio::null()))?;
    let program = work.join("shop-host");
    Shop::compile("gcc", &program)?;
    let mut shop = Shop::start(&mut Command::new(&program))?;
    Told::by(
        podman()
            .args(["run", "--rm", "--network", "none"])
            // podman's own would be more than a machine may allow.
            .args([
                "--ulimit",
                "nofile=4096:4096",
                "--ulimit",
                "nproc=1024:1024",
            ])
            .args(["--pid", "host", "--read-only", "--memory", "192m"])
            .args(["--cap-drop", "ALL", "--cap-add", &needed()?.join(",")])
            .args(["--security-opt", "no-new-privileges"])
            .args(["--security-opt", "seccomp=unconfined"])
            .args(["--security-opt", "apparmor=unconfined"])
            .args(["--tmpfs", "/run/teracron", NAME])
            .args(arguments(&shop.pid)),
    )?
    .traced("the image in a container of runc's")?;
    shop.lives()?;
    run(podman()
        .args(["rmi", "--force", NAME])
        .stdout(Stdio::null()))
}
