//! Files that a target chose: nothing but stored files is opened, none of them decides over other processes, and
//! programs that move their text are refused.

use std::{
    collections::HashMap,
    ffi::CString,
    fs::{self, Permissions},
    io::Read as _,
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::{
            ffi::OsStrExt as _,
            fs::{PermissionsExt as _, chown},
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::support::*;
use image::{FileKey, symbol::Elves};
use planner::moving::FileMoving;
use tracer::process::{Module, Process, moves_text, text_was_moved};

/// What the files of a process say of moving text.
fn files_of(modules: &[Module]) -> HashMap<FileKey, FileMoving> {
    let mut elves = Elves::default();
    let mut files = HashMap::new();
    for module in modules {
        if let Ok(elf) = elves.get(module) {
            files.insert(module.key, FileMoving::of(module, elf));
        }
    }
    files
}

/// Hears of every opening of some files; looking them up without opening (`O_PATH`) is none.
struct Openings {
    events: fs::File,
    watched: Vec<(i32, PathBuf)>,
}

impl Openings {
    fn of(paths: &[&Path]) -> Self {
        // SAFETY: no pointers.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        assert!(fd >= 0);
        // SAFETY: the kernel has just made this descriptor for us.
        let events = fs::File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        let watched = paths
            .iter()
            .map(|path| {
                let name = CString::new(path.as_os_str().as_bytes()).unwrap();
                // SAFETY: a string with an end.
                let watch = unsafe { libc::inotify_add_watch(fd, name.as_ptr(), libc::IN_OPEN) };
                assert!(watch >= 0, "{}", path.display());
                (watch, path.to_path_buf())
            })
            .collect();
        Self { events, watched }
    }

    /// What was opened since the last time.
    fn heard(&mut self) -> Vec<PathBuf> {
        let mut bytes = [0; 4096];
        let mut heard = Vec::new();
        // Without a name, an event has 16 bytes; the first 4 are the watch.
        while let Ok(read) = self.events.read(&mut bytes) {
            for event in bytes[..read].chunks(16) {
                let watch = i32::from_ne_bytes(event[..4].try_into().unwrap());
                let found = self.watched.iter().find(|(known, _)| *known == watch);
                heard.extend(found.map(|(_, path)| path.clone()));
            }
        }
        heard.dedup();
        heard
    }
}

fn make_node(path: &Path, kind: u32, device: u64) {
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: a string with an end.
    let made = unsafe { libc::mknod(name.as_ptr(), kind | 0o600, device) };
    assert_eq!(made, 0);
}

/// A folder that everybody may enter.
fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

/// A pipe, a device and a file of procfs.
fn traps(folder: &Path) -> [PathBuf; 3] {
    let (pipe, device) = (folder.join("p"), folder.join("d"));
    make_node(&pipe, libc::S_IFIFO, 0);
    // /dev/null's number.
    make_node(&device, libc::S_IFCHR, libc::makedev(1, 3));
    let process = format!("/proc/{}/oom_score", std::process::id());
    [pipe, device, process.into()]
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// Runs the agent to its end: exit code and what it said.
fn agent(args: &[&str]) -> (i32, String) {
    let output = agent_command(args).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap() + &String::from_utf8_lossy(&output.stdout);
    (output.status.code().unwrap_or(-1), said)
}

/// The program with another name for the file with its debug information.
fn with_dwo_name(program: &Path, name: &str, path: &Path) -> PathBuf {
    let mut bytes = fs::read(program).unwrap();
    let mut wanted = path.as_os_str().as_bytes().to_vec();
    assert!(wanted.len() <= name.len(), "{}", path.display());
    wanted.resize(name.len(), 0);
    let places: Vec<usize> = (0..bytes.len() - name.len())
        .filter(|at| bytes[*at..].starts_with(name.as_bytes()))
        .collect();
    assert!(!places.is_empty(), "{name}");
    for at in places {
        bytes[at..at + name.len()].copy_from_slice(&wanted);
    }
    let out = program.with_extension(path.file_name().unwrap());
    let written = out.with_extension("written");
    fs::write(&written, bytes).unwrap();
    copy(&written, &out);
    fs::set_permissions(&out, Permissions::from_mode(0o755)).unwrap();
    out
}

#[test]
fn debug_information_leads_to_no_device() {
    let folder = open_folder();
    let program = compile("captures.c", &["-g", "-gsplit-dwarf", "-O1"]);
    let name = format!("{}-captures.dwo", program.display());
    let stored = folder.path().join("s");
    fs::copy(&name, &stored).unwrap();
    let plan = |program: &Path, before: &[&str]| {
        let mut command = Command::new(before.first().copied().unwrap_or("env"));
        command
            .args(before.get(1..).unwrap_or_default())
            .arg(program);
        let target = Target::start_command(command);
        let pid = target.pid.to_string();
        let (_, said) = agent(&["symbols", "--pid", &pid, "--plan", "t:find(k, ret)"]);
        said
    };
    // So much for the way to see it: a stored file is opened and used.
    let chosen = with_dwo_name(&program, &name, &stored);
    let mut openings = Openings::of(&[&stored]);
    let said = plan(&chosen, &[]);
    assert_eq!(openings.heard(), std::slice::from_ref(&stored), "{said}");
    assert!(!said.contains("which was not found"), "{said}");
    // For a process in another mount namespace the name is none of ours.
    let said = plan(&chosen, &["unshare", "--mount"]);
    assert_eq!(openings.heard(), <[PathBuf; 0]>::default(), "{said}");
    assert!(said.contains("which was not found"), "{said}");
    // Nor where somebody else could have put it there.
    for spoil in [
        &(|| chown(&stored, Some(65534), None).unwrap()) as &dyn Fn(),
        &|| {
            chown(&stored, Some(0), None).unwrap();
            fs::set_permissions(&stored, Permissions::from_mode(0o666)).unwrap();
        },
        &|| {
            fs::set_permissions(&stored, Permissions::from_mode(0o644)).unwrap();
            fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        },
    ] {
        spoil();
        let said = plan(&chosen, &[]);
        assert_eq!(openings.heard(), <[PathBuf; 0]>::default(), "{said}");
        assert!(said.contains("which was not found"), "{said}");
    }
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    plan(&chosen, &[]);
    assert_eq!(openings.heard(), std::slice::from_ref(&stored));
    for trap in traps(folder.path()) {
        let chosen = with_dwo_name(&program, &name, &trap);
        let mut openings = Openings::of(&[&trap]);
        let said = plan(&chosen, &[]);
        assert_eq!(openings.heard(), <[PathBuf; 0]>::default(), "{said}");
        assert!(said.contains("which was not found"), "{said}");
        fs::remove_file(chosen).unwrap();
    }
}

#[test]
fn needed_libraries_lead_to_no_device() {
    let folder = open_folder();
    let library = folder.path().join("libtrap.so");
    let program = folder.path().join("program");
    let source = folder.path().join("a.c");
    fs::write(&source, "int trap(void) { return 1; }").unwrap();
    run(Command::new("gcc")
        .args(["-shared", "-Wl,-soname=libtrap.so", "-o"])
        .args([&library, &source]));
    fs::write(&source, "int trap(void); int main(void) { return trap(); }").unwrap();
    run(Command::new("gcc")
        .arg(format!("-Wl,-rpath={}", folder.path().display()))
        .arg("-o")
        .args([&program, &source, &library]));
    let path = program.to_str().unwrap();
    let look = || {
        let mut openings = Openings::of(&[&library]);
        let (code, said) = agent(&["--exe", path, "--probe", "t:main", "--duration", "0.1"]);
        assert_eq!(code, 0, "{said}");
        openings.heard()
    };
    assert_eq!(look(), std::slice::from_ref(&library));
    for trap in &traps(folder.path())[..2] {
        fs::rename(trap, &library).unwrap();
        assert_eq!(look(), <[PathBuf; 0]>::default(), "{}", trap.display());
    }
}

/// A library and a "debug file" for it that names one more function, by whoever can read the library.
struct Forged {
    folder: tempfile::TempDir,
    program: PathBuf,
}

const BUILD_ID: &str = "5ca1ab1e00000000000000000000000000f1e5f0";

impl Forged {
    fn new() -> Self {
        let folder = open_folder();
        let at = |name: &str| folder.path().join(name);
        let build_id = format!("-Wl,--build-id=0x{BUILD_ID}");
        fs::write(at("a.c"), "int shared(int n) { return n + 1; }\n").unwrap();
        run(Command::new("gcc")
            .args([
                "-O1",
                "-s",
                "-shared",
                "-Wl,-soname=libshared.so",
                &build_id,
                "-o",
            ])
            .args([at("libshared.so"), at("a.c")]));
        fs::write(
            at("b.c"),
            "int shared(int n) { return n + 1; }\nint forged(int n) { return n * 3; }\n",
        )
        .unwrap();
        run(Command::new("gcc")
            .args(["-O1", "-g", "-shared", &build_id, "-o"])
            .args([at("other.so"), at("b.c")]));
        let debug = at("debug/.build-id").join(&BUILD_ID[..2]);
        fs::create_dir_all(&debug).unwrap();
        run(Command::new("objcopy")
            .arg("--only-keep-debug")
            .arg(at("other.so"))
            .arg(debug.join(format!("{}.debug", &BUILD_ID[2..]))));
        let program = "#include <stdio.h>\n#include <unistd.h>\nint shared(int);\n\
            int main(void) { printf(\"ready %d\\n\", getpid()); fflush(stdout); getchar(); return shared(0) - 1; }\n";
        fs::write(at("c.c"), program).unwrap();
        run(Command::new("gcc")
            .args(["-Wl,-rpath=$ORIGIN", "-o"])
            .args([at("program"), at("c.c"), at("libshared.so")]));
        Self {
            program: at("program"),
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Whether the function of the debug file is found.
    fn is_believed(&self, pid: u32, more: &[&str]) -> bool {
        let pid = pid.to_string();
        let mut args = vec![
            "--pid",
            &pid,
            "--probe",
            "t:forged@libshared.so",
            "--duration",
            "0.1",
        ];
        args.extend(more);
        let (code, said) = agent(&args);
        assert!(!said.contains("no file called"), "{said}");
        assert!(!said.contains("no process"), "{said}");
        // What it calls so may be no function of the library: the address must prove itself.
        match code {
            4 if said.contains("has no function's start") => true,
            4 if said.contains("no such function") || said.contains("no function") => false,
            0 | 4 => true,
            code => panic!("{code}: {said}"),
        }
    }
}

#[test]
fn a_users_own_debug_folder_is_not_believed() {
    let forged = Forged::new();
    fs::create_dir_all("/usr/lib/debug").unwrap();
    let script = "mount --bind \"$1\" /usr/lib/debug && exec \"$2\"";
    // Whoever it belongs to: root may have made a file for something else that somebody shows here.
    for owner in [65534, 0] {
        for path in ["debug", "debug/.build-id"] {
            chown(forged.path(path), Some(owner), Some(owner)).unwrap();
        }
        let inner = forged.path("debug/.build-id").join(&BUILD_ID[..2]);
        for entry in fs::read_dir(&inner).unwrap() {
            chown(entry.unwrap().path(), Some(owner), Some(owner)).unwrap();
        }
        chown(inner, Some(owner), Some(owner)).unwrap();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .args(["unshare", "-rm", "sh", "-c", script, "sh"])
            .args([forged.path("debug"), forged.program.clone()]);
        let target = Target::start_command(command);
        let seen = format!(
            "/proc/{}/root/usr/lib/debug/.build-id/{}",
            target.pid,
            &BUILD_ID[..2]
        );
        assert!(Path::new(&seen).exists(), "the folder is over ours");
        for more in [&[][..], &["--no-follow"]] {
            assert!(!forged.is_believed(target.pid, more), "{owner} {more:?}");
        }
    }
}

#[test]
fn a_containers_debug_folder_counts_for_it_alone() {
    let forged = Forged::new();
    let root = forged.path("root");
    fs::create_dir(&root).unwrap();
    // A root of its own on a file system of its own, with what it needs of ours.
    let script = "set -e; mount -t tmpfs tmpfs \"$1\"; cd \"$1\"; mkdir -p usr/lib/debug lib64 lib app proc\n\
        mount --bind /lib64 lib64; mount --bind /lib lib; mount --bind /usr/lib usr/lib; mount -t tmpfs tmpfs usr/lib/debug\n\
        mount -t proc proc proc; cp -r \"$2\"/debug/.build-id usr/lib/debug/; cp \"$2\"/program \"$2\"/libshared.so app/\n\
        exec chroot . /app/program";
    fs::create_dir_all("/usr/lib/debug").unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", script, "sh"])
        .args([&root, forged.folder.path()]);
    let target = Target::start_command(command);
    // Its own debug file, for its own file, where nobody else is reached.
    assert!(forged.is_believed(target.pid, &["--no-follow"]));
}

/// Tells the target to go on, and waits until it has moved its text.
fn let_move(target: &mut Target) {
    target.go();
    target.expect("moved");
}

#[test]
fn a_program_that_moves_its_text_is_refused() {
    let program = compile("moves.c", &["-O2", "-DMOVES"]);
    let mut target = Target::start(&program, &[]);
    let pid = target.pid.to_string();
    let path = program.to_str().unwrap();
    for args in [["--pid", &pid], ["--exe", path]] {
        let (code, said) = agent(&[&args[..], &["--probe", "t:work"]].concat());
        assert_eq!(code, 4, "{said}");
        assert!(said.contains("maps other memory over code"), "{said}");
    }
    let process = Process::find(target.pid).unwrap();
    let modules = process.modules().unwrap();
    assert_eq!(text_was_moved(target.pid, &modules), None);
    let_move(&mut target);
    let moved = text_was_moved(target.pid, &modules).unwrap();
    assert!(
        moved.contains("is not mapped from its file any more"),
        "{moved}"
    );
    assert_eq!(target.finish().code(), Some(28));
}

#[test]
fn text_that_was_moved_is_noticed() {
    let program = compile("moves.c", &["-O2", "-DLIBRARY_MOVES"]);
    let mut target = Target::start(&program, &[]);
    let process = Process::find(target.pid).unwrap();
    let modules = process.modules().unwrap();
    // How it will be done can't be seen from its code.
    assert_eq!(moves_text(&process, &modules, &files_of(&modules)), None);
    assert_eq!(text_was_moved(target.pid, &modules), None);
    let_move(&mut target);
    assert!(text_was_moved(target.pid, &modules).is_some());
    let (code, said) = agent(&["--pid", &target.pid.to_string(), "--probe", "t:work"]);
    assert_eq!(code, 4, "{said}");
    assert!(
        said.contains("is not mapped from its file any more"),
        "{said}"
    );
    assert_eq!(target.finish().code(), Some(28));
}

#[test]
fn node_with_large_pages_is_refused() {
    let Ok(node) = fs::canonicalize("/usr/bin/node") else {
        eprintln!("no node here");
        return;
    };
    let script = "console.log('ready ' + process.pid); process.stdin.resume()";
    let start = |options: &[&str], variable: &str| {
        let mut command = Command::new(&node);
        command.args(options).args(["-e", script]);
        if !variable.is_empty() {
            command.env("NODE_OPTIONS", variable);
        }
        Target::start_command(command)
    };
    for (options, variable) in [
        (&["--use-largepages=silent"][..], ""),
        (&["--use-largepages=on"], ""),
        (&[], "--use-largepages=silent"),
    ] {
        let target = start(options, variable);
        let (code, said) = agent(&["--pid", &target.pid.to_string(), "--probe", "t:uv_run"]);
        assert_eq!(code, 4, "{options:?} {variable}: {said}");
        assert!(
            said.contains("--use-largepages") || said.contains("is not mapped from its file"),
            "{said}"
        );
    }
    // Without it nothing speaks against one process; but a stranger may use it.
    let target = start(&[], "");
    let process = Process::find(target.pid).unwrap();
    let modules = process.modules().unwrap();
    assert_eq!(moves_text(&process, &modules, &files_of(&modules)), None);
    let path = node.to_str().unwrap();
    let (code, said) = agent(&["--exe", path, "--probe", "t:uv_run"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("--use-largepages"), "{said}");
}
