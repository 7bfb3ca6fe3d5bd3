//! Machine code.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sites::{Code, CodePart, Context, KernelRules, ReturnProbe, plan};

fuzz_target!(|bytes: &[u8]| {
    let (code, data) = bytes.split_at(bytes.len() / 2);
    let part = CodePart {
        address: 0x1000,
        bytes: code.to_vec(),
    };
    let read_data = |address: u64, len: usize| -> Option<Vec<u8>> {
        let start = usize::try_from(address.checked_sub(0x10_0000)?).ok()?;
        Some(data.get(start..start.checked_add(len)?)?.to_vec())
    };
    if let Ok(code) = Code::decode(&[part]) {
        for return_probe in [ReturnProbe::Never, ReturnProbe::IfCheaper] {
            let _ = plan(
                &code,
                &Context {
                    rules: KernelRules::of(6, 18),
                    read_data: &read_data,
                    is_probed: &|address| address % 2 == 0,
                    return_probe,

                    go: bytes.first().is_some_and(|byte| byte & 1 == 1),
                    results: u16::from(bytes.len() as u8),
                },
            );
        }
    }
});
