//! Kernel records, the items in them, and the kernel's BTF.
#![no_main]

use libfuzzer_sys::fuzz_target;
use planner::capture::Items;
use tracer::{decode, kernel::Btf};

fuzz_target!(|bytes: &[u8]| {
    let _ = decode::record(bytes);
    for _ in Items(bytes) {}
    let _ = decode::change(bytes);
    if let Ok(btf) = Btf::parse(bytes) {
        let _ = btf.kernel_config();
    }
});
