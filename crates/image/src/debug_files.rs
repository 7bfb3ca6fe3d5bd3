//! The separate files that a distribution or a build puts a program's symbols and debug information into:
//! found by build ID or by name.
//!
//! # Whose debug files are believed
//! A build ID is no signature: whoever can read a file can write a "debug file" for it, and what that says
//! decides where breakpoints are set. So a file is believed by where it lies and who owns it.
//!
//! - **Our root** ([`DebugPlaces::host`], and always besides the other). By build ID under `/usr/lib/debug`, for
//!   every file. By name (debug link, `.dwo` beside the program or in the folder that it was compiled in, `.dwp`,
//!   what dwz made files share) only for files of processes in our own mount namespace and for files that the
//!   user named: what a container calls `/src/shop.dwo` is nothing of ours.
//! - **A process's root** ([`DebugPlaces::with_root_of`]), where no other process is reached by what is attached,
//!   and the process is in a mount namespace of its own that has the file alone.
//! - **Everywhere** the file, each folder on the way to it and each link that was followed must belong to root or
//!   to the owner of the probed file, and nobody else may write to them ([`Owner`]): so developers' builds keep
//!   working, and a user's folder over `/usr/lib/debug` is worth nothing for root's files.

use std::{
    fs::File,
    io::Read as _,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::Image;
use crate::{
    foreign::{LIMITS, Owner, Root},
    symbol::{DebugLink, Elf},
};

/// Where distributions put them.
const FOLDER: &str = "/usr/lib/debug";

/// Whose root debug files may come from: part of what a file's tables are known by, since what a debug file says
/// counts only where that is believed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum DebugTrust {
    /// Ours: right whatever the probes reach.
    #[default]
    Host,
    /// That of this process, before ours. Only where the probes reach this process alone: what is believed
    /// then can harm nobody else.
    ProcessRoot(u32),
}

/// Whose debug files are believed of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebugPolicy {
    /// Whose root they may come from.
    pub trust: DebugTrust,
    /// Below our own root by names that the program chose, too.
    pub by_name: bool,
}

/// Where debug files of an image may come from, as whoever knows its process decided.
#[derive(Clone, Debug, Default)]
pub struct DebugPlaces {
    trust: DebugTrust,
    places: Vec<Place>,
}

impl DebugPlaces {
    /// Our root: by build ID, and where `by_name` says so, by names that the program chose, too.
    pub fn host(by_name: bool) -> Self {
        let root = Root::host().ok();
        Self {
            trust: DebugTrust::Host,
            places: root
                .map(|root| Place { root, by_name })
                .into_iter()
                .collect(),
        }
    }

    /// The same, but looked for under the root of a process first.
    pub fn with_root_of(&self, pid: u32, root: Arc<Root>) -> Self {
        let mut places = vec![Place {
            root,
            by_name: true,
        }];
        places.extend(self.places.iter().cloned());
        Self {
            trust: DebugTrust::ProcessRoot(pid),
            places,
        }
    }

    /// What was decided, without the folders themselves: for whoever looks through another process's eyes.
    pub fn policy(&self) -> DebugPolicy {
        DebugPolicy {
            trust: self.trust,
            by_name: self.places.last().is_some_and(|host| host.by_name),
        }
    }

    /// What was decided elsewhere, where files are opened, too; here nobody has the root of a process.
    pub fn decided(policy: DebugPolicy) -> Self {
        let host = Self::host(policy.by_name);
        match policy.trust {
            DebugTrust::ProcessRoot(pid) => match Root::of_process(pid) {
                Some(root) => host.with_root_of(pid, Arc::new(root)),
                None => host,
            },
            DebugTrust::Host => host,
        }
    }

    /// The process under whose root debug files are looked for first, and that root.
    pub fn process_root(&self) -> Option<(u32, Arc<Root>)> {
        match self.trust {
            DebugTrust::ProcessRoot(pid) => Some((pid, self.places.first()?.root.clone())),
            DebugTrust::Host => None,
        }
    }

    /// Whose root they may come from.
    pub fn trust(&self) -> DebugTrust {
        self.trust
    }
}

