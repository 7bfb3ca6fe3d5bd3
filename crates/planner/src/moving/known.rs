//! Programs and libraries that are known to move text.

use image::{Image, symbol::Elf};

/// Libraries that move the program's text as soon as they are loaded: Intel's
/// (github.com/intel/iodlr, `liblppreload.so`), libhugetlbfs where the environment says so (`HUGETLB_ELFMAP`; MySQL
/// and MariaDB have no option of their own for their text, `large-pages` is for the buffer pool, and are run with
/// these), and ElfRemapper, which was made for MySQL.
const PRELOADS: [&str; 4] = [
    "liblppreload.so",
    "libhugetlbfs.so",
    "libelfremapper.so",
    "libhugetext.so",
];

/// The C library's own files, and the dynamic linker: what they map is what they load.
const C_LIBRARY: [&str; 6] = [
    "libc.so",
    "libc-2.",
    "libc.musl",
    "ld-linux",
    "ld-musl",
    "ld-2.",
];

/// Parts of names of functions that move text, mangled or not: Intel's (`MapStaticCodeToLargePages`,
/// `MoveRegionToLargePages`), HHVM's, BOLT's (`llvm-bolt --hugify`), ChromeOS's, and such as took the names from
/// there. What node, HHVM, PHP and ClickHouse have is told apart.
const FUNCTIONS: [&str; 7] = [
    "CodeToLargePages",
    "RegionToLargePages",
    "hugify_text",
    "hugify_process_text",
    "hugifyText",
    "__bolt_hugify",
    "RemapHugetlbText",
];

/// What moves text.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Mover {
    /// `--use-largepages` (src/large_pages/node_large_page.cc).
    Node,
    /// `Eval.MaxHotTextHugePages`, 8 by default in a server (hphp/runtime/base/program-functions.cpp).
    Hhvm,
    /// `opcache.huge_code_pages`, off by default (ext/opcache/ZendAccelerator.c).
    Php,
    /// `remap_executable` in its configuration, off by default (src/Common/remapExecutable.cpp).
    ClickHouse,
    /// A function's name.
    Named(String),
}

/// Whether a library moves the program's text when it is loaded.
pub fn moves_by_loading(name: &str) -> bool {
    PRELOADS.iter().any(|library| name.starts_with(library))
}

/// Whether it is the C library or the dynamic linker.
pub(super) fn is_c_library(name: &str) -> bool {
    C_LIBRARY.iter().any(|library| name.starts_with(library))
}

/// What in a file moves text when it is asked to.
pub(super) fn mover(module: &Image, elf: &Elf) -> Option<Mover> {
    let name = module.name();
    if elf.go.is_some() || is_c_library(name) {
        return None;
    }
    let function = elf.symbols.iter().find_map(|symbol| {
        let named = FUNCTIONS.iter().any(|part| symbol.name.contains(part));
        named.then(|| symbol.name.clone())
    });
    let is = |wanted: &[&str]| {
        wanted.iter().any(|wanted| {
            name.strip_prefix(wanted).is_some_and(|rest| {
                rest.is_empty() || rest.starts_with(|next: char| !next.is_ascii_alphabetic())
            })
        })
    };
    let node_has_it = function
        .as_deref()
        .is_some_and(|function| function.contains("_ZN4node"));
    // Where names were stripped off the program's says enough.
    if node_has_it || !elf.has_symtab && is(&["node", "nodejs", "libnode.so"]) {
        return Some(Mover::Node);
    }
    if is(&["hhvm"])
        || function
            .as_deref()
            .is_some_and(|function| function.contains("_ZN4HPHP"))
    {
        return Some(Mover::Hhvm);
    }
    if is(&["opcache.so", "libphp", "php", "php-fpm", "php-cgi"])
        || elf.symbol("zend_startup").is_some()
    {
        return Some(Mover::Php);
    }
    if elf
        .symbols
        .iter()
        .any(|symbol| symbol.name == "_ZN2DB15remapExecutableEv")
        || is(&["clickhouse", "clickhouse-server"])
    {
        return Some(Mover::ClickHouse);
    }
    function.map(Mover::Named)
}
