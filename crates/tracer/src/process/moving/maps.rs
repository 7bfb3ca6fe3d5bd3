//! What a process has mapped where its text should be.

use std::collections::HashMap;

use procfs::process::{MMPermissions, MMapPath, MemoryMap, Process as ProcProcess};

use crate::process::{Module, face};
use image::{FileKey, symbol::Segment};
use model::text;
use planner::moving::FileMoving;

const PAGE: u64 = 4096;

/// Whether the main program's code lies elsewhere than in its file: a sentence that says so.
pub(super) fn main_is_moved(
    pid: u32,
    modules: &[Module],
    files: &HashMap<FileKey, FileMoving>,
) -> Option<String> {
    let maps = read(pid)?;
    let Some(main) = modules.iter().find(|module| module.is_main) else {
        // What is executable of it has gone altogether; a process that can't be asked is not told of.
        let file = std::fs::metadata(format!("/proc/{}/exe", face(pid))).ok()?;
        let inode = std::os::unix::fs::MetadataExt::ino(&file);
        let rest = maps.iter().any(|map| map.inode == inode);
        return rest.then(|| "the program's code is not mapped from its file".to_owned());
    };
    let ranges = text_ranges(main, &files.get(&main.key)?.text);
    moved(&maps, main, &ranges)
}

/// Whether text of these modules that lay in its file does not any more: a sentence that says so. Cheap: one
/// reading of the process's maps. A library that was unloaded is not told of.
pub fn text_was_moved(pid: u32, modules: &[Module]) -> Option<String> {
    let maps = read(pid)?;
    modules.iter().find_map(|module| {
        let ranges: Vec<(u64, u64)> = module
            .mappings
            .iter()
            .map(|(start, end, _)| (*start, *end))
            .collect();
        moved(&maps, module, &ranges)
    })
}

fn read(pid: u32) -> Option<Vec<MemoryMap>> {
    let process = ProcProcess::new(i32::try_from(face(pid)).ok()?).ok()?;
    Some(process.maps().ok()?.into_iter().collect())
}

fn moved(maps: &[MemoryMap], module: &Module, ranges: &[(u64, u64)]) -> Option<String> {
    // What was unloaded has left nothing; others may have taken its place.
    let is_there = module.is_main || maps.iter().any(|map| is_of(map, module));
    if !is_there {
        return None;
    }
    let (start, end) = ranges.iter().find_map(|(start, end)| {
        let here = maps.iter().find(|map| {
            map.address.0 < *end && *start < map.address.1 && is_foreign(map, module)
        })?;
        Some((here.address.0.max(*start), here.address.1.min(*end)))
    })?;
    Some(format!(
        "the code of {} at {start:#x} to {end:#x} is not mapped from its file any more",
        text::shown(module.name())
    ))
}

/// Code that is not this file's, and no other program file's either.
fn is_foreign(map: &MemoryMap, module: &Module) -> bool {
    map.perms.contains(MMPermissions::EXECUTE)
        && match &map.pathname {
            MMapPath::Path(path) => {
                let path = path.to_string_lossy();
                !is_of(map, module)
                    && (module.is_main
                        // How huge pages and memory without a name of its own are shown.
                        || path.starts_with("/anon_hugepage")
                        || path.starts_with("/memfd:")
                        || path.contains("libhugetlbfs.tmp"))
            }
            MMapPath::Vdso | MMapPath::Vsyscall | MMapPath::Vvar => false,
            _ => true,
        }
}

/// Whether a mapping is of the module's file. The inode's number may be another's on an overlay of old kernels.
fn is_of(map: &MemoryMap, module: &Module) -> bool {
    let MMapPath::Path(path) = &map.pathname else {
        return false;
    };
    let plain = |path: &str| path.trim_end_matches(" (deleted)").to_owned();
    map.inode == module.key.ino || plain(&path.to_string_lossy()) == plain(&module.path)
}

/// Where a module's code should lie: its executable segments, beside those that are mapped.
fn text_ranges(module: &Module, text: &[Segment]) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    let bias = module.mappings.iter().find_map(|(start, _, offset)| {
        let segment = text.iter().find(|segment| {
            (segment.offset & !(PAGE - 1)..segment.offset.saturating_add(segment.file_size))
                .contains(offset)
        })?;
        // Address of the mapping's first byte, were the file mapped at 0.
        let linked = segment
            .address
            .wrapping_sub(segment.offset)
            .wrapping_add(*offset);
        Some(start.wrapping_sub(linked))
    });
    let Some(bias) = bias else {
        return ranges;
    };
    for segment in text {
        let start = bias.wrapping_add(segment.address);
        // Whole pages of it: what is left in the last one may be somebody else's.
        ranges.push((start, start.saturating_add(segment.file_size)));
    }
    ranges
}
