//! The core of the end-to-end tests on Debian's cloud kernels, under QEMU's software emulation.
//!
//! The kernels come from Debian's packages by a private apt directory, unpacked, not installed. An
//! initramfs holds everything: the same test program, agent and targets that run here.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::shell::{
    Result, again_as_root, cargo, executable, need, output, root, run, step, target_dir,
};

/// Debian releases, and the first numbers of the kernels that they have.
const KERNELS: [(&str, &str); 2] = [("bookworm", "6.1."), ("trixie", "6.12.")];
/// A kernel that has not ended by then hangs.
const TIME_LIMIT: Duration = Duration::from_secs(1500);

pub(crate) fn test(only: Option<&str>) -> Result<()> {
    if again_as_root()? {
        return Ok(());
    }
    need(&[
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("gcc", "gcc"),
        ("g++", "g++"),
        ("dpkg-deb", "dpkg"),
    ])?;
    let work = target_dir().join("kernels");
    fs::create_dir_all(&work).map_err(|error| format!("{}: {error}", work.display()))?;
    let initramfs = step("building and running the tests that boot", || {
        initramfs(&work)
    })?;
    let mut images = Vec::new();
    for (release, version) in KERNELS {
        if only.is_none_or(|only| version.starts_with(only)) {
            images.push(kernel(&work, release, version)?);
        }
    }
    // Side by side: each emulator keeps one processor busy.
    std::thread::scope(|scope| {
        let boots: Vec<_> = images
            .iter()
            .map(|image| scope.spawn(|| boot(image, &initramfs)))
            .collect();
        let results: Vec<Result<()>> = boots
            .into_iter()
            .map(|boot| boot.join().map_err(|_| "a boot panicked".to_owned())?)
            .collect();
        results.into_iter().collect()
    })
}

/// Fetches and unpacks a release's cloud kernel; answers the image.
fn kernel(work: &Path, release: &str, version: &str) -> Result<PathBuf> {
    let unpacked = work.join(release);
    if let Some(image) = image_in(&unpacked) {
        return Ok(image);
    }
    let apt = work.join(format!("apt-{release}"));
    for folder in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(folder)).map_err(|error| error.to_string())?;
    }
    let sources = apt.join("sources.list");
    fs::write(
        &sources,
        format!(
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {} {release} main\n",
            mirror()?
        ),
    )
    .map_err(|error| error.to_string())?;
    let options = |command: &mut Command| {
        for (name, value) in [
            ("Dir::Etc::sourcelist", sources.display().to_string()),
            ("Dir::Etc::sourceparts", "-".to_owned()),
            ("Dir::State::lists", apt.join("lists").display().to_string()),
            ("Dir::Cache", apt.join("cache").display().to_string()),
            ("APT::Sandbox::User", "root".to_owned()),
        ] {
            command.arg("-o").arg(format!("{name}={value}"));
        }
    };
    let mut update = Command::new("apt-get");
    options(&mut update);
    run(update.args(["update", "-qq"]))?;
    let mut search = Command::new("apt-cache");
    options(&mut search);
    let depends = output(search.args(["depends", "linux-image-cloud-amd64"]))?;
    let package = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with(&format!("linux-image-{version}")))
        .ok_or_else(|| format!("{release} has no cloud kernel {version}: {depends}"))?
        .to_owned();
    println!("fetching {package} of {release}");
    let mut download = Command::new("apt-get");
    options(&mut download);
    run(download
        .current_dir(&apt)
        .args(["download", "-qq", &package]))?;
    let archive = fs::read_dir(&apt)
        .map_err(|error| error.to_string())?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|ending| ending == "deb"))
        .ok_or("apt-get downloaded nothing")?;
    run(Command::new("dpkg-deb")
        .arg("-x")
        .arg(&archive)
        .arg(&unpacked))?;
    image_in(&unpacked).ok_or_else(|| format!("{} has no kernel image", archive.display()))
}

/// Where this machine's own configuration says that Debian's packages are.
fn mirror() -> Result<String> {
    let list = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    let more = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|ending| ending == "list" || ending == "sources")
        })
        .map(|path| fs::read_to_string(path).unwrap_or_default());
    [list]
        .into_iter()
        .chain(more)
        .find_map(|text| mirror_in(&text).map(str::to_owned))
        .ok_or_else(|| "apt's configuration names no mirror of Debian".to_owned())
}

/// The mirror in a file of either of apt's formats (sources.list(5)).
fn mirror_in(text: &str) -> Option<&str> {
    text.lines()
        .map(str::trim)
        .filter(|line| line.starts_with("deb ") || line.starts_with("URIs:"))
        .flat_map(str::split_whitespace)
        .find(|word| word.contains("://") && word.trim_end_matches('/').ends_with("/debian"))
}

fn image_in(unpacked: &Path) -> Option<PathBuf> {
    fs::read_dir(unpacked.join("boot"))
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
        })
}

