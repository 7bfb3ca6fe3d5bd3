//! Whose code a function is: what a user means is rather his own than a library's.

use std::collections::HashSet;

use image::{
    Image,
    symbol::{Elf, Language, Names},
};

use super::spelling::{Spelled, Spelling};

/// Whose code a function is, the likelier meant first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// The program's own.
    Own,
    /// What it brings along.
    Dependency,
    /// The language's or the system's.
    Library,
    /// What compilers and linkers add to every file.
    Glue,
}

/// What linkers and the C library's start-up files put into every program; nobody traces it, and it has no code that
/// could be understood.
const GLUE: [&str; 16] = [
    "__do_global_ctors_aux",
    "__do_global_dtors_aux",
    "__gmon_start__",
    "__libc_csu_fini",
    "__libc_csu_init",
    "__stack_chk_fail_local",
    "_dl_relocate_static_pie",
    "_fini",
    "_init",
    "_start",
    "_start_c",
    "call_weak_fn",
    "data_start",
    "deregister_tm_clones",
    "frame_dummy",
    "register_tm_clones",
];

/// Whether a symbol is one of what is put into every file.
pub fn is_glue(symbol: &str) -> bool {
    GLUE.contains(&symbol) || symbol.starts_with("__x86.get_pc_thunk.")
}

/// Crates that come with Rust's standard library.
const RUST: [&str; 17] = [
    "__rustc",
    "addr2line",
    "alloc",
    "compiler_builtins",
    "core",
    "gimli",
    "hashbrown",
    "memchr",
    "miniz_oxide",
    "object",
    "panic_abort",
    "panic_unwind",
    "proc_macro",
    "rustc_demangle",
    "std",
    "std_detect",
    "test",
];

/// First parts of the import paths of Go's standard library (`go list std`, 1.17 to 1.27).
const GO: [&str; 53] = [
    "archive",
    "bufio",
    "bytes",
    "cmp",
    "compress",
    "container",
    "context",
    "crypto",
    "database",
    "debug",
    "embed",
    "encoding",
    "errors",
    "expvar",
    "flag",
    "fmt",
    "gclocals",
    "go",
    "hash",
    "html",
    "image",
    "index",
    "internal",
    "io",
    "iter",
    "log",
    "maps",
    "math",
    "mime",
    "net",
    "os",
    "path",
    "plugin",
    "reflect",
    "regexp",
    "runtime",
    "simd",
    "slices",
    "sort",
    "strconv",
    "strings",
    "structs",
    "sync",
    "syscall",
    "testing",
    "text",
    "time",
    "type:",
    "unicode",
    "unique",
    "unsafe",
    "vendor",
    "weak",
];

/// Crates that have a `main`: a Rust program's own.
pub(super) fn own_crates(elf: &Elf) -> HashSet<String> {
    let symbols = elf.symbols.iter().map(|symbol| symbol.name.as_str());
    symbols
        .filter(|symbol| symbol.contains("4main"))
        .map(|symbol| Names::of_file(symbol, &elf.budget))
        .filter(|names| names.language == Language::Rust)
        .filter_map(|names| names.plain.strip_suffix("::main").map(str::to_owned))
        .filter(|name| !name.contains("::"))
        .collect()
}

/// Whose code lies in a file, by its place.
pub fn of_file(module: &Image) -> Whose {
    const SYSTEM: [&str; 6] = [
        "/lib/",
        "/lib64/",
        "/usr/lib/",
        "/usr/lib64/",
        "/nix/store/",
        "/usr/libexec/",
    ];
    match () {
        () if module.is_main => Whose::Own,
        () if SYSTEM.iter().any(|folder| module.path.starts_with(folder)) => Whose::Library,
        () => Whose::Dependency,
    }
}

/// Whose code a function is, by its name; `own`: see [`own_crates`].
pub(super) fn by_name(
    plain: &str,
    symbol: &str,
    language: Language,
    own: &HashSet<String>,
) -> Whose {
    if is_glue(symbol) || symbol.starts_with("_GLOBAL__sub_") || symbol.starts_with("__cxx_global_")
    {
        return Whose::Glue;
    }
    match language {
        Language::C if plain.starts_with('_') => Whose::Library,
        Language::C => Whose::Own,
        Language::Cpp => of_cpp(plain),
        Language::Go => of_go(plain),
        Language::Rust => of_rust(plain, own),
    }
}

