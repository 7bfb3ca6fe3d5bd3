//! The separate file that a distribution or a build puts a program's symbols and debug information into:
//! found by build ID or by name, under the process's own root and under ours.

use std::{
    fs::File,
    io::Read as _,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use super::{Module, module::open_below};
use crate::symbol::{DebugLink, Elf};

/// Where distributions put them.
const FOLDER: &str = "/usr/lib/debug";
/// Larger files are not checked by their checksum, in bytes.
const MAX_CHECKED: u64 = 4 << 30;

/// The separate debug file of a module; `None` where there is none, or only one of another build.
pub fn separate(module: &Module, elf: &Elf) -> Option<Arc<File>> {
    let mut paths = Vec::new();
    if let Some(id) = &elf.build_id
        && let Some((first, rest)) = id.split_first()
    {
        let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
        paths.push(format!("{FOLDER}/.build-id/{first:02x}/{rest}.debug"));
    }
    let folder = Path::new(module.path.trim_end_matches(" (deleted)"))
        .parent()
        .map(|folder| folder.to_string_lossy().into_owned())
        .unwrap_or_default();
    if let Some(link) = &elf.debug_link
        && is_plain(&link.name)
    {
        paths.push(format!("{folder}/{}", link.name));
        paths.push(format!("{folder}/.debug/{}", link.name));
        paths.push(format!("{FOLDER}{folder}/{}", link.name));
    }
    for root in roots(module) {
        for path in &paths {
            if let Some(file) = open_below(&root, path)
                && belongs(&file, elf)
            {
                return Some(Arc::new(file));
            }
        }
    }
    None
}

/// The process's own root, and ours.
fn roots(module: &Module) -> Vec<String> {
    module
        .pid
        .map(|pid| format!("/proc/{pid}/root"))
        .into_iter()
        .chain(["/".to_owned()])
        .collect()
}

/// Where parts of a module's debug information may lie. All names come from the target: they lead to
/// regular files below a root, and what is found must say itself that it belongs to the module.
#[derive(Clone, Debug)]
pub struct DebugFiles {
    roots: Vec<String>,
    path: String,
}

impl DebugFiles {
    /// Of a module.
    pub fn of(module: &Module) -> Self {
        Self {
            roots: roots(module),
            path: module.path.trim_end_matches(" (deleted)").to_owned(),
        }
    }

    /// Of a program at a path, for tests.
    #[cfg(test)]
    pub fn beside(path: &Path) -> Self {
        Self {
            roots: vec!["/".to_owned()],
            path: path.to_string_lossy().into_owned(),
        }
    }

    /// Files that may be the `.dwo` of a unit that was compiled in `folder`: where it was made, else beside
    /// the program.
    pub fn split(&self, folder: &str, name: &str) -> impl Iterator<Item = File> {
        let made = Path::new(folder).join(name);
        let beside = Path::new(name)
            .file_name()
            .map(|name| Path::new(&self.path).with_file_name(name));
        self.open([Some(made), beside].into_iter().flatten().collect())
    }

    /// The package of all units that were put into files of their own (`shop.dwp`).
    pub fn package(&self) -> Option<File> {
        let beside = format!("{}.dwp", self.path);
        let apart = format!("{FOLDER}{beside}");
        self.open(vec![beside.into(), apart.into()]).next()
    }

    /// The file with what several files share, by its build ID.
    pub fn shared(&self, name: &str, id: &[u8]) -> Option<File> {
        let (first, rest) = id.split_first()?;
        let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut paths = vec![
            PathBuf::from(name),
            format!("{FOLDER}/.build-id/{first:02x}/{rest}.debug").into(),
            Path::new(&self.path).with_file_name(name),
        ];
        let last = Path::new(name).file_name();
        paths.extend(last.map(|last| Path::new(FOLDER).join(".dwz").join(last)));
        self.open(paths)
            .find(|file| Elf::read(file).is_ok_and(|shared| shared.build_id.as_deref() == Some(id)))
    }

    fn open(&self, paths: Vec<PathBuf>) -> impl Iterator<Item = File> {
        let paths = self.roots.iter().flat_map(move |root| {
            let paths = paths.clone();
            paths.into_iter().map(move |path| (root.clone(), path))
        });
        paths.filter_map(|(root, path)| open_below(&root, path.to_str()?))
    }
}

/// A file name and nothing else: it comes from the target.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(parts.next(), Some(Component::Normal(_))) && parts.next().is_none()
}

/// Whether a debug file is of the same build as the program.
fn belongs(file: &File, elf: &Elf) -> bool {
    if elf.build_id.is_some() {
        return Elf::read(file).is_ok_and(|debug| debug.build_id == elf.build_id);
    }
    elf.debug_link
        .as_ref()
        .is_some_and(|link| matches_checksum(file, link))
}

fn matches_checksum(file: &File, link: &DebugLink) -> bool {
    if file.metadata().map_or(u64::MAX, |data| data.len()) > MAX_CHECKED {
        return false;
    }
    let mut sum = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    let mut file = file;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return sum.finalize() == link.checksum,
            Ok(read) => sum.update(buffer.get(..read).unwrap_or_default()),
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_the_target_is_a_name() {
        assert!(is_plain("shop.debug"));
        for bad in ["", ".", "..", "../x", "/etc/shadow", "a/b"] {
            assert!(!is_plain(bad), "{bad}");
        }
    }
}
