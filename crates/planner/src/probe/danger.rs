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

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

use image::{
    FileKey, Image,
    symbol::{Elf, Elves},
};

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

/// What an instruction of the file does that forbids return probes, and its address. All code is decoded in a line,
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
        let mut decoder = Decoder::with_ip(64, &bytes, segment.address, DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        let mut frames = Frames::default();
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            let does = if makes_system_call(&instruction) {
                "makes system calls of its own"
            } else if sets_stack_pointer(&instruction) {
                "sets its stack pointer"
            } else if frames.are_walked(&instruction) {
                "walks its stack along the frame pointers"
            } else {
                continue;
            };
            return Some((does, instruction.ip()));
        }
    }
    None
}

/// `syscall` and its older forms: outside of the C library nobody knows which.
fn makes_system_call(instruction: &Instruction) -> bool {
    match instruction.mnemonic() {
        Mnemonic::Syscall | Mnemonic::Sysenter => true,
        Mnemonic::Int => instruction.immediate(0) == 0x80,
        _ => false,
    }
}

/// Whether an instruction gives the stack pointer a value that is not the frame's own.
fn sets_stack_pointer(instruction: &Instruction) -> bool {
    if instruction.op0_kind() != OpKind::Register {
        return false;
    }
    let to_sp = instruction.op0_register() == Register::RSP;
    match instruction.mnemonic() {
        Mnemonic::Mov => {
            to_sp
                && !(instruction.op1_kind() == OpKind::Register
                    && instruction.op1_register() == Register::RBP)
        }
        // `lea rsp, [rbp - 40]` ends a frame, `[r10 - 8]` one that was aligned.
        Mnemonic::Lea => {
            to_sp
                && !matches!(
                    instruction.memory_base(),
                    Register::RSP | Register::RBP | Register::R10 | Register::R13
                )
        }
        Mnemonic::Xchg => to_sp || instruction.op1_register() == Register::RSP,
        Mnemonic::Pop => to_sp,
        _ => false,
    }
}

/// Whether `rbp` is a frame pointer, in code that is read in a line.
#[derive(Default)]
struct Frames {
    /// The caller's was pushed, and the stack pointer still points there.
    pushed: bool,
    /// It is one: it points to the caller's, below the return address.
    is_set: bool,
}

impl Frames {
    /// Whether an instruction loads the caller's frame pointer from the frame, or passes on where the frame lies: the
    /// first step of a walk (`__builtin_return_address(1)`, `__builtin_frame_address(0)`).
    fn are_walked(&mut self, instruction: &Instruction) -> bool {
        let is_register = |place: u32| instruction.op_kind(place) == OpKind::Register;
        let writes_first = instruction.op_count() > 0
            && is_register(0)
            && !matches!(
                instruction.mnemonic(),
                Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Push | Mnemonic::Bt | Mnemonic::Nop
            );
        let is_mov = instruction.mnemonic() == Mnemonic::Mov && writes_first;
        let to_rbp = writes_first && instruction.op0_register().full_register() == Register::RBP;
        let pushed = std::mem::replace(&mut self.pushed, false);
        if instruction.mnemonic() == Mnemonic::Push {
            self.pushed = is_register(0) && instruction.op0_register() == Register::RBP;
            return false;
        }
        if to_rbp {
            if is_mov && is_register(1) && instruction.op1_register() == Register::RSP {
                // Without the push it is a pointer to a local.
                self.is_set = pushed;
            } else if instruction.mnemonic() != Mnemonic::Pop {
                // A pointer like any other, until the next frame is set up.
                self.is_set = false;
            }
            return false;
        }
        // Other things may be done between the two.
        self.pushed = pushed
            && instruction.flow_control() == FlowControl::Next
            && !instruction.is_stack_instruction()
            && !(writes_first && instruction.op0_register() == Register::RSP);
        if instruction.mnemonic() == Mnemonic::Xchg
            && instruction.op1_register().full_register() == Register::RBP
        {
            self.is_set = false;
        }
        if !self.is_set || !writes_first || instruction.op0_register().size() != 8 {
            return false;
        }
        let at_frame = instruction.op_count() > 1
            && instruction.op1_kind() == OpKind::Memory
            && instruction.memory_base() == Register::RBP
            && instruction.memory_index() == Register::None
            && instruction.memory_displacement64() == 0;
        match instruction.mnemonic() {
            Mnemonic::Mov if is_register(1) => {
                instruction.op1_register() == Register::RBP
                    && instruction.op0_register() != Register::RSP
            }
            Mnemonic::Mov => at_frame && instruction.segment_prefix() == Register::None,
            Mnemonic::Lea => at_frame && instruction.op0_register() != Register::RSP,
            _ => false,
        }
    }
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

