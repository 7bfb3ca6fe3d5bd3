//! The agent's own folders and files, standard error and scrubber: what others, or a careless operator, put there
//! neither holds it up nor makes it touch what is not its own.

use std::{
    ffi::CString,
    fs::{self, Permissions},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{
            ffi::OsStrExt as _,
            fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use crate::support::{service::*, *};
use model::{
    Kind,
    totals::{Cause, Totals},
};
use pipeline::spool::{Disk, Entry, SharedSpool, Spool};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Longer than the agent ever takes for what is tried here, shorter than for ever.
const IN_TIME: Duration = Duration::from_secs(10);

fn wait(child: &mut Child) -> ExitStatus {
    let until = Instant::now() + IN_TIME;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > until {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the agent did not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs the agent to its end: exit code and what it said.
fn run(mut command: Command) -> (i32, String) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let status = wait(&mut child);
    let mut said = String::new();
    stderr.read_to_string(&mut said).unwrap();
    (status.code().unwrap_or(-1), said)
}

/// A program that does nothing, to be watched.
struct Idle(Child);

impl Idle {
    fn start() -> Self {
        Self(Command::new("/bin/sleep").arg("1000").spawn().unwrap())
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn fifo(path: &Path) {
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: a string with an end.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// Names and contents of a folder's files.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

/// An agent that watches an idle program's memory and has nobody to send it to.
fn watching(target: &Idle, folder: &Path, more: &[&str]) -> Command {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let mut command = agent_command(&["--pid", &target.pid(), "--api-key", api_key()]);
    command
        .args(["--shutdown-timeout", "0"])
        .args(["--domain", "localhost:9", "--allow-custom-domain"])
        .args(["--spool-dir", &path("spool"), "--run-dir", &path("run")])
        .args(more)
        .env("HOME", folder);
    if !more.contains(&"--duration") {
        command.args(["--duration", "0.5"]);
    }
    command
}

#[test]
fn a_spool_that_leads_elsewhere_is_refused_and_nothing_there_is_touched() {
    let target = Idle::start();
    for link in ["0", "."] {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::create_dir(&victim).unwrap();
        for number in 0..80 {
            fs::write(victim.join(format!("file{number}")), "theirs").unwrap();
        }
        set_mode(&victim, 0o755);
        let before = contents(&victim);
        let project = folder.path().join("spool").join(slug());
        let link = project.join(link);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        let _ = fs::remove_dir(&link);
        // Without the `/.` that a link can't be called.
        let link: PathBuf = link.components().collect();
        symlink(&victim, &link).unwrap();
        let (code, said) = run(watching(&target, folder.path(), &[]));
        assert_eq!(code, 1, "{said}");
        assert!(
            said.contains("is a symbolic link") && said.contains("--spool-dir"),
            "{said}"
        );
        assert!(contents(&victim) == before && mode(&victim) == 0o755);
    }
}

#[test]
fn a_spool_of_somebody_elses_is_refused() {
    let target = Idle::start();
    let folder = tempfile::tempdir().unwrap();
    set_mode(folder.path(), 0o755);
    let spool = folder.path().join("spool");
    fs::create_dir(&spool).unwrap();
    set_mode(&spool, 0o777);
    let (code, said) = run(watching(&target, folder.path(), &[]));
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("can be written by others (mode 0777)"),
        "{said}"
    );
    set_mode(&spool, 0o755);
    chown(&spool, Some(65_534), None).unwrap();
    let (code, said) = run(watching(&target, folder.path(), &[]));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("belongs to user 65534"), "{said}");
    assert_eq!(fs::read_dir(&spool).unwrap().count(), 0);
}

#[test]
fn fifos_and_devices_are_refused_not_waited_for() {
    let target = Idle::start();
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    fifo(&pipe);
    let pipe = pipe.to_str().unwrap();
    for (flags, wanted) in [
        (["--config", pipe], 2),
        (["--config", "/dev/zero"], 2),
        (["--ca-file", pipe], 2),
        (["--ca-file", "/dev/zero"], 2),
    ] {
        let (code, said) = run(watching(&target, folder.path(), &flags));
        assert_eq!(code, wanted, "{flags:?}: {said}");
        assert!(said.contains("not a regular file"), "{flags:?}: {said}");
    }
    // The spool's lock.
    let own = folder.path().join("spool").join(slug()).join("0");
    fs::create_dir_all(&own).unwrap();
    fifo(&own.join(".lock"));
    let (code, said) = run(watching(&target, folder.path(), &[]));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(".lock is a FIFO"), "{said}");
    // What `login` stores.
    fs::create_dir(folder.path().join(".teracron")).unwrap();
    fifo(&folder.path().join(".teracron/credentials.json"));
    for (command, wanted) in [("whoami", 2), ("logout", 1)] {
        let mut command = agent_command(&[command]);
        command.env("HOME", folder.path());
        let (code, said) = run(command);
        assert_eq!(code, wanted, "{said}");
        assert!(said.contains("credentials.json is a FIFO"), "{said}");
    }
    let mut login = agent_command(&["login", api_key()]);
    login.env("HOME", folder.path());
    let (code, said) = run(login);
    assert_eq!(code, 0, "a FIFO of our own is replaced: {said}");
}

#[test]
fn a_shared_folder_for_sockets_stays_as_it_is() {
    let target = Idle::start();
    let folder = tempfile::tempdir().unwrap();
    let shared = folder.path().join("run");
    fs::create_dir(&shared).unwrap();
    set_mode(&shared, 0o1777);
    let (code, said) = run(watching(&target, folder.path(), &[]));
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("will not find this agent"), "{said}");
    assert!(
        said.contains("can be written by others (mode 1777)"),
        "{said}"
    );
    assert_eq!(mode(&shared), 0o1777);
    set_mode(&shared, 0o755);
    let (_, said) = run(watching(&target, folder.path(), &[]));
    assert!(!said.contains("will not find"), "{said}");
    assert_eq!(mode(&shared), 0o755);
}

#[test]
fn a_configuration_that_others_write_is_refused_and_one_that_they_read_is_told() {
    let folder = tempfile::tempdir().unwrap();
    set_mode(folder.path(), 0o755);
    let path = folder.path().join("agent.toml");
    let flags = ["config", "--config", path.to_str().unwrap()];
    let config = |text: &str, mode: u32| {
        fs::write(&path, text).unwrap();
        set_mode(&path, mode);
        run(agent_command(&flags))
    };
    let plain = "interval = 20\n";
    let secret = "scrub_hash_key = 'k'\n";
    for (text, mode, code, words) in [
        (plain, 0o666, 2, "can be written by others"),
        (plain, 0o644, 0, ""),
        (
            secret,
            0o644,
            0,
            "has scrub_hash_key and can be read by others",
        ),
        (secret, 0o600, 0, ""),
    ] {
        let (ended, said) = config(text, mode);
        assert_eq!(ended, code, "{said}");
        if words.is_empty() {
            assert_eq!(said, "");
        } else {
            assert!(said.contains(words), "{said}");
        }
    }
    // Whoever may exchange the file may write it.
    set_mode(folder.path(), 0o777);
    let (ended, said) = config(plain, 0o644);
    assert!(
        ended == 2 && said.contains("can be written by others"),
        "{said}"
    );
    set_mode(folder.path(), 0o755);
    chown(&path, Some(65_534), None).unwrap();
    let (ended, said) = run(agent_command(&flags));
    assert!(
        ended == 2 && said.contains("belongs to user 65534"),
        "{said}"
    );
    // But not that of whoever called sudo.
    let mut sudo = agent_command(&flags);
    sudo.env("SUDO_UID", "65534");
    assert_eq!(run(sudo).0, 0);
}

/// Runs something where a full file system of one MiB lies on a folder, for this thread alone.
fn on_small_disk(work: impl FnOnce(&Path) + Send + 'static) {
    std::thread::spawn(|| {
        // SAFETY: no pointers.
        let alone = unsafe { libc::unshare(libc::CLONE_NEWNS) };
        assert_eq!(alone, 0, "root is needed");
        let folder = tempfile::tempdir().unwrap();
        let mount = |args: &[&str]| {
            let mounted = Command::new("mount").args(args).arg(folder.path()).status();
            assert!(mounted.unwrap().success());
        };
        let private = Command::new("mount")
            .args(["--make-rprivate", "/"])
            .status();
        assert!(private.unwrap().success());
        mount(&["-t", "tmpfs", "-o", "size=1m,mode=755", "none"]);
        work(folder.path());
        let unmounted = Command::new("umount").arg("-l").arg(folder.path()).status();
        assert!(unmounted.unwrap().success());
    })
    .join()
    .unwrap();
}

#[test]
fn on_a_full_disk_the_oldest_go() {
    on_small_disk(|folder| {
        let entry = |count: u32| Entry {
            kind: Kind::Spans,
            count,
            envelope: vec![count as u8; 40_000],
        };
        let totals = Totals::default();
        totals.received(Kind::Spans, (1..=100).sum());
        let (disk, heads, _) = Disk::open(folder, slug()).unwrap();
        let spool = SharedSpool::new(Spool::on_disk(disk, heads, u64::MAX));
        for count in (1..=100).step_by(5) {
            let entries: Vec<Entry> = (count..count + 5).map(entry).collect();
            spool.add(&entries, &totals).unwrap();
        }
        let spans = totals.snapshot().spans;
        assert!(spans.add_up());
        assert_eq!(spans.dropped.sum(), spans.dropped.of(Cause::SpoolFull));
        let kept: Vec<u32> = spool.waiting().iter().map(|head| head.count).collect();
        // 25 of them fill it; some room goes to what is written beside.
        assert!((15..=25).contains(&kept.len()), "{kept:?}");
        let newest: Vec<u32> = (101 - kept.len() as u32..=100).collect();
        assert_eq!(kept, newest);
        drop(spool);
        let (disk, heads, notes) = Disk::open(folder, slug()).unwrap();
        assert!(notes.is_empty(), "{notes:?}");
        assert_eq!(heads.len(), kept.len());
        // Where somebody else fills the disk again and again, the spool is not emptied for nothing.
        let spool = SharedSpool::new(Spool::on_disk(disk, heads, u64::MAX));
        while let Some(head) = spool.take_next() {
            assert_eq!(spool.read(head.number).unwrap().count, head.count);
        }
        spool.add(&[entry(1)], &totals).unwrap_err();
        assert_eq!(totals.snapshot().spans.dropped.of(Cause::SpoolFailed), 1);
    });
}

/// The writing end of a pipe that is full, and its reading end.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    let mut ends = [0; 2];
    // SAFETY: room for two numbers.
    let made = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) };
    assert_eq!(made, 0);
    // SAFETY: the kernel has just made them for us.
    let [read, write] = ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    // SAFETY: no pointers.
    let set = |how: i32| unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETFL, how) };
    assert_eq!(set(libc::O_NONBLOCK), 0);
    let mut file = fs::File::from(write.try_clone().unwrap());
    while file.write(&[b'x'; 4096]).is_ok() {}
    while file.write(b"x").is_ok() {}
    assert_eq!(set(0), 0);
    (read, write)
}

