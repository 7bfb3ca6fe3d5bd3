//! The separate file that a distribution or a build puts a program's symbols and debug information into:
//! found by build ID or by name, under the process's own root and under ours.

use std::{
    fs::File,
    io::Read as _,
    path::{Component, Path},
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
    let roots = module
        .pid
        .map(|pid| format!("/proc/{pid}/root"))
        .into_iter()
        .chain(["/".to_owned()]);
    for root in roots {
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