fn of_cpp(plain: &str) -> Whose {
    let spelled = Spelled::of(plain, Spelling::Namespaces);
    let first = spelled.parts().next().unwrap_or_default();
    let is_global_operator = spelled.parts().count() == 1
        && (first.starts_with("operator new") || first.starts_with("operator delete"));
    match first {
        "std" | "__gnu_cxx" | "__cxxabiv1" => Whose::Library,
        _ if is_global_operator || first.starts_with("__") => Whose::Library,
        _ => Whose::Own,
    }
}

fn of_go(plain: &str) -> Whose {
    let package = plain.split(['(', '[']).next().unwrap_or(plain);
    let (first, is_path) = match package.split_once('/') {
        Some((first, _)) => (first, true),
        None => (package.split('.').next().unwrap_or(package), false),
    };
    match first {
        "main" => Whose::Own,
        _ if GO.contains(&first) => Whose::Library,
        // Made by the compiler, or C: `_cgo_…`, `x_cgo_…`, `type:.eq.…`, `go:buildid`.
        _ if first.starts_with(['_', '*']) || first.contains(':') => Whose::Glue,
        // A module that comes from somewhere: the program's own, or another.
        _ if is_path && first.contains('.') => Whose::Dependency,
        _ => Whose::Own,
    }
}

fn of_rust(plain: &str, own: &HashSet<String>) -> Whose {
    // `<A as B>::f` is whose A or B is.
    let of_path = |path: &str| {
        let path = path.trim_start_matches(['<', '&', '*', '[', '(']);
        let name = path
            .split(|character: char| !(character.is_alphanumeric() || character == '_'))
            .next()
            .unwrap_or_default();
        match name {
            _ if own.contains(name) => Whose::Own,
            _ if RUST.contains(&name) || !path.contains("::") => Whose::Library,
            _ if own.is_empty() => Whose::Own,
            _ => Whose::Dependency,
        }
    };
    match plain
        .strip_prefix('<')
        .and_then(|rest| rest.split_once(" as "))
    {
        Some((of, of_trait)) => of_path(of).min(of_path(of_trait)),
        None => of_path(plain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_code_is_told_from_libraries() {
        let own = HashSet::from(["shop".to_owned()]);
        for (plain, language, whose) in [
            ("create_order", Language::C, Whose::Own),
            ("_IO_cleanup", Language::C, Whose::Library),
            ("_init", Language::C, Whose::Glue),
            ("frame_dummy", Language::C, Whose::Glue),
            ("shop::Db::fetch", Language::Cpp, Whose::Own),
            (
                "std::vector<shop::Order>::push_back",
                Language::Cpp,
                Whose::Library,
            ),
            ("operator new", Language::Cpp, Whose::Library),
            ("shop::operator<", Language::Cpp, Whose::Own),
            ("main.(*Store).Load", Language::Go, Whose::Own),
            ("store.(*Db).Load", Language::Go, Whose::Own),
            (
                "github.com/acme/shop.(*Db).Load",
                Language::Go,
                Whose::Dependency,
            ),
            ("sync/atomic.(*Value).Load", Language::Go, Whose::Library),
            ("time.loadTzinfo", Language::Go, Whose::Library),
            (
                "vendor/golang.org/x/net/idna.ToASCII",
                Language::Go,
                Whose::Library,
            ),
            ("shop::charge", Language::Rust, Whose::Own),
            (
                "<shop::Cart as core::fmt::Debug>::fmt",
                Language::Rust,
                Whose::Own,
            ),
            (
                "<alloc::vec::Vec<u8> as shop::Total>::total",
                Language::Rust,
                Whose::Own,
            ),
            ("tokio::runtime::park", Language::Rust, Whose::Dependency),
            (
                "core::ptr::drop_in_place<shop::Cart>",
                Language::Rust,
                Whose::Library,
            ),
        ] {
            assert_eq!(by_name(plain, plain, language, &own), whose, "{plain}");
        }
        // A library of Rust has no `main`.
        assert_eq!(
            by_name("pay::charge", "", Language::Rust, &HashSet::new()),
            Whose::Own
        );
    }
}
