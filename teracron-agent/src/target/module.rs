//! Files that are mapped into a process.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use procfs::process::{MMPermissions, MMapPath, Process as ProcProcess};

use super::{DebugTrust, face};
use crate::{
    foreign::{self, Root},
    symbol::Elf,
};

/// Identity of a file's contents: the same inode number can be another file later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Last change of the inode, seconds and nanoseconds.
    pub changed: (i64, i64),
    /// Bytes.
    pub size: u64,
}

impl FileKey {
    /// Of an open file.
    pub fn of(file: &File) -> io::Result<Self> {
        Ok(Self::from_metadata(&file.metadata()?))
    }

    fn from_metadata(metadata: &fs::Metadata) -> Self {
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            size: metadata.size(),
        }
    }
}

/// A file that is mapped, or would be.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its path as the process sees it; for people.
    pub path: String,
    /// The main program of the process.
    pub is_main: bool,
    /// Executable mappings: start, end, offset in the file.
    pub mappings: Vec<(u64, u64, u64)>,
    /// The file, opened once; everything that follows uses this descriptor.
    pub file: Arc<File>,
    /// Its identity when it was opened.
    pub key: FileKey,
    /// A process that has it mapped.
    pub pid: Option<u32>,
    /// Whose debug files are believed of it.
    pub trust: DebugTrust,
}

impl Module {
    /// The last part of the path.
    pub fn name(&self) -> &str {
        let path = self.path.trim_end_matches(" (deleted)");
        path.rsplit('/').next().unwrap_or(path)
    }

    /// Whether the user's `@MODULE` means this file.
    pub fn is_called(&self, wanted: &str) -> bool {
        if wanted.contains('/') {
            let path = self.path.trim_end_matches(" (deleted)");
            path == wanted
                || fs::canonicalize(wanted).is_ok_and(|real| real == Path::new(path))
                || fs::metadata(wanted)
                    .is_ok_and(|metadata| FileKey::from_metadata(&metadata) == self.key)
        } else {
            self.name() == wanted
        }
    }

    /// A path by which the kernel finds exactly the open file.
    pub fn kernel_path(&self) -> String {
        use std::os::fd::AsRawFd as _;
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }
}

/// Files of one process that are opened, at most: one process must not use up the descriptors of all. The largest
/// programs (browsers, Java with many plug-ins) map a few hundred.
const MAX_FILES: usize = 2048;

/// The limit in force: of the descriptors that the agent may have, the spool, the wire, and other processes need some.
fn most_files() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let share = limit.map_or(MAX_FILES, |limit| {
        usize::try_from(limit / 4).unwrap_or(MAX_FILES)
    });
    share.clamp(1, MAX_FILES)
}

/// What to say where a process has more files mapped than are looked at.
pub fn too_many_files(pid: u32, modules: &[Module]) -> Option<String> {
    let most = most_files();
    (modules.len() >= most).then(|| {
        format!(
            "process {pid} has code of {most} files mapped or more: no more than these are looked at, the first by their addresses"
        )
    })
}

/// The files mapped executable into a process, the main program first.
pub fn of_process(pid: u32) -> Result<Vec<Module>, procfs::ProcError> {
    let seen_by = face(pid);
    let process = ProcProcess::new(seen_by as i32)?;
    let maps = process.maps()?;
    let main = fs::metadata(format!("/proc/{seen_by}/exe"))
        .map(|metadata| (metadata.dev(), metadata.ino()))
        .ok();
    let most = most_files();
    let mut modules: Vec<Module> = Vec::new();
    for map in maps {
        let MMapPath::Path(path) = &map.pathname else {
            continue;
        };
        if !map.perms.contains(MMPermissions::EXECUTE) {
            continue;
        }
        let (start, end) = map.address;
        let mapping = (start, end, map.offset);
        let path = path.to_string_lossy().into_owned();
        if let Some(module) = modules
            .iter_mut()
            .find(|module| module.path == path && module.key.ino == map.inode)
        {
            module.mappings.push(mapping);
            continue;
        }
        // The program itself always.
        if modules.len() >= most && main.is_none_or(|(_, inode)| inode != map.inode) {
            continue;
        }
        let Some(file) = open_mapped(seen_by, start, end, &path, map.inode) else {
            log::debug!("process {pid}: cannot open what is mapped at {start:x}-{end:x}");
            continue;
        };
        let Ok(key) = FileKey::of(&file) else {
            continue;
        };
        modules.push(Module {
            path,
            is_main: main == Some((key.dev, key.ino)),
            mappings: vec![mapping],
            file: Arc::new(file),
            key,
            pid: Some(pid),
            trust: DebugTrust::Host,
        });
    }
    modules.sort_by_key(|module| !module.is_main);
    Ok(modules)
}

