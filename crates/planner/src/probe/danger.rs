//! What in a process forbids return probes.
//!
//! The kernel keeps the return addresses that it replaced as one list per thread, ordered by stack
//! pointer. Two kinds of code break on that: what walks the stack (unwinders meet an address that
//! belongs to no function and abort), and what leaves the stack and comes back (`swapcontext`, a
//! handler on an alternate stack above the thread's: the kernel takes frames below a higher stack
//! pointer for gone and sends SIGILL when they return). Neither may begin later: what can make code while
//! it runs, or can get at what does, is as bad as the code itself. And what looks at the return addresses of others
//! (profilers of `-pg`, walkers along frame pointers) would see other ones. Whatever can't be excluded
//! counts as there.

use std::collections::HashMap;

use image::{
    FileKey, Image,
    symbol::{Elf, Elves},
};
use sites::StackUse;

/// Names of libraries that unwind, up to the version.
const UNWINDERS: [&str; 9] = [
    "libgcc_s.so",
    "libstdc++.so",
    "libc++.so",
    "libc++abi.so",
    "libunwind.so",
    "libunwind-x86_64.so",
    "libprofiler.so",
    "libasan.so",
    "libjvm.so",
];

/// The C library's own files: they have all the functions below, which says nothing about who calls
/// them.
const C_LIBRARY: [&str; 8] = [
    "libc.so",
    "libc.musl",
    "ld-linux",
    "ld-musl",
    "libpthread.so",
    "libm.so",
    "libdl.so",
    "librt.so",
];

const LOADS: &str = "can load an unwinder";
const FINDS: &str = "can find any function by its name";
const UNWINDS: &str = "unwinds the stack";
const WALKS: &str = "walks the stack";
const SWITCHES: &str = "switches stacks";
const HANDLES: &str = "handles signals on another stack";
const MAKES_CODE: &str = "can make code while it runs";
const CALLS_ANY: &str = "can make any system call";
const OWN_STACK: &str = "runs code on a stack of its own, or twice on one";
const LOOKS: &str = "looks at the return addresses of its functions";

/// Functions whose callers may unwind or leave the stack, now or later, or look at what return probes change; and
/// what to say of them. The first that is found is told.
const FUNCTIONS: [(&str, &str); 49] = [
    ("dlopen", LOADS),
    ("dlmopen", LOADS),
    ("__libc_dlopen_mode", LOADS),
    ("pthread_exit", UNWINDS),
    ("pthread_cancel", UNWINDS),
    ("thrd_exit", UNWINDS),
    ("_Unwind_RaiseException", UNWINDS),
    ("_Unwind_ForcedUnwind", UNWINDS),
    ("_Unwind_Backtrace", WALKS),
    ("__cxa_throw", UNWINDS),
    ("swapcontext", SWITCHES),
    ("setcontext", SWITCHES),
    ("makecontext", SWITCHES),
    ("sigaltstack", HANDLES),
    ("sigstack", HANDLES),
    ("mmap", MAKES_CODE),
    ("mmap64", MAKES_CODE),
    ("__mmap", MAKES_CODE),
    ("mprotect", MAKES_CODE),
    ("__mprotect", MAKES_CODE),
    ("pkey_mprotect", MAKES_CODE),
    ("remap_file_pages", MAKES_CODE),
    ("mremap", MAKES_CODE),
    ("shmat", MAKES_CODE),
    ("memfd_create", MAKES_CODE),
    ("shm_open", MAKES_CODE),
    ("personality", MAKES_CODE),
    ("syscall", CALLS_ANY),
    ("dlsym", FINDS),
    ("dlvsym", FINDS),
    ("__libc_dlsym", FINDS),
    ("dlinfo", FINDS),
    ("clone", OWN_STACK),
    ("__clone", OWN_STACK),
    ("clone3", OWN_STACK),
    ("vfork", OWN_STACK),
    ("__vfork", OWN_STACK),
    ("backtrace", WALKS),
    ("__backtrace", WALKS),
    ("unw_step", WALKS),
    ("_ULx86_64_step", WALKS),
    ("mcount", LOOKS),
    ("_mcount", LOOKS),
    ("__fentry__", LOOKS),
    ("__cyg_profile_func_enter", LOOKS),
    ("__cyg_profile_func_exit", LOOKS),
    ("__xray_FunctionEntry", LOOKS),
    ("__tsan_func_entry", LOOKS),
    ("__sanitizer_cov_trace_pc", LOOKS),
];

/// More code than this is not searched, and counts as dangerous.
const MAX_SEARCHED: u64 = 64 << 20;

/// Answers, by file, so that none is searched twice.
#[derive(Default)]
pub struct Dangers(HashMap<FileKey, Option<String>>);

impl Dangers {
    /// What among these modules, which together are a process, forbids return probes.
    pub fn among(&mut self, images: &[&Image], elves: &mut Elves) -> Option<String> {
        images.iter().find_map(|module| {
            self.0
                .entry(module.key)
                .or_insert_with(|| match elves.get(module) {
                    Ok(elf) => in_file(module, elf),
                    Err(_) => Some(format!("{}, which can't be read,", module.name())),
                })
                .clone()
        })
    }
}

