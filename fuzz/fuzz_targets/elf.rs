//! ELF files, and the code of their functions.
#![no_main]

use std::io::Write as _;

use image::symbol::{Elf, Starts};
use libfuzzer_sys::fuzz_target;
use planner::{find::Functions, probe_spec::FunctionPattern};

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut file) = std::fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(format!("/dev/shm/teracron-fuzz-{}", std::process::id()))
    else {
        return;
    };
    if file.write_all(bytes).is_err() {
        return;
    }
    if let Ok(elf) = Elf::read(&file) {
        let all = FunctionPattern::Glob("*".to_owned());
        let starts = Starts::of(&elf, &file);
        for function in Functions::of(&elf).matching(&all).iter().take(100) {
            let _ = function.code(&starts);
        }
    }
});