/// Builds everything that runs inside.
fn initramfs(work: &Path) -> Result<PathBuf> {
    // The test program and the agent, and by running it here, the targets.
    let built = output(cargo().args([
        "test",
        "--locked",
        "--package",
        "teracron-agent",
        "--test",
        "root",
        "--no-run",
        "--message-format=json",
    ]))?;
    let tests = executable(&built, "\"name\":\"root\"").ok_or("cargo built no test program")?;
    let agent = target_dir().join("debug/teracron-agent");
    let prebuilt = work.join("prebuilt");
    let _ = fs::remove_dir_all(&prebuilt);
    fs::create_dir_all(&prebuilt).map_err(|error| error.to_string())?;
    println!("on this kernel:");
    run(Command::new(&tests)
        .arg("core::")
        .env("TERACRON_PREBUILT", &prebuilt))?;

    let mut archive = Archive::default();
    let init = work.join("init");
    run(Command::new("gcc")
        .args(["-static", "-O1", "-o"])
        .arg(&init)
        .arg(root().join("xtask/src/init.c")))?;
    archive.file("init", &init)?;
    for (name, program) in [
        ("tests".to_owned(), &tests),
        (agent.display().to_string(), &agent),
    ] {
        let stripped = work.join("stripped");
        run(Command::new("strip").arg("-o").arg(&stripped).arg(program))?;
        archive.file(name.trim_start_matches('/'), &stripped)?;
        for library in libraries(program)? {
            archive.file(library.trim_start_matches('/'), Path::new(&library))?;
        }
    }
    archive.file("bin/true", Path::new("/bin/true"))?;
    for library in libraries(Path::new("/bin/true"))? {
        archive.file(library.trim_start_matches('/'), Path::new(&library))?;
    }
    for entry in fs::read_dir(&prebuilt)
        .map_err(|error| error.to_string())?
        .flatten()
    {
        let name = format!("prebuilt/{}", entry.file_name().to_string_lossy());
        archive.file(&name, &entry.path())?;
    }
    let path = work.join("initramfs.cpio");
    fs::write(&path, archive.finish()).map_err(|error| error.to_string())?;
    Ok(path)
}

/// Libraries that the dynamic linker loads for a program.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let listed = output(Command::new("ldd").arg(program))?;
    Ok(listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(|word| word.trim_end_matches(':').to_owned())
        .collect())
}

fn boot(kernel: &Path, initramfs: &Path) -> Result<()> {
    let name = kernel
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    println!("booting {name} under emulation");
    let started = Instant::now();
    let log_path = initramfs.with_file_name(format!("{name}.log"));
    let log = fs::File::create(&log_path).map_err(|error| error.to_string())?;
    let mut machine = Command::new("qemu-system-x86_64")
        .args([
            "-accel",
            // With thread=multi programs die of uprobes that the kernel sets by itself: a static C
            // program with ten perf-event uprobes, no eBPF and four threads crashed in 19 of 20 runs
            // (QEMU 7.2, Debian's 6.1 and 6.12), in none with one thread, without probes, or so.
            "tcg,thread=single",
            "-cpu",
            "max",
            "-m",
            "2048",
            "-smp",
            "2",
        ])
        .args(["-nographic", "-no-reboot", "-kernel"])
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 panic=-1 loglevel=4"])
        .stdin(Stdio::null())
        .stdout(log)
        .spawn()
        .map_err(|error| format!("qemu-system-x86_64: {error}"))?;
    let ended = loop {
        if let Some(status) = machine.try_wait().map_err(|error| error.to_string())? {
            break status.success();
        }
        if started.elapsed() > TIME_LIMIT {
            let _ = machine.kill();
            let _ = machine.wait();
            break false;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    static SAYING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = SAYING.lock();
    let text = String::from_utf8_lossy(&fs::read(&log_path).unwrap_or_default()).into_owned();
    for line in text.lines().filter(|line| line.starts_with("test ")) {
        println!("  {}", line.trim_end());
    }
    if ended && text.contains("TERACRON-TESTS-EXIT=0") {
        println!("{name}: passed in {} s", started.elapsed().as_secs());
        Ok(())
    } else {
        let tail: Vec<&str> = text.lines().rev().take(60).collect();
        for line in tail.into_iter().rev() {
            println!("  | {line}");
        }
        Err(format!(
            "{name}: failed; the whole log is {}",
            log_path.display()
        ))
    }
}

/// A cpio archive in the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
    names: std::collections::HashSet<String>,
}

impl Archive {
    fn file(&mut self, name: &str, path: &Path) -> Result<()> {
        if self.names.contains(name) {
            return Ok(());
        }
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let content = fs::read(path).map_err(failed)?;
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
        let mut folder = String::new();
        for part in Path::new(name)
            .parent()
            .into_iter()
            .flat_map(Path::components)
        {
            if !folder.is_empty() {
                folder.push('/');
            }
            folder.push_str(&part.as_os_str().to_string_lossy());
            if self.names.insert(folder.clone()) {
                self.entry(&folder.clone(), 0o040_755, &[]);
            }
        }
        self.names.insert(name.to_owned());
        self.entry(name, 0o100_000 | (mode & 0o777), &content);
        Ok(())
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.inodes += 1;
        let fields = [
            self.inodes,
            mode,
            0,
            0,
            1,
            0,
            content.len() as u32,
            0,
            0,
            0,
            0,
            name.len() as u32 + 1,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            let _ = write!(self.bytes, "{field:08X}");
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::mirror_in;

    #[test]
    fn both_formats_of_apt() {
        let new =
            "Types: deb\n# http://old.example/debian\nURIs: http://one.example/debian\nSuites: x\n";
        assert_eq!(mirror_in(new), Some("http://one.example/debian"));
        let old = "deb [arch=amd64] http://two.example/debian/ bookworm main\n";
        assert_eq!(mirror_in(old), Some("http://two.example/debian/"));
        assert_eq!(mirror_in("deb http://three.example/tools x main"), None);
    }
}
