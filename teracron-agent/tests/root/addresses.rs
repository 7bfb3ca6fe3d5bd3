//! An address proves itself: whoever names it, a breakpoint is set only where the probed file itself has a function,
//! and only at its instructions.

use std::{
    collections::HashSet,
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::*;
use image::{
    Image,
    symbol::{Elf, Origin, Starts, Symbol, SymbolKind},
};
use planner::{
    find::Functions,
    probe::{find_unwinder_sites, plan_each},
};
use sites::{ExitPlan, KernelRules};

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn read(path: &Path) -> (Elf, File) {
    let file = File::open(path).unwrap();
    (Elf::read(&file).unwrap(), file)
}

/// A copy without symbols.
fn stripped(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap().to_str().unwrap();
    let out = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("{name}-{}-stripped", std::process::id()));
    run(Command::new("strip")
        .arg("-s")
        .arg("-o")
        .args([&out])
        .arg(path));
    out
}

fn place_of(bytes: &[u8], wanted: &[u8]) -> usize {
    let found = bytes.windows(wanted.len()).position(|part| part == wanted);
    found.unwrap_or_else(|| panic!("{wanted:x?} is not there"))
}

/// A library without symbols of its own, what it was before, and an address in the middle of an instruction of its.
fn library() -> (PathBuf, PathBuf, u64) {
    let unstripped = compile("shared_a.c", &["-O2", "-shared", "-fPIC"]);
    let (elf, _) = read(&unstripped);
    let bytes = std::fs::read(&unstripped).unwrap();
    let offset = place_of(&bytes, &[0x55, 0x90, 0x90, 0x90, 0x90, 0x90, 0x5d, 0xc3]);
    let middle = elf.address_of_offset(offset as u64).unwrap();
    (stripped(&unstripped), unstripped, middle)
}

fn symbol(name: &str, address: u64, size: u64) -> Symbol {
    Symbol {
        name: name.to_owned(),
        version: None,
        address,
        size,
        kind: SymbolKind::Function,
        is_local: false,
        // What a file says of itself does not matter where it is another's.
        origin: Origin::Exported,
    }
}

/// S15: symbols of a debug file that point into the middle of instructions.
#[test]
fn a_debug_file_only_names() {
    let (path, unstripped, middle) = library();
    let (mut elf, file) = read(&path);
    let inner = read(&unstripped).0.symbol("inner").unwrap().clone();
    elf.add_symbols(vec![
        symbol("fn_shared", middle, 8),
        symbol("off", inner.address + 1, inner.size),
        symbol("everything", 1, 1 << 40),
        symbol("inner", inner.address, 1 << 30),
    ]);
    let module = Image::open(&path, true).unwrap();
    let all = planner::probe_spec::FunctionPattern::Glob("*".to_owned());
    let functions = Functions::of(&elf).matching(&all);
    let plans = plan_each(
        KernelRules::of(6, 18),
        &module,
        &elf,
        &functions,
        &Err(String::new()),
    );
    let reason = |name: &str| -> String {
        let place = functions.iter().position(|function| function.plain == name);
        let plan = &plans[place.unwrap_or_else(|| panic!("{name} is not there"))];
        plan.clone().err().unwrap_or_default()
    };
    assert!(
        reason("fn_shared").contains("inside of a function"),
        "{}",
        reason("fn_shared")
    );
    assert!(
        reason("off").contains("inside of a function"),
        "{}",
        reason("off")
    );
    assert!(
        reason("everything").contains("no code"),
        "{}",
        reason("everything")
    );
    // What it names rightly is probed, as far as the file's unwind table reaches.
    assert_eq!(reason("inner"), "");
    assert_eq!(reason("outer"), "");
    let starts = Starts::of(&elf, &file);
    let confirmed = starts.confirm(inner.address, Origin::Foreign).unwrap();
    assert_eq!(confirmed.end(), inner.address + inner.size);
}

