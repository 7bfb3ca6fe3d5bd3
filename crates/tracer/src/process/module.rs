//! Files that are mapped into a process.

use std::{
    fs::{self, File},
    io,
    ops::Deref,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
};

use procfs::process::{MMPermissions, MMapPath, Process as ProcProcess};

use super::{face, namespace, root_of};
use image::{DebugPlaces, Image, LIBRARY_FOLDERS, foreign};

/// Executable memory of a process with a part of a file: start, end, offset in the file.
pub type Range = (u64, u64, u64);

/// An image as one process has it mapped.
#[derive(Clone, Debug)]
pub struct Module {
    /// The file.
    pub image: Image,
    /// Where it is mapped executable.
    pub mappings: Vec<Range>,
}

impl Deref for Module {
    type Target = Image;

    fn deref(&self) -> &Image {
        &self.image
    }
}

/// Low bits of an address within a page.
const PAGE: u64 = 0xfff;

impl Module {
    /// Where it is loaded, counted from its own addresses, by its executable segments (offset in the file and
    /// address); zero where it is not loaded yet.
    pub fn bias(&self, code: &[(u64, u64)]) -> u64 {
        bias_of(&self.mappings, code)
    }
}

/// The same by the file's executable segments: offset in the file and address.
pub(super) fn bias_of(mappings: &[Range], code: &[(u64, u64)]) -> u64 {
    // Mappings are whole pages, and the page at a border is mapped twice: the segment tells.
    mappings
        .iter()
        .find_map(|(start, _, mapped)| {
            let (_, address) = code.iter().find(|(offset, _)| offset & !PAGE == *mapped)?;
            Some(start.wrapping_sub(address & !PAGE))
        })
        .unwrap_or(0)
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

/// The files mapped executable into a process, the main program first, and whether any of them may not be opened.
pub(super) fn of_process(pid: u32) -> Result<(Vec<Module>, bool), procfs::ProcError> {
    let seen_by = face(pid);
    let process = ProcProcess::new(seen_by as i32)?;
    let maps = process.maps()?;
    let main = fs::metadata(format!("/proc/{seen_by}/exe"))
        .map(|metadata| (metadata.dev(), metadata.ino()))
        .ok();
    let debug = DebugPlaces::host(namespace::is_ours(pid));
    let most = most_files();
    let mut modules: Vec<Module> = Vec::new();
    let mut is_denied = false;
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
            is_denied |= may_not_open(seen_by, start, end);
            log::debug!("process {pid}: cannot open what is mapped at {start:x}-{end:x}");
            continue;
        };
        let Ok(mut image) = Image::new(file, path, false, debug.clone()) else {
            continue;
        };
        image.is_main = main == Some((image.key.dev, image.key.ino));
        modules.push(Module {
            image,
            mappings: vec![mapping],
        });
    }
    modules.sort_by_key(|module| !module.is_main);
    Ok((modules, is_denied))
}

/// Whether the kernel's link to a mapped file is for others.
fn may_not_open(pid: u32, start: u64, end: u64) -> bool {
    let link = format!("/proc/{pid}/map_files/{start:x}-{end:x}");
    fs::metadata(link).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Opens the very file that is mapped. Where the kernel's link can't be used, the path under the
/// process's own root, if it still is the same file.
fn open_mapped(pid: u32, start: u64, end: u64, path: &str, inode: u64) -> Option<File> {
    let link = format!("/proc/{pid}/map_files/{start:x}-{end:x}");
    if let Ok(file) = foreign::open(Path::new(&link)) {
        return Some(file);
    }
    let file = root_of(pid).ok()?.open(Path::new(path)).ok()?;
    let same = file
        .metadata()
        .is_ok_and(|metadata| metadata.ino() == inode);
    same.then_some(file)
}

/// A library that a process may load later: the file that its dynamic linker would find under this
/// name in the standard folders, seen from the process's own root.
pub fn loadable(pid: u32, name: &str) -> Option<Image> {
    let root = root_of(pid).ok()?;
    LIBRARY_FOLDERS.iter().find_map(|folder| {
        let path = format!("{folder}/{name}");
        let file = root.open(Path::new(&path)).ok()?;
        let debug = DebugPlaces::host(namespace::is_ours(pid));
        Image::new(file, path, false, debug).ok()
    })
}

/// Has debug files believed that lie under the root of a process, where the process alone has the file.
pub fn trust_root_of(pid: u32, modules: &mut [Module]) {
    let Ok(root) = root_of(pid) else {
        return;
    };
    let root = Arc::new(root);
    for module in modules {
        if namespace::has_alone(pid, &module.image) {
            module.image.debug = module.image.debug.with_root_of(pid, root.clone());
        }
    }
}
