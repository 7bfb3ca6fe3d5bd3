//! Kernel records, the items in them, and the kernel's BTF.
#![no_main]

use libfuzzer_sys::fuzz_target;
use teracron_agent::{attach::Btf, capture::Items, read};

fuzz_target!(|bytes: &[u8]| {
    let _ = read::record(bytes);
    for _ in Items(bytes) {}
    let _ = read::change(bytes);
    if let Ok(btf) = Btf::parse(bytes) {
        let _ = btf.kernel_config();
    }
});