/// S15, as it is seen from outside: the program goes on, and what is refused is told.
#[test]
fn a_shifted_debug_file_harms_nobody() {
    let (path, unstripped, middle) = library();
    let folder = path.parent().unwrap();
    let debug = path.with_extension("debug");
    run(Command::new("objcopy")
        .arg("--only-keep-debug")
        .args([&unstripped, &debug]));
    // `inner` begins in the middle of an instruction, says its symbol.
    let inner = read(&unstripped).0.symbol("inner").unwrap().clone();
    let mut bytes = std::fs::read(&debug).unwrap();
    let value = [inner.address.to_le_bytes(), inner.size.to_le_bytes()].concat();
    let place = place_of(&bytes, &value);
    bytes[place..place + 8].copy_from_slice(&middle.to_le_bytes());
    bytes[place + 8..place + 16].copy_from_slice(&8u64.to_le_bytes());
    std::fs::write(&debug, bytes).unwrap();
    let mut link = std::ffi::OsString::from("--add-gnu-debuglink=");
    link.push(&debug);
    run(Command::new("objcopy").arg(link).arg(&path));
    let program = compile_with(
        "uses_shared.c",
        &["-O2"],
        &[
            path.to_str().unwrap(),
            &format!("-Wl,-rpath,{}", folder.display()),
        ],
    );
    let name = path.file_name().unwrap().to_str().unwrap();
    let probe = |function: &str| format!("test:{function}@{name}");
    let mut target = Target::start(&program, &[]);
    let agent = Agent::start(
        target.pid,
        &["--probe", &probe("outer"), "--probe", &probe("inn*")],
    );
    target.go();
    let log = target.log();
    assert!(target.finish().success());
    assert_eq!(log, ["0 wrong"]);
    let report = agent.finish();
    assert!(
        report.said.contains("not probed, because"),
        "{}",
        report.said
    );
    assert!(
        report.said.contains("inside of a function"),
        "{}",
        report.said
    );
    assert!(report.spans.iter().all(|span| span.operation == "outer"));
    assert_eq!(report.spans.len(), 1000);
    report.assert_nothing_lost();
}

/// S15b: what the agent probes of its own accord is not looked up in a debug file.
#[test]
fn a_debug_file_names_no_unwinder() {
    let (path, _, middle) = library();
    let (mut elf, _) = read(&path);
    let outer = elf.symbol("outer").unwrap().clone();
    let names = [
        "longjmp",
        "_longjmp",
        "siglongjmp",
        "__libc_siglongjmp",
        "_dl_debug_state",
        "_Unwind_SetIP",
        "_Unwind_RaiseException",
        "_Unwind_Resume",
        "__cxa_begin_catch",
    ];
    let mut symbols: Vec<Symbol> = names.iter().map(|name| symbol(name, middle, 8)).collect();
    // Also where it is a function: another name for it is not its own.
    symbols.extend(
        names
            .iter()
            .map(|name| symbol(name, outer.address, outer.size)),
    );
    symbols.push(symbol("zz", 1, 1 << 40));
    elf.add_symbols(symbols);
    let module = Image::open(&path, true).unwrap();
    let found = find_unwinder_sites(&module, &elf, KernelRules::of(6, 18));
    assert!(found.is_none(), "{found:?}");
    // The C library's own are found.
    let libc = Path::new("/lib/x86_64-linux-gnu/libc.so.6");
    let found = find_unwinder_sites(
        &Image::open(libc, false).unwrap(),
        &read(libc).0,
        KernelRules::of(6, 18),
    );
    assert!(!found.unwrap().sites.is_empty());
}

#[test]
fn data_between_instructions_has_no_site() {
    let library = compile("data_in_code.s", &["-shared", "-x", "assembler"]);
    let (elf, _) = read(&library);
    let module = Image::open(&library, true).unwrap();
    let all = planner::probe_spec::FunctionPattern::Glob("*_data".to_owned());
    let functions = Functions::of(&elf).matching(&all);
    assert_eq!(functions.len(), 2);
    let plans = plan_each(
        KernelRules::of(6, 18),
        &module,
        &elf,
        &functions,
        &Err(String::new()),
    );
    for (function, plan) in functions.iter().zip(plans) {
        if function.plain == "reads_data" {
            assert!(plan.unwrap_err().contains("data in its code"));
            continue;
        }
        let ExitPlan::Sites(exits) = plan.unwrap().exit else {
            panic!("a return probe");
        };
        let exits: Vec<u64> = exits
            .iter()
            .map(|exit| exit.address - function.address)
            .collect();
        assert_eq!(exits, [2], "only the `ret` that is passed");
    }
}

