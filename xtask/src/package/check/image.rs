//! The image's file tree in namespaces of its own: own mounts, the host's processes, no C library, exactly the
//! capabilities that the manifests ask for.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{Shop, Told, api_key, arguments, in_cgroup, is_before_6_12, needed, source};
use crate::{
    package::{BESIDE_TRACING, Built, CAPABILITIES, PERF_EVENTS, cgroup::Cgroup},
    shell::{Result, run},
};

/// What the manifests allow.
const MEMORY_LIMIT: u64 = 192 << 20;
/// Where a kernel from before multi links looks like this one.
const OLD_KERNEL: &str = "6.1.0-teracron-check";

/// The tree, copied, and what it needs beside it.
struct Image {
    tree: PathBuf,
    state: PathBuf,
}

impl Image {
    fn copy(built: &Built, work: &Path) -> Result<Self> {
        let (tree, state) = (work.join("image"), work.join("state"));
        run(Command::new("cp").arg("-a").args([&built.image, &tree]))?;
        fs::create_dir_all(&state).map_err(|error| error.to_string())?;
        Ok(Self { tree, state })
    }

    /// The agent in it.
    fn agent(&self, capabilities: &[&str], arguments: &[&str]) -> Result<Command> {
        let xtask = env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh"])
            .arg(source("image.sh"))
            .args([&self.tree, &self.state, &xtask])
            .args(["--capabilities", &capabilities.join(","), "--"])
            .arg("/usr/bin/teracron-agent")
            .args(arguments);
        Ok(command)
    }
}

/// Traces a container and a host process, by multi links and by perf events; delivers by name.
pub(super) fn check(built: &Built, work: &Path) -> Result<()> {
    let image = Image::copy(built, work)?;
    let mut shop = Shop::in_container(work)?;
    let arguments = arguments(&shop.pid);
    let enough = needed()?;
    let cgroup = Cgroup::limited("teracron-image", MEMORY_LIMIT)?;
    let agent = image.agent(&enough, &arguments)?;
    Told::by(&mut in_cgroup(&cgroup.procs(), &agent))?
        .traced("the image, a container of musl on overlayfs")?;
    // A file of another mount namespace, as docs/install.md names it.
    let file = format!("/proc/{}/root/app/shop", shop.pid);
    let by_file = [&["--exe", &file], &arguments[2..]].concat();
    Told::by(&mut image.agent(&enough, &by_file)?)?.traced("the image, by a container's file")?;
    // Each of them is needed; else it would have no place in the manifests. Those that tracing alone does without have
    // tests of their own.
    for without in enough.iter().filter(|name| !BESIDE_TRACING.contains(name)) {
        let fewer: Vec<&str> = enough
            .iter()
            .copied()
            .filter(|name| name != without)
            .collect();
        if Told::by(&mut image.agent(&fewer, &arguments)?)?.success {
            return Err(format!("the agent traces without CAP_{without}"));
        }
    }
    if !is_before_6_12()? {
        let with_perf_events = [&CAPABILITIES[..], &[PERF_EVENTS]].concat();
        let agent = image.agent(&with_perf_events, &arguments)?;
        Told::by(&mut older(work, &agent)?)?.traced("the image by perf events, with SYS_ADMIN")?;
        let agent = image.agent(&CAPABILITIES, &arguments)?;
        if Told::by(&mut older(work, &agent)?)?.success {
            return Err("perf events work without CAP_SYS_ADMIN".to_owned());
        }
    }
    shop.lives()?;
    deliver(&image, work, &shop, &enough, &cgroup)?;
    let peak = cgroup.peak()?;
    println!(
        "  the image's memory: {:.1} MiB at most, of {} MiB allowed",
        peak as f64 / f64::from(1 << 20),
        MEMORY_LIMIT >> 20
    );
    if peak > MEMORY_LIMIT / 2 {
        return Err("the manifests' memory limit leaves no room".to_owned());
    }
    Ok(())
}

/// The same command where the kernel says that it is an older one.
fn older(work: &Path, command: &Command) -> Result<Command> {
    let release = work.join("osrelease");
    fs::write(&release, format!("{OLD_KERNEL}\n")).map_err(|error| error.to_string())?;
    let mut outer = Command::new("unshare");
    outer
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg("mount --bind \"$0\" /proc/sys/kernel/osrelease && exec \"$@\"")
        .arg(&release)
        .arg(command.get_program())
        .args(command.get_args());
    Ok(outer)
}

/// Names are looked up in the image's /etc/hosts and by DNS, certificates in its bundle.
fn deliver(
    image: &Image,
    work: &Path,
    shop: &Shop,
    capabilities: &[&str],
    cgroup: &Cgroup,
) -> Result<()> {
    let (certificate, key) = (work.join("service.pem"), work.join("service.key"));
    run(Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=collector.test", "-addext"])
        .arg("subjectAltName=DNS:collector.test,DNS:hosts.test")
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null()))?;
    let etc = image.tree.join("etc");
    let write = |name: &str, text: &str| {
        fs::write(etc.join(name), text).map_err(|error| format!("{name}: {error}"))
    };
    write("resolv.conf", "nameserver 127.0.0.1\n")?;
    write("hosts", "127.0.0.1 localhost hosts.test\n")?;
    // A machine's own choice of libraries, which a static program must not load.
    write(
        "nsswitch.conf",
        "hosts: resolve [!UNAVAIL=return] mymachines\n",
    )?;
    let api_key = api_key()?;
    let deliver = |domain: &str| -> Result<Told> {
        let mut arguments = arguments(&shop.pid);
        arguments.extend(["--api-key", &api_key, "--domain", domain]);
        arguments.extend(["--allow-custom-domain", "--shutdown-timeout", "5"]);
        let agent = in_cgroup(&cgroup.procs(), &image.agent(capabilities, &arguments)?);
        let mut command = Command::new("unshare");
        command
            .args(["--net", "python3"])
            .arg(source("service.py"))
            .args([&certificate, &key])
            .arg(agent.get_program())
            .args(agent.get_args());
        Told::by(&mut command)
    };
    let refused = deliver("collector.test")?;
    if refused.stdout.contains("POST") || !refused.stderr.contains("certificate") {
        return Err(format!(
            "a certificate that the image does not know was believed, or not named: {}",
            refused.stderr
        ));
    }
    let bundle = etc.join("ssl/certs/ca-certificates.crt");
    let mut known = fs::read_to_string(&bundle).map_err(|error| error.to_string())?;
    known.push_str(&fs::read_to_string(&certificate).map_err(|error| error.to_string())?);
    fs::write(&bundle, known).map_err(|error| error.to_string())?;
    for (domain, by_dns) in [("collector.test", true), ("hosts.test", false)] {
        let told = deliver(domain)?;
        let came = told.stdout.contains(&format!("POST {domain}"));
        let asked = told.stdout.contains(&format!("NAME {domain}"));
        if !came || asked != by_dns {
            return Err(format!("{domain}: {}\n{}", told.stderr, told.stdout));
        }
        println!(
            "  delivered to {domain}, found {}",
            if by_dns { "by DNS" } else { "in /etc/hosts" }
        );
    }
    Ok(())
}
