//! Code that maps other memory over code by a system call of its own.
//!
//! A function that exchanges the program's text can't call anything that lies in it, so it makes its system calls
//! itself: `mmap` with PROT_EXEC and MAP_FIXED, or `mremap` with MREMAP_FIXED, and its arguments are constants that
//! stand before the `syscall` instruction. A C library's own wrappers have them from their callers and are not meant.

use std::{fs::File, os::unix::fs::FileExt as _};

use image::{foreign::LIMITS, symbol::Elf};
use sites::{BEFORE_SYSTEM_CALL as BEFORE, maps_over_code};

/// Bytes read at once.
const CHUNK: usize = 1 << 20;
/// Address of a system call in a file that maps other memory over code.
pub(super) fn replaces_text(file: &File, elf: &Elf) -> Option<u64> {
    let length = file.metadata().ok()?.len();
    let mut left = LIMITS.code;
    let mut bytes = vec![0; CHUNK + BEFORE];
    for segment in elf.segments.iter().filter(|segment| segment.executable) {
        // What the header says beyond the file's end is not there.
        let size = segment
            .file_size
            .min(length.saturating_sub(segment.offset))
            .min(left);
        left -= size;
        let mut done = 0;
        while done < size {
            let kept = BEFORE.min(done as usize);
            let from = segment.offset.checked_add(done - kept as u64)?;
            let want = (CHUNK as u64).min(size - done) as usize + kept;
            let part = bytes.get_mut(..want)?;
            file.read_exact_at(part, from).ok()?;
            let address = segment.address.wrapping_add(done - kept as u64);
            if let Some(found) = maps_over_code(part, address) {
                return Some(found);
            }
            // The last byte again: an instruction may lie across.
            done += (want - kept) as u64;
            if done < size {
                done -= 1;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `mmap(…, …, 7, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, …)` as gcc writes it.
    const MOVER: &[u8] = &[
        0xb8, 9, 0, 0, 0, // mov eax, 9
        0x48, 0x89, 0xdf, // mov rdi, rbx
        0x4c, 0x89, 0xe6, // mov rsi, r12
        0xba, 7, 0, 0, 0, // mov edx, 7
        0x41, 0xba, 0x32, 0, 0, 0, // mov r10d, 0x32
        0x49, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff, // mov r8, -1
        0x45, 0x31, 0xc9, // xor r9d, r9d
        0x0f, 0x05, // syscall
    ];

    #[test]
    fn code_that_lies_across_two_readings_is_seen() {
        use std::io::Write as _;
        for place in [
            0,
            CHUNK - 200,
            CHUNK - 40,
            CHUNK - 34,
            CHUNK - 33,
            CHUNK - 1,
            CHUNK,
            2 * CHUNK - 33,
        ] {
            let mut bytes = vec![0x90; 3 * CHUNK];
            bytes[place..place + MOVER.len()].copy_from_slice(MOVER);
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            let elf = Elf {
                segments: vec![image::symbol::Segment {
                    address: 0x10_0000,
                    file_size: 1 << 40,
                    offset: 0,
                    executable: true,
                    writable: false,
                }],
                ..Elf::default()
            };
            let wanted = 0x10_0000 + (place + MOVER.len()) as u64 - 2;
            assert_eq!(replaces_text(&file, &elf), Some(wanted), "{place}");
        }
    }
}
