//! The house holds: which crate may use which, and that rooms within a crate do not use each other in circles.
//!
//! ARCHITECTURE.md names the invariants; what the compiler can't hold of them is held here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The crates that each of ours may use; none uses the agent.
const MAY_USE: [(&str, &[&str]); 8] = [
    ("crates/wire", &[]),
    ("crates/model", &["wire"]),
    ("crates/sites", &["teracron-common"]),
    ("crates/image", &["model", "sites", "teracron-common"]),
    (
        "crates/planner",
        &["image", "model", "sites", "teracron-common", "wire"],
    ),
    ("crates/sys", &[]),
    (
        "crates/tracer",
        &[
            "image",
            "model",
            "planner",
            "sites",
            "sys",
            "teracron-common",
            "wire",
        ],
    ),
    (
        "crates/pipeline",
        &["model", "sys", "teracron-common", "wire"],
    ),
];

/// What others make, and which of our crates must not link it.
const MUST_NOT_LINK: [(&str, &[&str]); 5] = [
    // No file, no process, no kernel.
    (
        "crates/sites",
        &[
            "procfs", "rustix", "libc", "aya", "object", "gimli", "tokio",
        ],
    ),
    // No process, no kernel, no network.
    ("crates/image", &["procfs", "aya", "tokio", "reqwest"]),
    (
        "crates/planner",
        &["procfs", "rustix", "aya", "tokio", "reqwest"],
    ),
    // No network.
    ("crates/tracer", &["tokio", "reqwest", "rustls", "hyper"]),
    // No kernel, no process.
    (
        "crates/pipeline",
        &["aya", "aya-obj", "procfs", "object", "gimli"],
    ),
];

/// Names in `[dependencies]`.
fn dependencies(of: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(of).join("Cargo.toml")).unwrap();
    let table: toml::Table = text.parse().unwrap();
    table["dependencies"]
        .as_table()
        .unwrap()
        .keys()
        .cloned()
        .collect()
}

#[test]
fn crates_use_what_is_below_them() {
    let ours: BTreeSet<&str> = MAY_USE
        .iter()
        .map(|(path, _)| path.trim_start_matches("crates/"))
        .chain(["teracron-common", "teracron-agent", "xtask"])
        .collect();
    for (of, allowed) in MAY_USE {
        let used: BTreeSet<String> = dependencies(of)
            .into_iter()
            .filter(|name| ours.contains(name.as_str()))
            .collect();
        for name in &used {
            assert!(allowed.contains(&name.as_str()), "{of} uses {name}");
        }
    }
    let all: BTreeSet<String> = fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| format!("crates/{}", entry.unwrap().file_name().to_str().unwrap()))
        .collect();
    let known: BTreeSet<String> = MAY_USE.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(all, known, "a crate that no rule is written for");
}

#[test]
fn crates_link_only_what_they_are_for() {
    for (of, banned) in MUST_NOT_LINK {
        let used = dependencies(of);
        for name in banned {
            assert!(!used.contains(*name), "{of} uses {name}");
        }
    }
    for name in dependencies("xtask") {
        assert!(
            !root().join("crates").join(&name).exists() && !name.starts_with("teracron"),
            "xtask uses {name}: what builds the house must not need it"
        );
    }
}

#[test]
fn one_crate_knows_instructions() {
    for of in MAY_USE
        .map(|(path, _)| path)
        .into_iter()
        .chain(["teracron-agent", "xtask"])
    {
        let decodes = dependencies(of).contains("iced-x86");
        assert_eq!(decodes, of == "crates/sites", "{of}");
    }
    // And there one folder; what else is there is the same for every architecture.
    let folder = root().join("crates/sites/src");
    let mut all = Vec::new();
    sources(&folder, &mut all);
    for (path, code) in all {
        let inside = path.strip_prefix(&folder).unwrap().starts_with("x86_64");
        assert!(inside || !code.contains("iced_x86"), "{}", path.display());
    }
}

#[test]
fn only_one_crate_has_unsafe_code() {
    for (of, _) in MAY_USE {
        let text = fs::read_to_string(root().join(of).join("src/lib.rs")).unwrap();
        let forbids = text.contains("#![forbid(unsafe_code)]");
        assert_eq!(forbids, of != "crates/sys", "{of}");
    }
    for file in ["lib.rs", "main.rs"] {
        let text = fs::read_to_string(root().join("teracron-agent/src").join(file)).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{file}");
    }
}

#[test]
fn what_nobody_outside_can_reach_is_not_public() {
    let lints = "\n[lints]\nworkspace = true";
    let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(text.contains("\nunreachable_pub = \"warn\""));
    for (of, _) in MAY_USE {
        let text = fs::read_to_string(root().join(of).join("Cargo.toml")).unwrap();
        assert!(text.contains(lints), "{of}");
    }
}

/// The sources of a folder, without what tests alone use.
fn sources(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let code: String = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect::<Vec<_>>()
                .join("\n");
            found.push((path, code));
        }
    }
}

