//! What a program is: found from its binary, for the samples' `runtime_version`.

use std::{fs::File, path::Path};

use crate::process::{face, root_of};
use image::{
    foreign::{self, Budget},
    symbol::Layout,
};

/// Where nothing tells.
const UNKNOWN: &str = "native";
/// Bytes of a section that are searched.
const MAX_SECTION: u64 = 1 << 20;
/// Bytes of read-only data that are searched for an interpreter's version; the interpreter has 5 MiB of them.
const MAX_CONSTANTS: u64 = 64 << 20;
/// The Go tool's mark of build information (debug/buildinfo of the Go library).
const GO_MAGIC: &[u8] = b"\xff Go buildinf:";

/// The runtime or compiler of a running program: `go1.27.3`, `CPython 3.11.7`, `rustc 1.95.0`,
/// `gcc 12.2.0`, else `native`.
pub(crate) fn runtime_of(pid: u32) -> String {
    let pid = face(pid);
    let exe = format!("/proc/{pid}/exe");
    let name = std::fs::read_link(&exe).unwrap_or_default();
    // Python first: its binary was made by a C compiler too.
    cpython(pid, &name)
        .or_else(|| of_file(&foreign::open(Path::new(&exe)).ok()?))
        .unwrap_or_else(|| UNKNOWN.to_owned())
}

/// Of a program's file.
fn of_file(file: &File) -> Option<String> {
    let budget = Budget::default();
    let layout = Layout::read(file, &budget).ok()?;
    let section = |name: &str| layout.beginning(layout.section(name)?, MAX_SECTION).ok();
    if let Some(version) = section(".go.buildinfo").as_deref().and_then(go) {
        return Some(version);
    }
    comment(&section(".comment")?)
}

/// Build information with inline strings: magic, pointer size, flags, padding to 32 bytes, then the
/// version with its length.
fn go(section: &[u8]) -> Option<String> {
    let at = section
        .windows(GO_MAGIC.len())
        .position(|window| window == GO_MAGIC)?;
    let info = section.get(at..)?;
    let inline = info.get(15)? & 2 != 0;
    let length = usize::from(*info.get(32)?);
    if !inline || length >= 128 {
        return Some("go".to_owned());
    }
    let version = std::str::from_utf8(info.get(33..33 + length)?).ok()?;
    is_plain(version).then(|| version.split(' ').next().unwrap_or(version).to_owned())
}

/// The compilers' notes: NUL-terminated strings.
fn comment(section: &[u8]) -> Option<String> {
    let notes: Vec<&str> = section
        .split(|byte| *byte == 0)
        .filter_map(|note| std::str::from_utf8(note).ok())
        .filter(|note| is_plain(note))
        .collect();
    let last_word = |note: &&str| note.rsplit(' ').next().map(str::to_owned);
    // A Rust program carries the C compiler's note as well.
    let rust = notes.iter().find_map(|note| {
        let rest = note.strip_prefix("rustc version ")?;
        Some(format!("rustc {}", rest.split(' ').next()?))
    });
    let clang = notes.iter().find_map(|note| {
        let (_, rest) = note.split_once("clang version ")?;
        Some(format!("clang {}", rest.split(' ').next()?))
    });
    let gcc = notes
        .iter()
        .find(|note| note.starts_with("GCC: ("))
        .and_then(last_word)
        .map(|version| format!("gcc {version}"));
    rust.or(clang).or(gcc)
}

/// A Python interpreter: its version is in the name of the standard library that it has open, or in
/// the interpreter's own name; the patch number in its binary or library.
fn cpython(pid: u32, exe: &Path) -> Option<String> {
    let name = exe.file_name()?.to_str()?;
    if !name.starts_with("python") {
        return None;
    }
    let minor = name
        .strip_prefix("python")
        .filter(|rest| rest.contains('.'));
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let library = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .find(|path| {
            path.rsplit('/')
                .next()
                .is_some_and(|name| name.starts_with("libpython3."))
        });
    // The version string stands in read-only data of whatever holds the interpreter.
    let file = match library {
        // The process chose what lies there.
        Some(path) => root_of(pid).and_then(|root| root.open(Path::new(path))),
        None => foreign::open(Path::new(&format!("/proc/{pid}/exe"))),
    };
    let patch = file.ok().and_then(|file| python_version(&file, minor));
    match (patch, minor) {
        (Some(version), _) => Some(format!("CPython {version}")),
        (None, Some(minor)) => Some(format!("CPython {minor}")),
        (None, None) => Some("CPython".to_owned()),
    }
}

/// The text `3.11.7` followed by NUL or a space in `.rodata`, of the wanted minor version.
fn python_version(file: &File, minor: Option<&str>) -> Option<String> {
    let budget = Budget::default();
    let layout = Layout::read(file, &budget).ok()?;
    let data = layout
        .beginning(layout.section(".rodata")?, MAX_CONSTANTS)
        .ok()?;
    data.split(|byte| *byte == 0)
        .filter(|text| (5..=16).contains(&text.len()) && text.starts_with(b"3."))
        .filter_map(|text| std::str::from_utf8(text).ok())
        .find(|text| {
            let parts: Vec<&str> = text.split('.').collect();
            let plain = parts.len() == 3
                && parts.iter().all(|part| {
                    !part.is_empty()
                        && part
                            .bytes()
                            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'+')
                })
                && parts[1].bytes().all(|byte| byte.is_ascii_digit());
            plain && minor.is_none_or(|minor| text.starts_with(&format!("{minor}.")))
        })
        .map(str::to_owned)
}

/// Short and printable: it goes on the wire.
fn is_plain(text: &str) -> bool {
    text.len() < 200 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn compilers_are_named() {
        let true_ = of_file(&File::open("/bin/true").unwrap());
        assert!(true_.is_none_or(|name| name.starts_with("gcc ")));
        let own = of_file(&File::open("/proc/self/exe").unwrap()).unwrap();
        assert!(own.starts_with("rustc 1."), "{own}");
        assert_eq!(
            comment(b"GCC: (Debian 12.2.0-14) 12.2.0\0").as_deref(),
            Some("gcc 12.2.0")
        );
        assert_eq!(
            comment(b"Debian clang version 14.0.6\0").as_deref(),
            Some("clang 14.0.6")
        );
        let mut info = GO_MAGIC.to_vec();
        info.resize(33, 0);
        info[15] = 2;
        info[32] = 8;
        info.extend_from_slice(b"go1.27.3");
        assert_eq!(go(&info).as_deref(), Some("go1.27.3"));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut info = GO_MAGIC.to_vec();
            info.extend_from_slice(&bytes);
            let _ = (go(&bytes), go(&info), comment(&bytes));
        }
    }
}