/// What in one file forbids return probes: the subject of a sentence that goes on with "and could
/// kill the process".
fn in_file(module: &Image, elf: &Elf) -> Option<String> {
    let name = module.name();
    if UNWINDERS.iter().any(|unwinder| name.starts_with(unwinder)) {
        return Some(format!("{name} can unwind the stack"));
    }
    if C_LIBRARY.iter().any(|library| name.starts_with(library)) {
        return None;
    }
    if elf.go.is_some() {
        return Some(format!("the Go runtime in {name} moves and walks stacks"));
    }
    if module.is_main && elf.needed.is_empty() {
        return Some(format!(
            "{name} is linked statically: what its code does to the stack can't be told"
        ));
    }
    if let Some((function, does)) = function_of(elf) {
        return Some(format!("{name} {does} ({function})"));
    }
    if elf.has_exception_tables {
        return Some(format!("{name} has handlers for exceptions"));
    }
    if elf
        .segments
        .iter()
        .any(|segment| segment.executable && segment.writable)
    {
        return Some(format!("{name} has code that it can write"));
    }
    in_code(module, elf).map(|(does, address)| format!("{name} {does} at {address:#x}"))
}

/// The first of the functions that the file has or takes from others.
fn function_of(elf: &Elf) -> Option<(&'static str, &'static str)> {
    let places: HashMap<&str, usize> = FUNCTIONS
        .iter()
        .enumerate()
        .map(|(place, (name, _))| (*name, place))
        .collect();
    let own = elf.symbols.iter().map(|symbol| symbol.name.as_str());
    own.chain(elf.imports.iter().map(String::as_str))
        .filter_map(|name| places.get(name).copied())
        .min()
        .and_then(|place| FUNCTIONS.get(place))
        .copied()
}

/// What an instruction of the file does that forbids return probes, and its address. All code is looked at,
/// as functions that have no symbol count too.
fn in_code(module: &Image, elf: &Elf) -> Option<(&'static str, u64)> {
    const UNREAD: &str = "has more code than is searched, or none that can be read,";
    for segment in elf.segments.iter().filter(|segment| segment.executable) {
        if segment.file_size > MAX_SEARCHED {
            return Some((UNREAD, segment.address));
        }
        let size = usize::try_from(segment.file_size).ok()?;
        let Some(bytes) = elf.bytes(&module.file, segment.address, size) else {
            return Some((UNREAD, segment.address));
        };
        if let Some((found, address)) = sites::stack_use(&bytes, segment.address) {
            let does = match found {
                StackUse::SystemCall => "makes system calls of its own",
                StackUse::SetsPointer => "sets its stack pointer",
                StackUse::WalksFrames => "walks its stack along the frame pointers",
            };
            return Some((does, address));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn danger(path: &str) -> Option<String> {
        let module = Image::open(Path::new(path), true).unwrap();
        let elf = Elf::read(&module.file).unwrap();
        in_file(&module, &elf)
    }

    #[test]
    fn programs_of_this_machine() {
        // Plain C.
        assert_eq!(danger("/bin/true"), None);
        assert_eq!(danger("/lib/x86_64-linux-gnu/libc.so.6"), None);
        assert!(danger("/usr/bin/git").is_some());
        let python = std::fs::canonicalize("/usr/bin/python3").unwrap();
        assert!(
            danger(python.to_str().unwrap())
                .unwrap()
                .contains("(dlopen)")
        );
        let own = std::env::current_exe().unwrap();
        assert!(danger(own.to_str().unwrap()).is_some());
    }

    /// How many of this machine's programs allow return probes, and why not: run by hand, with `--ignored
    /// --nocapture`.
    #[test]
    #[ignore = "a census of this machine's programs, for docs/measurements.md"]
    fn of_all_programs_here() {
        use image::needed_images;
        let (mut dangers, mut elves) = (Dangers::default(), Elves::default());
        let mut reasons: std::collections::BTreeMap<String, usize> = Default::default();
        let (mut all, mut allowed) = (0, 0);
        for folder in ["/usr/bin", "/usr/sbin"] {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                if entry.file_type().unwrap().is_symlink() {
                    continue;
                }
                let Ok(module) = Image::open(&entry.path(), true) else {
                    continue;
                };
                if elves.get(&module).is_err() {
                    continue;
                }
                all += 1;
                let mut modules = needed_images(&module);
                modules.insert(0, module);
                match dangers.among(&modules.iter().collect::<Vec<_>>(), &mut elves) {
                    None => allowed += 1,
                    Some(reason) => {
                        let words = reason.split_once(' ').unwrap_or_default().1;
                        let kind = words.split(" at 0x").next().unwrap_or_default();
                        *reasons.entry(kind.to_owned()).or_default() += 1;
                    }
                }
            }
        }
        println!("{allowed} of {all} allow return probes");
        let mut reasons: Vec<_> = reasons.into_iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for (reason, count) in reasons {
            println!("{count:6} {reason}");
        }
    }
}
