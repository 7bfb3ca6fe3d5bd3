//! What is compressed in a file: sections of debug information (zlib, zstd) and symbols (xz); and the tables beside
//! them that are read by hand (notes, versions, the dynamic section), which the bytes fill in turn.
#![no_main]

use std::{io::Write as _, os::unix::fs::FileExt as _};

use libfuzzer_sys::fuzz_target;
use image::{debug::{DebugInfo, frame_rows}, symbol::{Elf, unpacked}};

/// Name, type and flags of the sections; the first has the bytes.
const KINDS: [(&str, u32, u64); 7] = [
    (".debug_info", 1, 0x800),
    (".gnu_debugdata", 1, 0),
    (".note.gnu.build-id", 7, 0),
    (".gnu.version_d", 0x6fff_fffd, 0),
    (".dynamic", 6, 0),
    (".gnu_debuglink", 1, 0),
    (".eh_frame", 1, 0),
];

/// A file of four sections: none, the bytes, symbol versions, texts (which are the bytes as well).
fn file_of(kind: usize, bytes: &[u8]) -> Vec<u8> {
    let (name, section_type, flags) = KINDS[kind % KINDS.len()];
    let mut names = vec![0];
    names.extend_from_slice(name.as_bytes());
    names.push(0);
    let names_at = 64 + 64 * 5;
    let bytes_at = names_at + names.len();
    let mut out = b"\x7fELF\x02\x01\x01".to_vec();
    out.resize(names_at, 0);
    let mut put = |at: usize, value: u64, width: usize| {
        out[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    };
    for (at, value, width) in [
        (18, 62, 2),
        (40, 64, 8),
        (58, 64, 2),
        (60, 5, 2),
        (62, 4, 2),
    ] {
        put(at, value, width);
    }
    let (at, len) = (bytes_at as u64, bytes.len() as u64);
    let sections = [
        (1, section_type, flags, at, len),
        (0, 0x6fff_ffff, 0, at, len),
        (0, 3, 0, at, len),
        (0, 3, 0, names_at as u64, names.len() as u64),
    ];
    for (number, (name, kind, flags, at, len)) in sections.into_iter().enumerate() {
        let header = 64 + 64 * (number + 1);
        put(header, name, 4);
        put(header + 4, kind.into(), 4);
        put(header + 8, flags, 8);
        put(header + 24, at, 8);
        put(header + 32, len, 8);
        put(header + 40, 3, 4);
    }
    out.extend_from_slice(&names);
    out.extend_from_slice(bytes);
    out
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else {
        return;
    };
    let Ok(mut file) = tempfile::tempfile() else {
        return;
    };
    let whole = file_of(usize::from(*kind), rest);
    if file.write_all(&whole).is_err() || file.read_at(&mut [0], 0).is_err() {
        return;
    }
    let Ok(elf) = Elf::read(&file) else {
        return;
    };
    let _ = unpacked(&file, &elf);
    let _ = frame_rows(&file, 0x1000);
    if let Ok(Some(debug)) = DebugInfo::open(&file, None) {
        let _ = debug.inlined_functions(|_| true);
    }
});