/// The separate debug file of an image; `None` where there is none, or only one of another build.
pub fn separate(image: &Image, elf: &Elf) -> Option<Arc<File>> {
    let by_id = elf.build_id.as_deref().and_then(path_by_id);
    let folder = Path::new(program_path(image))
        .parent()
        .unwrap_or(Path::new("/"));
    let mut by_name = Vec::new();
    if let Some(link) = &elf.debug_link
        && is_plain(&link.name)
    {
        by_name.push(folder.join(&link.name));
        by_name.push(folder.join(".debug").join(&link.name));
        by_name.push(below_folder(folder).join(&link.name));
    }
    DebugFiles::of(image)
        .open(by_id.into_iter().collect(), by_name)
        .find(|file| belongs(file, elf))
        .map(Arc::new)
}

/// A root, and what may be looked for there.
#[derive(Clone, Debug)]
struct Place {
    root: Arc<Root>,
    /// By names that the program chose, too.
    by_name: bool,
}

/// Where parts of a module's debug information may lie. All names come from the target: they lead to
/// regular files below a root, and what is found must say itself that it belongs to the module.
#[derive(Clone, Debug)]
pub struct DebugFiles {
    places: Vec<Place>,
    owner: Owner,
    path: String,
}

impl DebugFiles {
    /// Of an image.
    pub fn of(image: &Image) -> Self {
        Self {
            places: image.debug.places.clone(),
            owner: Owner::of(&image.file).unwrap_or(Owner::root()),
            path: program_path(image).to_owned(),
        }
    }

    /// Files that may be the `.dwo` of a unit that was compiled in `folder`: where it was made, else beside
    /// the program.
    pub fn split(&self, folder: &str, name: &str) -> impl Iterator<Item = File> {
        let made = Path::new(folder).join(name);
        let beside = Path::new(name)
            .file_name()
            .map(|name| Path::new(&self.path).with_file_name(name));
        self.open(
            Vec::new(),
            [Some(made), beside].into_iter().flatten().collect(),
        )
    }

    /// The package of all units that were put into files of their own (`shop.dwp`).
    pub fn package(&self) -> Option<File> {
        let beside = PathBuf::from(format!("{}.dwp", self.path));
        let apart = below_folder(&beside);
        self.open(Vec::new(), vec![beside, apart]).next()
    }

    /// The file with what several files share, by its build ID.
    pub fn shared(&self, name: &str, id: &[u8]) -> Option<File> {
        let mut by_name = vec![
            PathBuf::from(name),
            Path::new(&self.path).with_file_name(name),
        ];
        let last = Path::new(name).file_name();
        by_name.extend(last.map(|last| Path::new(FOLDER).join(".dwz").join(last)));
        self.open(path_by_id(id).into_iter().collect(), by_name)
            .find(|file| Elf::read(file).is_ok_and(|shared| shared.build_id.as_deref() == Some(id)))
    }

    /// Opens what there is and may be believed, in order: of each root first by build ID, then by name.
    fn open(&self, by_id: Vec<PathBuf>, by_name: Vec<PathBuf>) -> impl Iterator<Item = File> {
        let owner = self.owner;
        self.places.iter().flat_map(move |place| {
            let named = if place.by_name { &by_name[..] } else { &[] };
            let paths: Vec<PathBuf> = by_id.iter().chain(named).cloned().collect();
            paths.into_iter().filter_map(move |path| {
                let opened = place.root.open_owned(&path, owner);
                if let Err(error) = &opened
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    log::debug!("debug information in {}: {error}", path.display());
                }
                opened.ok()
            })
        })
    }
}

/// The image's path, as the process sees it.
fn program_path(image: &Image) -> &str {
    image.path.trim_end_matches(" (deleted)")
}

/// Where a debug file lies by build ID.
fn path_by_id(id: &[u8]) -> Option<PathBuf> {
    let (first, rest) = id.split_first()?;
    let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("{FOLDER}/.build-id/{first:02x}/{rest}.debug").into())
}

/// The same path below the distribution's folder.
fn below_folder(path: &Path) -> PathBuf {
    Path::new(FOLDER).join(path.strip_prefix("/").unwrap_or(path))
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
    let mut sum = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    // It may grow while it is read.
    let mut file = file.take(LIMITS.checksum + 1);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return file.limit() > 0 && sum.finalize() == link.checksum,
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
        assert_eq!(
            below_folder(Path::new("/usr/bin/shop.dwp")),
            Path::new("/usr/lib/debug/usr/bin/shop.dwp")
        );
    }
}
