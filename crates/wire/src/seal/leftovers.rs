//! What cryptography leaves behind outside the heap.
//!
//! The libraries wipe what they own, but values that were moved or spilled leave copies on the stack, below
//! whatever runs next, and in vector registers: a core dump shows both.

use std::hint::black_box;

use super::{IV_BYTES, encrypt};

/// Bytes of the stack that are overwritten. Sealing an envelope takes less than a quarter
/// (measured by the tests below); a thread has two megabytes.
const WIPED: usize = 64 << 10;

/// Runs `work`, then overwrites the stack that it had, and the vector registers.
pub(super) fn wiped<T>(work: impl FnOnce() -> T) -> T {
    let done = kept_apart(work);
    // The same code again, with a key that is none: it fills the same registers. Before the stack is
    // wiped, as its own traces are of no interest.
    overwrite_registers();
    overwrite_stack();
    done
}

/// Not inlined: what it needs of the stack lies below the caller's frame, where it is overwritten.
#[inline(never)]
fn kept_apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn overwrite_registers() {
    // As many blocks as the library works on at a time, and a rest.
    let mut nothing = [0u8; 16 * 17];
    let _ = black_box(encrypt(black_box(&[0; 32]), &[0; IV_BYTES], &mut nothing));
}

#[inline(never)]
fn overwrite_stack() {
    let mut room = [0u8; WIPED];
    // The compiler must believe that somebody reads it.
    black_box(&mut room);
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::FileExt as _};

    use rsa::pkcs8::DecodePrivateKey as _;

    use super::*;
    use crate::seal::{HEAD_BYTES, KEY_BYTES, Plaintext, PublicKey, Sealer};

    const PAINTED: usize = 4 * WIPED;
    const PAINT: u8 = 0xa5;

    #[inline(never)]
    fn paint() {
        black_box(&mut [PAINT; PAINTED]);
    }

    /// The stack below this thread's `frame`, as it is.
    fn below(frame: u64) -> Vec<u8> {
        // On the heap, and read in one go: looking must not overwrite what is looked for.
        let mut bytes = vec![0; PAINTED - 4096];
        let at = frame - bytes.len() as u64;
        let memory = File::open("/proc/self/mem").unwrap();
        memory.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    fn keys() -> (rsa::PrivateKey, Sealer) {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors.json")).unwrap();
        let pem = vectors["test_private_key_pem"].as_str().unwrap();
        let private = rsa::PrivateKey::from_pkcs8_pem(pem).unwrap();
        let public = rsa::PublicKey::from(&private);
        let key = PublicKey {
            key: public.into(),
            der: Default::default(),
        };
        (private, Sealer::new(key))
    }

    #[test]
    fn neither_key_nor_text_stays_on_the_stack() {
        let (private, sealer) = keys();
        let mut all_unwiped = 0;
        // Of lengths that end in each of the library's ways: nothing, blocks by eight and one, rests.
        for length in [0, 1, 16, 64, 127, 128, 1000, 40_000] {
            let text: Vec<u8> = (0..length).map(|n| (n * 7 + n / 256 + 1) as u8).collect();
            let frame = std::ptr::from_ref(&length).addr() as u64;
            // How many pieces of key and text are in what was left on the stack.
            let found = |left: &[u8], envelope: &[u8]| {
                assert_eq!(envelope.len(), HEAD_BYTES + length);
                let key = private.oaep_decrypt::<rsa::sha2::Sha256>(&envelope[..KEY_BYTES]);
                let key = key.unwrap();
                let secrets = key.chunks_exact(16).chain(text.chunks_exact(16));
                secrets
                    .filter(|secret| left.windows(16).any(|bytes| bytes == *secret))
                    .count()
            };
            paint();
            let mut plaintext = Plaintext::from_bytes(text.clone());
            sealer.seal_in_place(&mut plaintext).unwrap();
            let left = below(frame);
            let deep = left.len() - left.iter().position(|byte| *byte != PAINT).unwrap();
            assert!(deep < WIPED / 4, "sealing takes {deep} bytes of stack");
            let unwiped = found(&left, &plaintext.0);
            println!("{length} bytes: {deep} of stack; {unwiped} secrets without wiping");
            all_unwiped += unwiped;

            let plaintext = Plaintext::from_bytes(text.clone());
            let envelope = sealer.seal(plaintext).unwrap();
            assert_eq!(found(&below(frame), &envelope), 0);
        }
        // Both halves of each key, when this was written.
        assert!(
            all_unwiped > 0,
            "the search is blind, or the libraries leave nothing any more"
        );
    }
}
