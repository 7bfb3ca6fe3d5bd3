//! Opens files for the process that plans: only what a plan may want, whoever asks.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    sync::Arc,
};

use super::messages::Wanted;
use image::{
    FileKey, Image,
    foreign::{Owner, Root, RootId},
};
use planner::whole::Files;

/// Files that are opened for one plan, at most: each has a descriptor.
const MAX_OPENED: usize = 4096;

/// What may be opened, and what was.
pub(super) struct Broker {
    roots: HashMap<RootId, Arc<Root>>,
    owners: HashSet<Owner>,
    /// Libraries may be looked for without asking whose they are: for programs that do not run yet.
    libraries: bool,
    opened: usize,
    /// By what they are: those that were given, and those that were asked for.
    pub files: Files,
}

impl Broker {
    /// For a plan with these images.
    pub(super) fn new<'a>(images: impl Iterator<Item = &'a Image>, libraries: bool) -> Self {
        let mut broker = Self {
            roots: HashMap::new(),
            owners: HashSet::from([Owner::root()]),
            libraries,
            opened: 0,
            files: Files::new(),
        };
        if let Ok(host) = Root::host() {
            broker.roots.insert(RootId::Host, host);
        }
        for image in images {
            broker.owners.extend(Owner::of(&image.file));
            broker.files.insert(image.key, image.file.clone());
            if let Some((pid, root)) = image.debug.process_root() {
                broker.roots.insert(RootId::Process(pid), root);
            }
        }
        broker
    }

    /// Opens what is asked for.
    ///
    /// # Errors
    /// Where it is nothing that a plan may want, or can't be opened.
    pub(super) fn open(&mut self, wanted: &Wanted) -> io::Result<Arc<File>> {
        let root = self.roots.get(&wanted.root).ok_or_else(refused)?;
        self.opened += 1;
        if self.opened > MAX_OPENED {
            return Err(rustix::io::Errno::MFILE.into());
        }
        let path = wanted.path();
        let file = match wanted.owner {
            Some(owner) if self.owners.contains(&owner) => root.open_owned(&path, owner)?,
            None if self.libraries && wanted.root == RootId::Host => root.open(&path)?,
            _ => return Err(refused()),
        };
        // Nothing else is of any use to a plan, and much of it is nobody's business.
        let mut head = [0; 4];
        let is_elf = file.read_exact_at(&mut head, 0).is_ok() && head == *b"\x7fELF";
        if !is_elf {
            return Err(rustix::io::Errno::NOEXEC.into());
        }
        let file = Arc::new(file);
        self.files.insert(FileKey::of(&file)?, file.clone());
        Ok(file)
    }
}

fn refused() -> io::Error {
    rustix::io::Errno::ACCESS.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn wanted(root: RootId, path: &str, owner: Option<Owner>) -> Wanted {
        Wanted::new(root, path.into(), owner)
    }

    #[test]
    fn only_what_a_plan_may_want_is_opened() {
        let own = Image::open(Path::new("/proc/self/exe"), true).unwrap();
        let root = Some(Owner::root());
        let mut broker = Broker::new([&own].into_iter(), false);
        let open = |broker: &mut Broker, wanted: Wanted| broker.open(&wanted).is_ok();
        let libc = "/lib/x86_64-linux-gnu/libc.so.6";
        assert!(open(&mut broker, wanted(RootId::Host, libc, root)));
        for (name, wrong) in [
            ("no program", wanted(RootId::Host, "/etc/passwd", root)),
            ("no file", wanted(RootId::Host, "/etc", root)),
            ("whoever owns it", wanted(RootId::Host, libc, None)),
            ("another root", wanted(RootId::Process(1), libc, root)),
        ] {
            assert!(!open(&mut broker, wrong), "{name}");
        }
        let mut broker = Broker::new([&own].into_iter(), true);
        assert!(open(&mut broker, wanted(RootId::Host, libc, None)));
        assert!(!open(
            &mut broker,
            wanted(RootId::Host, "/etc/passwd", None)
        ));
    }
}
