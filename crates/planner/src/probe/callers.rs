//! Whether a function, or one that it ends with by a jump, looks at the address that it returns to: a return probe
//! would change what it sees.

use image::{
    Image,
    symbol::{Elf, SymbolKind},
};
use sites::{Code, CodePart, Flow};

/// Functions that are looked at for one.
const MAX_FOLLOWED: usize = 16;
/// Largest function that is followed into, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Why the function's return address is to be left alone: the end of a sentence that begins with "it"; `None` where
/// nothing speaks against changing it.
pub(super) fn own_return(module: &Image, elf: &Elf, code: &Code) -> Option<String> {
    let mut open = Vec::new();
    let mut seen = vec![code.entry()];
    let mut look = |code: &Code, open: &mut Vec<u64>| -> Option<String> {
        let read = |address: u64, len: usize| elf.bytes(&module.file, address, len);
        let flow = Flow::analyse(code, &read).ok();
        let found = sites::own_return(code, flow.as_ref());
        if let Some(address) = found.used_at {
            return Some(format!(
                "may look at its own return address (at {address:#x})"
            ));
        }
        for next in found.goes_on_in {
            let Some(next) = next else {
                return Some("ends with a jump to code that is not known".to_owned());
            };
            if !seen.contains(&next) {
                seen.push(next);
                open.push(next);
            }
        }
        (seen.len() > MAX_FOLLOWED).then(|| "ends in too many functions".to_owned())
    };
    if let Some(reason) = look(code, &mut open) {
        return Some(reason);
    }
    while let Some(address) = open.pop() {
        let Some(next) = function_at(module, elf, address) else {
            return Some(format!(
                "ends with a jump to {address:#x}, of which nothing is known"
            ));
        };
        if let Some(reason) = look(&next, &mut open) {
            return Some(format!(
                "ends with a jump to a function at {address:#x}, which {reason}"
            ));
        }
    }
    None
}

/// The function of this file that begins at an address.
fn function_at(module: &Image, elf: &Elf, address: u64) -> Option<Code> {
    let first = elf
        .symbols
        .partition_point(|symbol| symbol.address < address);
    let symbol = elf
        .symbols
        .get(first..)?
        .iter()
        .take_while(|symbol| symbol.address == address)
        .find(|symbol| symbol.kind == SymbolKind::Function && symbol.size > 0)?;
    let size = usize::try_from(symbol.size.min(MAX_BYTES)).ok()?;
    let bytes = elf.bytes(&module.file, address, size)?;
    Code::decode(&[CodePart { address, bytes }]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Functions of the C library that find out who calls them, or that go back themselves.
    #[test]
    fn the_c_library_looks_at_its_callers() {
        let module = Image::open(Path::new("/lib/x86_64-linux-gnu/libc.so.6"), false).unwrap();
        let elf = Elf::read(&module.file).unwrap();
        let of = |name: &str| {
            let symbol = elf.symbol(name).unwrap();
            own_return(
                &module,
                &elf,
                &function_at(&module, &elf, symbol.address).unwrap(),
            )
        };
        for name in [
            "dlsym",
            "dlvsym",
            "dlopen",
            "dlmopen",
            "_setjmp",
            "__sigsetjmp",
            "getcontext",
            "swapcontext",
            "vfork",
            "mcount",
            "__fentry__",
        ] {
            assert!(of(name).is_some(), "{name}");
        }
        // Most others don't, and it can be told of many.
        let exported = elf.symbols.iter().filter(|symbol| symbol.size > 0);
        let free = exported
            .clone()
            .filter_map(|symbol| function_at(&module, &elf, symbol.address))
            .filter(|code| own_return(&module, &elf, code).is_none())
            .count();
        let all = exported.count();
        assert!(free > all / 4, "{free} of {all}");
    }
}
