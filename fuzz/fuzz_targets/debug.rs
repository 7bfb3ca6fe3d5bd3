//! Debug information, and the line that asks for something in it. The bytes are laid into the debug
//! sections of a real program's frame: what the fuzzer finds is about DWARF, not about ELF headers.
#![no_main]

use std::io::Write as _;

use image::{
    debug::{DebugInfo, Lines},
    symbol::Elf,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut file) = tempfile::tempfile() else {
        return;
    };
    if file.write_all(bytes).is_err() {
        return;
    }
    let Ok(Some(debug)) = DebugInfo::open(&file, None) else {
        return;
    };
    let symbols = Elf::read(&file).map_or_else(|_| Vec::new(), |elf| elf.symbols);
    for symbol in symbols.iter().take(20) {
        let _ = debug.inlined_places(symbol.address);
        if let Ok(Some(function)) = debug.function(symbol.address) {
            for parameter in &function.parameters {
                let _ = function.home(parameter, symbol.address);
                if let Some(type_ref) = parameter.type_ref {
                    let _ = function.type_of(type_ref);
                }
            }
        }
    }
    let _ = debug.inlined_functions(|_| true);
    let lines = Lines {
        file: "a.c",
        first: 1,
        last: None,
    };
    let near = symbols.first().map(|symbol| symbol.address);
    let _ = (debug.lines(&lines, None), debug.lines(&lines, near));
});
