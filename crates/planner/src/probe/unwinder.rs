//! Where a target's unwinder, `longjmp` and dynamic linker can be watched.

use teracron_common::RaiseKind;

use super::{Program, Site};
use crate::find::Functions;
use image::{
    Image,
    symbol::{Elf, Language, Origin, Place, Proven, Starts, Symbol, SymbolKind},
};
use sites::{Context, KernelRules, ReturnProbe};

/// Sites in one file that tell how frames end without returning, and what else is loaded.
#[derive(Debug)]
pub struct UnwinderSites {
    /// The file.
    pub module: Image,
    /// The sites.
    pub sites: Vec<Site>,
}

const JUMPS: [&str; 6] = [
    "longjmp",
    "_longjmp",
    "siglongjmp",
    "__longjmp_chk",
    "__libc_longjmp",
    "__libc_siglongjmp",
];

/// Finds the sites in a module; `None` where it has nothing of the kind.
pub fn find(module: &Image, elf: &Elf, rules: KernelRules) -> Option<UnwinderSites> {
    if elf.go.is_some() {
        return None;
    }
    let starts = Starts::of(elf, &module.file);
    let mut sites: Vec<Site> = Vec::new();
    let mut add = |name: &str, program: Program, cookie: &dyn Fn(i32) -> u64| {
        let Some((place, cfa_offset)) =
            exported(&starts, name).and_then(|symbol| entry_site(&starts, symbol, rules))
        else {
            return;
        };
        if !sites.iter().any(|site| site.offset == place.offset()) {
            sites.push(Site::new(program, place, cookie(cfa_offset)));
        }
    };
    add("_dl_debug_state", Program::LibraryLoaded, &|_| 0);
    for name in JUMPS {
        add(name, Program::LongJump, &|_| 0);
    }
    for name in ["_Unwind_RaiseException", "_Unwind_Resume_or_Rethrow"] {
        add(name, Program::UnwindRaise, &|_| RaiseKind::Exception as u64);
    }
    add("_Unwind_ForcedUnwind", Program::UnwindRaise, &|_| {
        RaiseKind::Forced as u64
    });
    add("_Unwind_Resume", Program::UnwindRaise, &|_| {
        RaiseKind::Resume as u64
    });
    let gcc = exported(&starts, "_Unwind_GetCFA").and_then(|symbol| cfa_place(module, elf, symbol));
    let llvm = || {
        let symbol = exported(&starts, "_Unwind_SetIP")?;
        is_llvm(module, elf, symbol).then_some(LLVM_PLACE)
    };
    if let Some(place) = gcc.or_else(llvm) {
        add("_Unwind_SetIP", Program::UnwindLand, &|_| place);
    } else {
        // An unwinder of another make: the handler's begin is the next best.
        add("__cxa_begin_catch", Program::UnwindCatch, &|cfa_offset| {
            cfa_offset as u64
        });
    }
    (!sites.is_empty()).then(|| UnwinderSites {
        module: module.clone(),
        sites,
    })
}

/// A function that the agent probes of its own accord: what the file exports (`.dynsym`). Where it exports none of
/// the name (a program that was linked statically, or with its own copy of the unwinder), its own `.symtab` counts
/// if its unwind table has a function that begins there. Never what another file says.
fn exported<'a>(starts: &Starts<'a>, name: &str) -> Option<&'a Symbol> {
    starts
        .elf()
        .own_symbol(name)
        .filter(|symbol| symbol.origin == Origin::Exported || starts.is_described(symbol.address))
}

/// The cheapest site at a function's entry, and the distance of the frame address. None where its start is not
/// confirmed, or its code is not all instructions.
pub(super) fn entry_site(
    starts: &Starts<'_>,
    symbol: &Symbol,
    rules: KernelRules,
) -> Option<(Place, i32)> {
    if symbol.kind != SymbolKind::Function {
        return None;
    }
    let elf = starts.elf();
    let read = |address: u64, len: usize| elf.bytes(starts.file(), address, len);
    let function = Functions::of(elf).of_symbol(symbol);
    let code: Proven = function.code(starts).ok()?;
    let planned = sites::plan(
        &code,
        &Context {
            rules,
            read_data: &read,
            is_probed: &|_| false,
            return_probe: ReturnProbe::Never,
            go: function.language == Language::Go,
            results: 0,
        },
    );
    match planned {
        Ok(plan) => Some((
            code.place(plan.entry.address, &read)?,
            plan.entry.cfa_offset,
        )),
        // The ways through it are not understood (written in assembly, perhaps), but it is all instructions, and
        // the first is always passed.
        Err(_) => {
            let place = code.place(code.entry(), &read)?;
            let harmless =
                sites::is_taken(place.instruction()) && rules.allows(place.instruction());
            harmless.then_some((place, 8))
        }
    }
}

/// Where the unwinder's context keeps the stack pointer that a frame will have, read off the code of
/// `_Unwind_GetCFA`: `mov rax, [rdi + place]; ret`.
fn cfa_place(module: &Image, elf: &Elf, symbol: &Symbol) -> Option<u64> {
    let size = usize::try_from(symbol.size.min(64)).ok()?;
    let bytes = elf.bytes(&module.file, symbol.address, size)?;
    sites::returned_field(&bytes, symbol.address).filter(|place| *place < 4096)
}

/// Where LLVM's unwinder keeps the stack pointer that a frame will have: its context is an `UnwindCursor`, which has
/// a virtual table, an address space, then the registers in the order of `Registers_x86_64` (libunwind's
/// `UnwindCursor.hpp` and `Registers.hpp`), `rsp` the eighth.
const LLVM_PLACE: u64 = 16 + 7 * 8;

/// Whether this `_Unwind_SetIP` is LLVM's: it sets a register by number, `UNW_REG_IP`, which is -1.
fn is_llvm(module: &Image, elf: &Elf, symbol: &Symbol) -> bool {
    let Some(bytes) = usize::try_from(symbol.size.min(64))
        .ok()
        .and_then(|size| elf.bytes(&module.file, symbol.address, size))
    else {
        return false;
    };
    sites::passes_minus_one_second(&bytes, symbol.address)
}