    fn decoded(bytes: &[u8], ask: &mut dyn FnMut(&Instruction) -> bool) -> Vec<usize> {
        let instructions = Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE).into_iter();
        instructions
            .enumerate()
            .filter(|(_, instruction)| ask(instruction))
            .map(|(place, _)| place)
            .collect()
    }

    #[test]
    fn system_calls_and_stack_switches() {
        // syscall; int 0x80; sysenter; int 3; int 0x81
        let calls = [0x0f, 0x05, 0xcd, 0x80, 0x0f, 0x34, 0xcc, 0xcd, 0x81];
        assert_eq!(decoded(&calls, &mut makes_system_call), [0, 1, 2]);
        // mov rsp,rsi; mov rsp,rbp; lea rsp,[rbp-8]; xchg rsp,rax; pop rsp; sub rsp,8
        let stack = [
            0x48, 0x89, 0xf4, 0x48, 0x89, 0xec, 0x48, 0x8d, 0x65, 0xf8, 0x48, 0x94, 0x5c, 0x48,
            0x83, 0xec, 0x08,
        ];
        assert_eq!(decoded(&stack, &mut sets_stack_pointer), [0, 3, 4]);
    }

    #[test]
    fn walks_along_frame_pointers() {
        let walked = |bytes: &[u8]| {
            let mut frames = Frames::default();
            decoded(bytes, &mut |instruction| frames.are_walked(instruction))
        };
        // push rbp; mov rbp,rsp; mov rax,[rbp]; mov rax,[rax+8]; pop rbp; ret
        assert_eq!(
            walked(&[
                0x55, 0x48, 0x89, 0xe5, 0x48, 0x8b, 0x45, 0, 0x48, 0x8b, 0x40, 8, 0x5d, 0xc3
            ]),
            [2]
        );
        // push rbp; mov rbp,rsp; mov rdi,rbp; lea rsi,[rbp]; mov rsp,rbp; pop rbp; ret
        assert_eq!(
            walked(&[
                0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0xef, 0x48, 0x8d, 0x75, 0, 0x48, 0x89, 0xec,
                0x5d, 0xc3
            ]),
            [2, 3]
        );
        // …; mov rax,[rbp-8]; mov rax,[rbp+16]; pop rbp; ret; push rbp; mov rbp,rdi; mov rax,[rbp]; mov rdi,rbp
        assert_eq!(
            walked(&[
                0x55, 0x48, 0x89, 0xe5, 0x48, 0x8b, 0x45, 0xf8, 0x48, 0x8b, 0x45, 0x10, 0x5d, 0xc3,
                0x55, 0x48, 0x89, 0xfd, 0x48, 0x8b, 0x45, 0, 0x48, 0x89, 0xef
            ]),
            [] as [usize; 0]
        );
        // A pointer to locals: push rbp; sub rsp,16; mov rbp,rsp; mov rdi,rbp
        assert_eq!(
            walked(&[
                0x55, 0x48, 0x83, 0xec, 0x10, 0x48, 0x89, 0xe5, 0x48, 0x89, 0xef
            ]),
            [] as [usize; 0]
        );
        // push rbp; xor eax,eax; mov rbp,rsp; push rbx; mov rdi,rbp
        assert_eq!(
            walked(&[0x55, 0x31, 0xc0, 0x48, 0x89, 0xe5, 0x53, 0x48, 0x89, 0xef]),
            [4]
        );
    }
}
