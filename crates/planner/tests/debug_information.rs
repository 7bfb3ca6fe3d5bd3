//! Debug information as a compiler writes it, and as nobody should.

use std::{fs::File, io::Write as _, path::PathBuf, process::Command, sync::LazyLock};

use proptest::prelude::*;

use image::{
    DebugFiles, Image,
    debug::{DebugInfo, Lines, frame_rows},
    symbol::{Elf, Language},
};
use planner::{
    capture::{Certainty, Request, Subject, at_entry, at_exit},
    probe_spec::ProbeSpec,
};
use sites::Prologue;
use teracron_common::ProbeId;

const SOURCE: &str = "
struct inner { int id; const char *name; char code[8]; };
struct outer { long n; struct inner *inner; enum { RED, GREEN = 5 } color; double price; struct outer *next; };
typedef const struct outer outer_t;
int charge(outer_t *outer, long amount, const char *note, float ratio) {
    return outer->color + amount + (note != 0) + (int)ratio;
}
struct inner make(int k) { struct inner inner = { k }; return inner; }
";

/// Compiled once.
static OBJECT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let (source, out): (PathBuf, PathBuf) = (folder.path().join("a.c"), folder.path().join("a.so"));
    std::fs::write(&source, SOURCE).unwrap();
    let status = Command::new("gcc")
        .args(["-g", "-O1", "-shared", "-fPIC", "-o"])
        .args([&out, &source])
        .status()
        .expect("gcc is needed");
    assert!(status.success());
    std::fs::read(out).unwrap()
});

fn file_with(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// Asks for everything that there is to ask for, and answers what can't be read.
fn everything(bytes: &[u8]) -> Option<Vec<String>> {
    everything_in(bytes, None)
}

/// The same with parts in other files.
fn everything_in(bytes: &[u8], files: Option<DebugFiles>) -> Option<Vec<String>> {
    let file = file_with(bytes);
    let elf = Elf::read(&file).ok()?;
    let debug = DebugInfo::open(&file, files).ok()??;
    let mut problems = Vec::new();
    for (name, spec) in [
        (
            "charge",
            "p:charge@m(outer.n, outer->inner->name, outer.inner.code, outer.color, outer.price, outer.next.next.n, amount, note, ratio, ret) fails ret < 0",
        ),
        ("make", "p:make@m(k, ret.id, ret.code)"),
    ] {
        let Some(symbol) = elf.symbol(name) else {
            continue;
        };
        let _ = debug.inlined_places(symbol.address);
        let Ok(Some(function)) = debug.function(symbol.address) else {
            continue;
        };
        let spec: ProbeSpec = spec.parse().unwrap();
        let request = Request {
            captures: spec.captures,
            fails: spec.fails,
        };
        let prologue = Prologue::default();
        for language in [Language::C, Language::Cpp, Language::Rust, Language::Go] {
            let subject = Subject {
                language,
                info: Ok(&function),
                prologue: &prologue,
                certainty: Certainty::Whole,
                address: symbol.address,
                reads: None,
                errno: false,
                future: None,
            };
            let mut found = Vec::new();
            at_entry(
                &request,
                &subject,
                symbol.address,
                true,
                ProbeId(0),
                &mut found,
            );
            at_exit(&request, &subject, ProbeId(0), &mut found);
            if language == Language::C {
                problems.extend(found.iter().map(ToString::to_string));
            }
        }
        let _ = frame_rows(&file, symbol.address);
    }
    let lines = Lines {
        file: "a.c",
        first: 1,
        last: None,
    };
    let near = elf.symbol("charge").map(|symbol| symbol.address);
    let _ = (debug.lines(&lines, None), debug.lines(&lines, near));
    let _ = debug.inlined_functions(|_| true);
    let _ = debug.go_error_texts(&[("inner".to_owned(), None)].into(), 0x1000);
    Some(problems)
}

#[test]
fn what_a_compiler_writes_is_understood() {
    assert_eq!(
        everything(&OBJECT).unwrap(),
        ["ratio can't be read: it is in a vector register, which is not read"]
    );
}

/// A program with its debug information in a file of its own and its types in units of theirs, and that file.
static SPLIT: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("a.c");
    let out = folder.path().join("a.o");
    std::fs::write(&source, SOURCE).unwrap();
    let status = Command::new("gcc")
        .current_dir(&folder)
        .args([
            "-g",
            "-O1",
            "-fPIC",
            "-gsplit-dwarf",
            "-fdebug-types-section",
        ])
        .args(["-c", "-o", "a.o", "a.c"])
        .status()
        .expect("gcc is needed");
    assert!(status.success());
    let linked = folder.path().join("a.so");
    let status = Command::new("gcc")
        .args(["-shared", "-o"])
        .args([&linked, &out])
        .status()
        .expect("gcc is needed");
    assert!(status.success());
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    (read("a.so"), read("a.dwo"))
});

/// Asks for everything in [`SPLIT`], with another file for the debug information.
fn everything_split(dwo: &[u8]) -> Option<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.dwo"), dwo).unwrap();
    let linked = folder.path().join("a.so");
    std::fs::write(&linked, &SPLIT.0).unwrap();
    let files = DebugFiles::of(&Image::open(&linked, true).unwrap());
    everything_in(&SPLIT.0, Some(files))
}

#[test]
fn what_a_compiler_puts_apart_is_understood() {
    assert_eq!(
        everything_split(&SPLIT.1).unwrap(),
        ["ratio can't be read: it is in a vector register, which is not read"]
    );
}

/// Where the debug sections lie in the file.
fn debug_bytes() -> std::ops::Range<usize> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&OBJECT).unwrap();
    let budget = image::foreign::Budget::default();
    let ranges: Vec<(u64, u64)> = image::symbol::Layout::read(&file, &budget)
        .unwrap()
        .sections
        .iter()
        .filter(|section| section.name.starts_with(b".debug_"))
        .filter_map(image::symbol::SectionHeader::file_range)
        .collect();
    let start = ranges.iter().map(|(start, _)| *start).min().unwrap();
    let end = ranges
        .iter()
        .map(|(start, size)| start + size)
        .max()
        .unwrap();
    start as usize..end as usize
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn damage_is_no_danger(places in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..30)) {
        let mut bytes = OBJECT.clone();
        let range = debug_bytes();
        for (place, byte) in places {
            let place = range.start + place % range.len();
            bytes[place] = byte;
        }
        let _ = everything(&bytes);
    }

    #[test]
    fn nor_is_damage_in_other_files(places in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..30), cut in 0usize..40_000) {
        let mut bytes = SPLIT.1.clone();
        let len = bytes.len();
        for (place, byte) in places {
            bytes[place % len] = byte;
        }
        bytes.truncate(len - (cut % len) / 8);
        let _ = everything_split(&bytes);
    }

    #[test]
    fn nor_are_files_cut_short(cut in 0usize..100_000) {
        let _ = everything(&OBJECT[..OBJECT.len() - cut % OBJECT.len()]);
    }
}