/// Names in the eBPF object: what follows a word in its source.
fn in_object(file: &str, before: &str, attribute: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("teracron-ebpf/src").join(file)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    lines
        .windows(2)
        .filter(|two| two[0].starts_with(attribute))
        .filter_map(|two| {
            let name = two[1].strip_prefix(before)?;
            Some(name.split([':', '(']).next()?.to_owned())
        })
        .collect()
}

#[test]
fn the_object_is_known_by_name_in_two_files() {
    let mut programs = BTreeSet::new();
    for entry in fs::read_dir(root().join("teracron-ebpf/src")).unwrap() {
        let entry = entry.unwrap();
        // An architecture's folder has no programs.
        if entry.path().is_dir() {
            continue;
        }
        let file = entry.file_name();
        for attribute in ["#[uprobe", "#[uretprobe", "#[raw_tracepoint"] {
            programs.extend(in_object(file.to_str().unwrap(), "pub fn ", attribute));
        }
    }
    let maps = in_object("maps.rs", "pub static ", "#[map]");
    assert!(
        programs.len() > 20 && programs.contains("span_return") && maps.contains("SPANS"),
        "{programs:?} {maps:?}"
    );
    let mut all = Vec::new();
    for of in [
        "crates/planner/src",
        "crates/tracer/src",
        "teracron-agent/src",
    ] {
        sources(&root().join(of), &mut all);
    }
    for (names, knows) in [(&programs, "kernel/programs.rs"), (&maps, "kernel/maps.rs")] {
        for (path, code) in all.iter().filter(|(path, _)| !path.ends_with(knows)) {
            for name in names {
                let quoted = format!("\"{name}\"");
                assert!(!code.contains(&quoted), "{}: {quoted}", path.display());
            }
        }
    }
}

/// Rooms of this crate that a piece of code names: `crate::room` and `use crate::{room, ...}`.
fn named<'a>(code: &'a str, rooms: &BTreeSet<String>) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let word = |text: &'a str| {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
        &text[..end.unwrap_or(text.len())]
    };
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            found.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut begins = true;
        for (place, character) in list.char_indices() {
            match character {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                c if c.is_whitespace() => {}
                _ if begins => {
                    begins = false;
                    if depth == 0 {
                        found.insert(word(&list[place..]));
                    }
                }
                _ => {}
            }
        }
    }
    found.retain(|name| rooms.contains(*name));
    found
}

#[test]
fn rooms_do_not_use_each_other_in_circles() {
    let folders = MAY_USE
        .iter()
        .map(|(path, _)| *path)
        .chain(["teracron-agent"]);
    for of in folders {
        let folder = root().join(of).join("src");
        let mut all = Vec::new();
        sources(&folder, &mut all);
        let room_of = |path: &Path| {
            let inside = path.strip_prefix(&folder).unwrap();
            let first = inside.components().next().unwrap();
            let name = Path::new(first.as_os_str()).file_stem().unwrap();
            name.to_str().unwrap().to_owned()
        };
        let rooms: BTreeSet<String> = all.iter().map(|(path, _)| room_of(path)).collect();
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (path, code) in &all {
            let room = room_of(path);
            // They put the rooms together.
            if room == "lib" || room == "main" {
                continue;
            }
            let named = named(code, &rooms).into_iter().map(str::to_owned);
            let others: Vec<String> = named.filter(|name| *name != room).collect();
            uses.entry(room).or_default().extend(others);
        }
        // What uses nothing that is left is taken away, until nothing is left but circles.
        while let Some(room) = uses
            .iter()
            .find(|(_, others)| others.iter().all(|other| !uses.contains_key(other)))
            .map(|(room, _)| room.clone())
        {
            uses.remove(&room);
        }
        assert!(uses.is_empty(), "{of} has circles: {uses:?}");
    }
}

#[test]
fn the_reader_of_imports_reads() {
    let rooms = ["a", "b", "c", "d"].map(str::to_owned).into();
    let code = "use crate::a::X;\nuse crate::{\n    b::{Y, c},\n    d,\n};";
    assert_eq!(
        named(code, &rooms).into_iter().collect::<Vec<_>>(),
        ["a", "b", "d"]
    );
}

#[test]
fn registers_are_named_in_the_folder_of_an_architecture() {
    let mut all = Vec::new();
    for of in ["teracron-ebpf/src", "teracron-common/src"] {
        sources(&root().join(of), &mut all);
    }
    assert!(all.len() > 20);
    for (path, code) in all {
        let inside = path.iter().any(|part| part == "x86_64");
        let words = code.split(|it: char| !it.is_alphanumeric() && it != '_');
        let named = words
            .filter(|word| ["rsp", "rbp", "rdi", "rsi", "rax", "rbx", "rcx", "rdx"].contains(word));
        assert!(inside || named.count() == 0, "{}", path.display());
    }
}