/// Opens the very file that is mapped. Where the kernel's link can't be used, the path under the
/// process's own root, if it still is the same file.
fn open_mapped(pid: u32, start: u64, end: u64, path: &str, inode: u64) -> Option<File> {
    let link = format!("/proc/{pid}/map_files/{start:x}-{end:x}");
    if let Ok(file) = foreign::open(Path::new(&link)) {
        return Some(file);
    }
    let file = Root::of_process(pid).ok()?.open(Path::new(path)).ok()?;
    let same = file
        .metadata()
        .is_ok_and(|metadata| metadata.ino() == inode);
    same.then_some(file)
}

/// A file that no process has mapped yet. The path is the user's.
///
/// # Errors
/// Where there is none that can be opened.
pub fn standalone(path: &Path, is_main: bool) -> io::Result<Module> {
    unmapped(foreign::open(path)?, path, is_main)
}

fn unmapped(file: File, path: &Path, is_main: bool) -> io::Result<Module> {
    let key = FileKey::of(&file)?;
    Ok(Module {
        path: fs::canonicalize(path)
            .unwrap_or_else(|_| path.to_owned())
            .to_string_lossy()
            .into_owned(),
        is_main,
        mappings: Vec::new(),
        file: Arc::new(file),
        key,
        pid: None,
        trust: DebugTrust::Host,
    })
}

/// Libraries looked for per program.
const MAX_NEEDED: usize = 256;

/// The libraries that the dynamic linker would load for a program, as far as its standard places
/// tell: for programs that do not run yet.
pub fn needed_modules(main: &Module) -> Vec<Module> {
    let mut modules: Vec<Module> = Vec::new();
    let Ok(root) = Root::host() else {
        return modules;
    };
    let mut queue = vec![main.clone()];
    let mut seen: Vec<String> = Vec::new();
    while let Some(module) = queue.pop() {
        let Ok(elf) = Elf::read(&module.file) else {
            continue;
        };
        let origin = Path::new(&module.path)
            .parent()
            .unwrap_or(Path::new("/"))
            .to_string_lossy()
            .into_owned();
        let own: Vec<PathBuf> = elf
            .run_paths
            .iter()
            .flat_map(|paths| paths.split(':'))
            .map(|path| {
                PathBuf::from(
                    path.replace("$ORIGIN", &origin)
                        .replace("${ORIGIN}", &origin),
                )
            })
            .collect();
        for name in &elf.needed {
            if seen.len() >= MAX_NEEDED || seen.contains(name) || name.contains('/') {
                continue;
            }
            seen.push(name.clone());
            let found = own
                .iter()
                .map(PathBuf::as_path)
                .chain(LIBRARY_FOLDERS.iter().map(Path::new))
                // A folder that depends on where the program is started is none that is known.
                .filter(|folder| folder.is_absolute())
                .find_map(|folder| {
                    let path = folder.join(name);
                    unmapped(root.open(&path).ok()?, &path, false).ok()
                });
            if let Some(library) = found {
                queue.push(library.clone());
                modules.push(library);
            }
        }
    }
    modules
}

const LIBRARY_FOLDERS: [&str; 7] = [
    "/usr/local/lib",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];

/// A library that a process may load later: the file that its dynamic linker would find under this
/// name in the standard folders, seen from the process's own root.
pub fn loadable(pid: u32, name: &str) -> Option<Module> {
    let root = Root::of_process(pid).ok()?;
    LIBRARY_FOLDERS.iter().find_map(|folder| {
        let path = format!("{folder}/{name}");
        let file = root.open(Path::new(&path)).ok()?;
        let key = FileKey::of(&file).ok()?;
        Some(Module {
            path,
            is_main: false,
            mappings: Vec::new(),
            file: Arc::new(file),
            key,
            pid: Some(pid),
            trust: DebugTrust::Host,
        })
    })
}