/// Functions that compilers put into programs without an entry in the unwind table.
const NOT_DESCRIBED: &[&str] = &[
    "_init",
    "_fini",
    "_start",
    "deregister_tm_clones",
    "register_tm_clones",
    "frame_dummy",
    "__do_global_dtors_aux",
];

/// What became of the symbols of a program.
#[derive(Debug, Default)]
struct Count {
    tried: usize,
    refused: usize,
    right: usize,
    wrongly_refused: Vec<String>,
    accepted: Vec<String>,
}

/// A number that looks like any, always the same for the same.
fn mixed(number: u64) -> u64 {
    let mixed = (number ^ (number >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

/// Symbols of a program that are tried at most.
const MAX_TRIED: usize = 20_000;

/// Names every function of the twin in the stripped file, at its place and at another.
fn foreign(twin: &Path, count: &mut Count) {
    let path = stripped(twin);
    let (elf, file) = read(&path);
    let (truth, _) = read(twin);
    let starts = Starts::of(&elf, &file);
    let known: HashSet<u64> = truth.symbols.iter().map(|symbol| symbol.address).collect();
    let step = truth.symbols.len().div_ceil(MAX_TRIED).max(1);
    for symbol in truth.symbols.iter().step_by(step) {
        if symbol.origin != Origin::Own || symbol.size == 0 {
            continue;
        }
        count.right += 1;
        if let Err(error) = starts.confirm(symbol.address, Origin::Foreign)
            && !NOT_DESCRIBED.contains(&symbol.name.as_str())
        {
            count
                .wrongly_refused
                .push(format!("{}: {}: {error}", twin.display(), symbol.name));
        }
        let shifted = symbol.address + 1 + mixed(symbol.address) % 0x200;
        if known.contains(&shifted) {
            continue;
        }
        count.tried += 1;
        match starts.confirm(shifted, Origin::Foreign) {
            Ok(_) => count
                .accepted
                .push(format!("{}: {shifted:#x}", twin.display())),
            Err(_) => count.refused += 1,
        }
    }
    std::fs::remove_file(path).unwrap();
}

/// Shifts every function of a stripped Go program's table, one at a time.
fn go_table(twin: &Path, count: &mut Count) {
    let path = stripped(twin);
    let (elf, file) = read(&path);
    assert_eq!(elf.go_table_problem, None, "{}", twin.display());
    let (truth, _) = read(twin);
    let known: HashSet<u64> = truth.symbols.iter().map(|symbol| symbol.address).collect();
    let table: Vec<Symbol> = elf
        .symbols
        .iter()
        .filter(|symbol| symbol.origin == Origin::GoTable)
        .cloned()
        .collect();
    assert!(table.len() > 1000, "{}: {}", twin.display(), table.len());
    let starts = Starts::of(&elf, &file);
    let step = table.len().div_ceil(MAX_TRIED / 10).max(1);
    for place in (8..table.len().saturating_sub(40)).step_by(step) {
        let symbol = &table[place];
        assert!(
            known.contains(&symbol.address),
            "{}: {symbol:?}",
            twin.display()
        );
        count.right += 1;
        // Its code is a signature: bytes that are no instructions.
        let is_signature = symbol.name.contains("boring/sig.");
        if let Err(error) = starts.confirm(symbol.address, Origin::GoTable)
            && !is_signature
        {
            count
                .wrongly_refused
                .push(format!("{}: {}: {error}", twin.display(), symbol.name));
        }
        let shifted = symbol.address + 1 + mixed(symbol.address) % 0x200;
        if known.contains(&shifted) {
            continue;
        }
        let mut near = table[place - 8..place + 40].to_vec();
        near[8].address = shifted;
        near.sort_by_key(|symbol| symbol.address);
        let ends: Vec<u64> = near.iter().skip(1).map(|symbol| symbol.address).collect();
        for (symbol, end) in near.iter_mut().zip(ends) {
            symbol.size = end - symbol.address;
        }
        let wrong = Elf {
            segments: elf.segments.clone(),
            unwind: elf.unwind,
            symbols: near,
            ..Elf::default()
        };
        count.tried += 1;
        match Starts::of(&wrong, &file).confirm(shifted, Origin::GoTable) {
            Ok(_) => count
                .accepted
                .push(format!("{}: {shifted:#x}", twin.display())),
            Err(_) => count.refused += 1,
        }
    }
    // All at once: where the code begins is wrong.
    let first = table[0].address;
    let bytes = std::fs::read(&path).unwrap();
    for distance in [0x20u64, 0x40, 0x100, 0x200, 0x1000] {
        let mut wrong = bytes.clone();
        let mut found = 0;
        let word = |bytes: &[u8], place: usize| {
            u64::from_le_bytes(bytes[place..place + 8].try_into().unwrap())
        };
        for place in (0..bytes.len() - 32).step_by(8) {
            let is_here = word(&bytes, place) == first;
            if is_here {
                wrong[place..place + 8].copy_from_slice(&(first + distance).to_le_bytes());
                found += 1;
            }
        }
        assert!(found > 0, "{}", twin.display());
        std::fs::write(&path, wrong).unwrap();
        let (elf, _) = read(&path);
        assert!(
            elf.go_table_problem.is_some(),
            "{} moved by {distance:#x} is believed",
            twin.display()
        );
        assert!(
            elf.symbols
                .iter()
                .all(|symbol| symbol.origin != Origin::GoTable)
        );
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn shifted_symbols_are_refused_and_right_ones_are_not() {
    let mut twins: Vec<PathBuf> = Vec::new();
    for source in ["calls.c", "leaves.c", "steady.c", "captures.c", "blocks.c"] {
        twins.push(compile(source, &["-O2"]));
        twins.push(compile(source, &["-O0", "-no-pie"]));
        twins.push(compile(
            source,
            &["-O3", "-fno-plt", "-fcf-protection=none"],
        ));
    }
    twins.push(compile("calls.c", &["-O2", "-static"]));
    twins.push(compile("steady.c", &["-O2", "-static-pie"]));
    for source in ["throws.cpp", "captures.cpp", "threads.cpp", "noexcept.cpp"] {
        twins.push(compile(source, &["-std=c++20", "-O2"]));
        twins.push(compile(source, &["-std=c++20", "-O0", "-static"]));
    }
    twins.push(compile("threads.rs", &["-O"]));
    twins.push(compile("captures.rs", &[]));
    twins.push(env!("CARGO_BIN_EXE_teracron-agent").into());
    let mut of_foreign = Count::default();
    for twin in &twins {
        foreign(twin, &mut of_foreign);
    }
    let mut go = Vec::new();
    for version in golang::GO_VERSIONS.into_iter().chain(["1.25.5", "1.26.6"]) {
        for mode in ["-buildmode=exe", "-buildmode=pie"] {
            go.push(golang::build_cgo("cgo", version, &[mode]));
        }
        // Debian's own has no symbols to judge by.
        if version != golang::GO_VERSIONS[3] {
            go.push(golang::go_itself(version));
        }
    }
    let mut of_go = Count::default();
    for twin in &go {
        go_table(twin, &mut of_go);
    }
    println!("{} binaries", twins.len() + go.len());
    for (what, count) in [("debug files", &of_foreign), ("Go's tables", &of_go)] {
        println!(
            "{what}: {} right ones, {} wrongly refused; {} shifted ones, {} refused ({} accepted)",
            count.right,
            count.wrongly_refused.len(),
            count.tried,
            count.refused,
            count.accepted.len()
        );
        println!("{:#?}", count.accepted.iter().take(20).collect::<Vec<_>>());
        println!(
            "{:#?}",
            count.wrongly_refused.iter().take(20).collect::<Vec<_>>()
        );
    }
    assert!(twins.len() + go.len() >= 30);
    for count in [of_foreign, of_go] {
        assert!(count.tried > 10_000);
        assert!(count.accepted.len() * 1000 <= count.tried);
        assert!(
            count.wrongly_refused.is_empty(),
            "{:?}",
            count.wrongly_refused.first()
        );
    }
}

#[test]
fn stripped_go_with_c() {
    for version in ["1.25.5", "1.26.6", "1.27.3"] {
        for mode in ["-buildmode=exe", "-buildmode=pie"] {
            let what = format!("Go {version} {mode}");
            let program = golang::build_cgo("cgo", version, &["-ldflags=-s -w", mode]);
            let mut target = Target::start(&program, &[]);
            let names = ["Work", "Build", "Mul", "Fails", "Recovers"];
            let probes: Vec<String> = names
                .iter()
                .flat_map(|name| ["--probe".to_owned(), format!("test:main.{name}")])
                .collect();
            let probes: Vec<&str> = probes.iter().map(String::as_str).collect();
            let agent = Agent::start(target.pid, &probes);
            target.go();
            target.log();
            assert_eq!(target.finish().code(), Some(6), "{what}");
            let report = agent.finish();
            let of = |name: &str, status: &str| {
                let name = format!("main.{name}");
                let spans = report.spans.iter();
                spans
                    .filter(|span| span.operation == name && span.status == status)
                    .count()
            };
            for (name, calls) in [
                ("Work", 500),
                ("Build", 500),
                ("Mul", 1000),
                ("Recovers", 500),
                ("Fails", 450),
            ] {
                assert_eq!(
                    of(name, "succeeded"),
                    calls,
                    "{what}: {name}: {}",
                    report.said
                );
            }
            assert_eq!(of("Fails", "failed"), 50, "{what}");
            for span in &report.spans {
                if span.status == "failed" {
                    assert_eq!(
                        span.error_type.as_deref(),
                        Some("*errors.errorString"),
                        "{what}: {span:?}"
                    );
                }
            }
            report.assert_nothing_lost();
        }
    }
}

#[test]
fn a_stripped_go_library_in_a_c_program() {
    for version in ["1.25.5", "1.26.6", "1.27.3"] {
        let library = golang::build_cgo(
            "cshared",
            version,
            &["-buildmode=c-shared", "-ldflags=-s -w"],
        );
        let folder = library.parent().unwrap().display().to_string();
        let program = compile_with(
            "uses_go.c",
            &["-O2"],
            &[library.to_str().unwrap(), &format!("-Wl,-rpath,{folder}")],
        );
        let name = library.file_name().unwrap().to_str().unwrap();
        let mut target = Target::start(&program, &[]);
        let probe = format!("test:main.*@{name}");
        let agent = Agent::start(target.pid, &["--probe", &probe]);
        target.go();
        target.log();
        assert_eq!(target.finish().code(), Some(3), "Go {version}");
        let report = agent.finish();
        let count = |name: &str| {
            report
                .spans
                .iter()
                .filter(|span| span.operation == name)
                .count()
        };
        assert_eq!(
            (count("main.Build"), count("main.Mul")),
            (500, 1000),
            "Go {version}: {}",
            report.said
        );
        report.assert_nothing_lost();
    }
}

#[test]
fn a_file_without_an_unwind_table_is_told() {
    let flags = [
        "-O1",
        "-fno-asynchronous-unwind-tables",
        "-fno-stack-protector",
        "-nostdlib",
        "-static",
    ];
    let mut target = Target::start(&compile("bare.c", &flags), &[]);
    let agent = Agent::start(target.pid, &["--probe", "test:work"]);
    target.go();
    target.log();
    target.finish();
    let report = agent.finish();
    assert!(
        report.said.contains("has no unwind table (.eh_frame)"),
        "{}",
        report.said
    );
    assert_eq!(report.spans.len(), 200);
    report.assert_nothing_lost();
}
