//! Who else is there: processes that run a file, and those that descend from others.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use procfs::process::{MMPermissions, Process as ProcProcess};
use teracron_common::config::FileId;

use super::{all_pids, executable_id, face};
use image::{FileKey, Image};

/// Ids of the processes whose main program is this file.
pub fn runs_file(image: &Image) -> Vec<u32> {
    let wanted = FileId::from_stat(image.key.dev, image.key.ino);
    all_pids()
        .into_iter()
        .filter(|pid| executable_id(*pid) == Some(wanted))
        .collect()
}

/// Ids of the processes that have one of these files mapped executable, as far as they are found until then.
pub fn maps_any(files: &[FileKey], until: Instant) -> Vec<u32> {
    let wanted: HashSet<(i32, i32, u64)> = files
        .iter()
        .map(|file| {
            let (major, minor) = (rustix::fs::major(file.dev), rustix::fs::minor(file.dev));
            (major as i32, minor as i32, file.ino)
        })
        .collect();
    let maps_one = |pid: &u32| {
        let maps = ProcProcess::new(face(*pid) as i32).and_then(|process| process.maps());
        maps.is_ok_and(|maps| {
            maps.iter().any(|map| {
                map.perms.contains(MMPermissions::EXECUTE)
                    && wanted.contains(&(map.dev.0, map.dev.1, map.inode))
            })
        })
    };
    all_pids()
        .into_iter()
        .take_while(|_| Instant::now() < until)
        .filter(maps_one)
        .collect()
}

/// Processes that descend from others, in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Family {
    /// They run the same program as what they descend from: workers of a server, back ends of a database.
    pub same_program: Vec<u32>,
    /// They run another program.
    pub others: Vec<u32>,
}

/// The living descendants of some processes, as far as `/proc` tells. A descendant whose parent has ended has another
/// parent by now and is not among them.
pub fn descendants(of: &[u32]) -> Family {
    if of.is_empty() {
        return Family::default();
    }
    let parents: HashMap<u32, u32> = all_pids()
        .into_iter()
        .filter_map(|pid| {
            let stat = ProcProcess::new(pid as i32).ok()?.stat().ok()?;
            Some((pid, stat.ppid as u32))
        })
        .collect();
    let mut family = Family::default();
    for pid in below(of, &parents) {
        let runs = executable_id(pid);
        let same = runs.is_some()
            && ancestors(pid, &parents)
                .any(|above| of.contains(&above) && executable_id(above) == runs);
        if same {
            family.same_program.push(pid);
        } else if runs.is_some() {
            family.others.push(pid);
        }
    }
    family
}

/// Everything that descends from `of`, without these, in ascending order.
fn below(of: &[u32], parents: &HashMap<u32, u32>) -> Vec<u32> {
    let named: HashSet<u32> = of.iter().copied().collect();
    let mut found: Vec<u32> = parents
        .keys()
        .copied()
        .filter(|pid| !named.contains(pid) && *pid != std::process::id())
        .filter(|pid| ancestors(*pid, parents).any(|above| named.contains(&above)))
        .collect();
    found.sort_unstable();
    found
}

/// A process's parent, its parent, and so on. Bounded: what was read of a living system may contradict itself.
fn ancestors(pid: u32, parents: &HashMap<u32, u32>) -> impl Iterator<Item = u32> + '_ {
    const MOST: usize = 1024;
    std::iter::successors(parents.get(&pid).copied(), |pid| parents.get(pid).copied()).take(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families() {
        let parents = HashMap::from([(2, 1), (3, 2), (4, 3), (5, 1), (6, 9), (9, 6)]);
        assert_eq!(below(&[2], &parents), [3, 4]);
        assert_eq!(below(&[2, 4], &parents), [3]);
        assert_eq!(below(&[5], &parents), [0u32; 0]);
        // Nonsense ends.
        assert_eq!(below(&[7], &parents), [0u32; 0]);
    }
}
