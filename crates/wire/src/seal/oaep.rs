//! RSA-OAEP with SHA-256 and an empty label (RFC 8017, 7.1.1) for a public key.
//!
//! The crate `rsa` does the same, but raises to the public exponent as if that were a secret: a table of powers and 37
//! multiplications, where 65537 takes 17. Of an envelope's time that is most. The exponent is public; what is secret, the
//! message, decides nothing here but the numbers that are multiplied in constant time.

use crypto_bigint::modular::BoxedMontyForm;
use rsa::{BoxedUint, PublicKey, traits::PublicKeyParts as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Bytes of a SHA-256.
const HASH: usize = 32;

/// Encrypts a message with a seed that is used for nothing else. `None` where the message is too long for the key.
pub(super) fn encrypt(
    key: &PublicKey,
    message: &[u8],
    seed: &[u8; HASH],
) -> Option<Zeroizing<Vec<u8>>> {
    let block = pad(key.size(), message, seed)?;
    let base = BoxedUint::from_be_slice(&block, key.n_bits_precision()).ok()?;
    let base = BoxedMontyForm::new(base, key.n_params());
    let exponent = key.e();
    let mut power = base.clone();
    for bit in (0..exponent.bit_width_vartime().checked_sub(1)?).rev() {
        power = power.square();
        if exponent.bit_vartime(bit) {
            power = power.mul(&base);
        }
    }
    let bytes = power.retrieve().to_be_bytes();
    // The number's last bytes: its precision may be larger than the key.
    let start = bytes.len().checked_sub(key.size())?;
    Some(Zeroizing::new(bytes[start..].to_vec()))
}

/// The padded message: 0, the masked seed, the masked block of data.
fn pad(size: usize, message: &[u8], seed: &[u8; HASH]) -> Option<Zeroizing<Vec<u8>>> {
    let zeros = size.checked_sub(message.len() + 2 * HASH + 2)?;
    let mut block = Zeroizing::new(vec![0; size]);
    let (masked_seed, data) = block[1..].split_at_mut(HASH);
    masked_seed.copy_from_slice(seed);
    data[..HASH].copy_from_slice(&Sha256::digest(b""));
    data[HASH + zeros] = 1;
    data[HASH + zeros + 1..].copy_from_slice(message);
    mask(data, masked_seed);
    mask(masked_seed, data);
    Some(block)
}

/// MGF1 (RFC 8017, B.2.1), applied.
fn mask(target: &mut [u8], seed: &[u8]) {
    for (counter, piece) in (0u32..).zip(target.chunks_mut(HASH)) {
        let hash = Sha256::new()
            .chain_update(seed)
            .chain_update(counter.to_be_bytes())
            .finalize();
        for (byte, mask) in piece.iter_mut().zip(hash) {
            *byte ^= mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rsa::pkcs8::DecodePrivateKey as _;
    use std::sync::LazyLock;

    static PRIVATE: LazyLock<rsa::PrivateKey> = LazyLock::new(|| {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors.json")).unwrap();
        let pem = vectors["test_private_key_pem"].as_str().unwrap();
        rsa::PrivateKey::from_pkcs8_pem(pem).unwrap()
    });

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn another_library_opens_it(
            message in proptest::collection::vec(any::<u8>(), 0..=446),
            seed in any::<[u8; HASH]>(),
        ) {
            let key = PublicKey::from(&*PRIVATE);
            let sealed = encrypt(&key, &message, &seed).unwrap();
            prop_assert_eq!(sealed.len(), 512);
            prop_assert_eq!(PRIVATE.oaep_decrypt::<rsa::sha2::Sha256>(&sealed).unwrap(), message);
        }
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let key = PublicKey::from(&*PRIVATE);
        assert!(encrypt(&key, &[7; 446], &[1; HASH]).is_some());
        assert!(encrypt(&key, &[7; 447], &[1; HASH]).is_none());
    }
}