#[test]
fn a_standard_error_that_nobody_reads_stops_nothing() {
    let program = compile("steady.c", &["-O2"]);
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut target = Target::start(&program, &[]);
        target.go();
        target.expect("running");
        let folder = tempfile::tempdir().unwrap();
        let pid = target.pid.to_string();
        let (unread, stderr) = full_pipe();
        let mut child = agent_command(&["--pid", &pid, "--probe", "a:outer", "--output", "json"])
            .args(["--stats-interval", "1", "--debug", "--run-dir"])
            .arg(folder.path().join("run"))
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // It says something every second, and goes on all the same.
        let began = Instant::now();
        let mut spans = 0u64;
        while began.elapsed() < Duration::from_secs(4) || spans < 10_000 {
            let line = lines.next().unwrap().unwrap();
            spans += u64::from(line.contains(r#""type":"span""#));
        }
        // SAFETY: our own child, not yet waited for.
        unsafe { libc::kill(child.id() as i32, signal) };
        let reading = std::thread::spawn(move || lines.count());
        assert!(wait(&mut child).success());
        reading.join().unwrap();
        drop(unread);
        target.go();
        target.finish();
    }
}

#[test]
fn a_scrubber_dies_with_the_agent() {
    let target = Idle::start();
    let folder = tempfile::tempdir().unwrap();
    let told = folder.path().join("pid");
    fifo(&told);
    // Both ways: opening it waits for nobody.
    let pipe = fs::File::options()
        .read(true)
        .write(true)
        .open(&told)
        .unwrap();
    let config = folder.path().join("agent.toml");
    // Whoever delivers, and the scrubber with it, is another user.
    set_mode(folder.path(), 0o755);
    set_mode(&told, 0o666);
    let script = format!("echo $$ > {}; exec cat", told.display());
    fs::write(
        &config,
        format!("scrubber = ['/bin/sh', '-c', '{script}']\n"),
    )
    .unwrap();
    let flags = ["--config", config.to_str().unwrap(), "--duration", "100"];
    let mut command = watching(&target, folder.path(), &flags);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    let mut agent = command.spawn().unwrap();
    let mut ready = [PollFd::new(&pipe, PollFlags::IN)];
    assert_eq!(
        poll(&mut ready, Some(&Timespec::try_from(IN_TIME).unwrap())),
        Ok(1)
    );
    let mut scrubber = String::new();
    BufReader::new(&pipe).read_line(&mut scrubber).unwrap();
    let stat = format!("/proc/{}/stat", scrubber.trim());
    let fields = fs::read_to_string(&stat).unwrap();
    let (_, fields) = fields.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = fields.split(' ').collect();
    let delivering = format!("/proc/{}/stat", fields[1]);
    let parent = fs::read_to_string(&delivering).unwrap();
    let (_, parent) = parent.rsplit_once(") ").unwrap();
    let parent = parent.split(' ').nth(1).unwrap();
    assert_eq!(parent, agent.id().to_string(), "its parent's parent");
    assert_eq!(fields[2], scrubber.trim(), "its process group");
    agent.kill().unwrap();
    agent.wait().unwrap();
    let until = Instant::now() + IN_TIME;
    for stat in [stat, delivering] {
        while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z")) {
            assert!(Instant::now() < until, "{stat} outlived the agent");
            std::thread::yield_now();
        }
    }
}
