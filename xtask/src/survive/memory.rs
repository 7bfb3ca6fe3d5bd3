//! Whether a process's code is what its files say.

use std::{collections::BTreeMap, fs, fs::File, os::unix::fs::FileExt as _, path::Path};

use crate::shell::Result;

/// A piece of a file that a process has mapped as executable.
pub(super) struct Mapping {
    pub start: u64,
    pub end: u64,
    pub offset: u64,
    pub path: String,
}

/// The executable mappings of files, as `/proc/PID/maps` lists them.
pub(super) fn executable(pid: u32) -> Result<Vec<Mapping>> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps"))
        .map_err(|error| format!("the maps of process {pid}: {error}"))?;
    Ok(text.lines().filter_map(parse).collect())
}

fn parse(line: &str) -> Option<Mapping> {
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let rights = words.next()?;
    let offset = words.next()?;
    let path = words.nth(2)?.trim();
    if !rights.contains('x') || !path.starts_with('/') || path.ends_with(" (deleted)") {
        return None;
    }
    let hex = |text| u64::from_str_radix(text, 16).ok();
    Some(Mapping {
        start: hex(start)?,
        end: hex(end)?,
        offset: hex(offset)?,
        path: path.to_owned(),
    })
}

/// Bytes of a process's code that differ from its files, by file.
pub(super) fn differing(pid: u32) -> Result<BTreeMap<String, u64>> {
    let memory = File::open(format!("/proc/{pid}/mem"))
        .map_err(|error| format!("the memory of process {pid}: {error}"))?;
    let mut found = BTreeMap::new();
    let (mut ours, mut theirs) = (vec![0; 1 << 18], vec![0; 1 << 18]);
    for mapping in executable(pid)? {
        let Ok(file) = File::open(&mapping.path) else {
            continue;
        };
        let mut at = 0;
        while at < mapping.end - mapping.start {
            let most = (mapping.end - mapping.start - at).min(ours.len() as u64) as usize;
            let length = file
                .read_at(&mut ours[..most], mapping.offset + at)
                .map_err(|error| format!("{}: {error}", mapping.path))?;
            if length == 0 {
                break;
            }
            // A mapping that went away meanwhile (a library that was unloaded) proves nothing.
            if memory
                .read_exact_at(&mut theirs[..length], mapping.start + at)
                .is_err()
            {
                break;
            }
            if ours[..length] != theirs[..length] {
                let bytes = ours[..length].iter().zip(&theirs[..length]);
                *found.entry(mapping.path.clone()).or_default() +=
                    bytes.filter(|(a, b)| a != b).count() as u64;
            }
            at += length as u64;
        }
    }
    Ok(found)
}

/// The sum of what differs, and where, for people.
pub(super) fn show(found: &BTreeMap<String, u64>) -> String {
    let parts: Vec<String> = found
        .iter()
        .map(|(path, bytes)| {
            let name = Path::new(path).file_name().unwrap_or_default();
            format!("{bytes} in {}", name.to_string_lossy())
        })
        .collect();
    parts.join(", ")
}

/// Whether somebody else's agent runs on this machine: what it changes is not ours.
pub(super) fn another_agent() -> bool {
    let ours = super::process::descendants(std::process::id());
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| {
            let pid = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok());
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            pid.is_some_and(|pid| !ours.contains(&pid)) && name.trim() == "teracron-agent"
        })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn only_code_of_files_is_compared() {
        let mapping = parse("55d0-55e0 r-xp 00001000 fe:00 77   /usr/bin/a b").unwrap();
        assert_eq!((mapping.start, mapping.offset), (0x55d0, 0x1000));
        assert_eq!(mapping.path, "/usr/bin/a b");
        for line in [
            "55d0-55e0 r--p 00001000 fe:00 77   /usr/bin/a",
            "55d0-55e0 r-xp 00000000 00:00 0 ",
            "55d0-55e0 r-xp 00000000 00:00 0    [vdso]",
            "55d0-55e0 r-xp 00000000 fe:00 77   /usr/bin/a (deleted)",
            "",
        ] {
            assert!(parse(line).is_none(), "{line}");
        }
    }
}
