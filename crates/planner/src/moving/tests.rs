//! On programs that were compiled for it, and on those of this machine.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::*;
use image::Image;

fn of_file(path: &Path) -> Option<String> {
    let module = Image::open(path, true).ok()?;
    let elf = Elf::read(&module.file).ok()?;
    FileMoving::of(&module, &elf).whoever_starts_it(&module)
}

#[test]
fn code_that_maps_over_itself_is_recognised() {
    let folder = tempfile::tempdir().unwrap();
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../teracron-agent/tests/targets/moves.c");
    for flags in [
        &["-O0"][..],
        &["-O1"],
        &["-O2"],
        &["-O3", "-s"],
        &["-Os", "-s", "-no-pie"],
        &["-O2", "-static"],
        &["-O2", "-static-pie", "-s"],
    ] {
        for moves in [true, false] {
            let out = folder.path().join("moves");
            let status = Command::new("gcc")
                .args(flags)
                .args(moves.then_some("-DMOVES"))
                .arg("-o")
                .args([&out, &source])
                .status()
                .expect("gcc is needed");
            assert!(status.success());
            let reason = of_file(&out);
            assert_eq!(
                reason
                    .as_deref()
                    .is_some_and(|reason| reason.contains("system call of its own")),
                moves,
                "{flags:?}: {reason:?}"
            );
        }
    }
}

#[test]
fn functions_that_say_so_are_recognised() {
    let folder = tempfile::tempdir().unwrap();
    for (name, function, wanted) in [
        (
            "shop",
            "MapStaticCodeToLargePages",
            Some("MapStaticCodeToLargePages"),
        ),
        ("shop", "__bolt_hugify_start_program", Some("__bolt_hugify")),
        ("shop", "_ZN4shop12hugify_textEv", Some("hugify_text")),
        (
            "shop",
            "_ZN4node25MapStaticCodeToLargePagesEv",
            Some("--use-largepages"),
        ),
        ("hhvm", "main2", Some("HHVM")),
        ("php8.2", "main2", Some("opcache.huge_code_pages")),
        ("phpize", "main2", None),
        ("shop", "use_large_pages", None),
        ("nodeadm", "main2", None),
    ] {
        let source = folder.path().join("a.c");
        let code = format!("int {function}(void) {{ return 1; }} int main() {{ return 0; }}");
        std::fs::write(&source, code).unwrap();
        let out = folder.path().join(name);
        let status = Command::new("gcc").arg("-o").args([&out, &source]).status();
        assert!(status.unwrap().success());
        let reason = of_file(&out);
        match wanted {
            Some(words) => assert!(
                reason
                    .as_deref()
                    .is_some_and(|reason| reason.contains(words)),
                "{name} {function}: {reason:?}"
            ),
            None => assert_eq!(reason, None, "{name} {function}"),
        }
    }
}

/// Nothing on this machine does so without being asked, but for those that are known.
#[test]
fn programs_of_this_machine_are_left_alone() {
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in [
        "/usr/bin",
        "/usr/sbin",
        "/usr/local/bin",
        "/usr/lib/x86_64-linux-gnu",
    ] {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            files.extend(std::fs::canonicalize(entry.path()));
        }
    }
    files.extend(std::env::current_exe());
    files.sort();
    files.dedup();
    let (mut read, mut known) = (0, Vec::new());
    for path in files.iter().filter(|path| path.is_file()) {
        let Ok(module) = Image::open(path, true) else {
            continue;
        };
        let Ok(elf) = Elf::read(&module.file) else {
            continue;
        };
        read += 1;
        if let Some(reason) = FileMoving::of(&module, &elf).whoever_starts_it(&module) {
            known.push(format!("{}: {reason}", path.display()));
        }
    }
    println!("{read} files, recognised: {known:#?}");
    assert!(read > 100);
    known.retain(|reason| {
        ![
            "Node.js copies",
            "PHP copies",
            "HHVM copies",
            "ClickHouse copies",
        ]
        .iter()
        .any(|words| reason.contains(words))
    });
    assert!(known.is_empty(), "{known:#?}");
}
