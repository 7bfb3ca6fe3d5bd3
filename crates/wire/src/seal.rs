//! Encryption: plaintext in, envelope out, and nothing of the plaintext or the key left behind.
//!
//! The envelope (wire.md, "Envelope"): RSA-OAEP (SHA-256) of a fresh AES-256 key, 512 bytes; IV, 12;
//! GCM tag, 16; ciphertext. Key and IV come from the operating system for each envelope.
//!
//! AWS-LC does both: it comes with the TLS library, and wraps a key in a fifteenth of the time that the
//! crate `rsa` takes. What it copies of a key it cleanses when it frees it.

use std::sync::Arc;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey},
};
use zeroize::{Zeroize as _, Zeroizing};

/// Bytes of the wrapped key, and so of the public key's modulus: the envelope has room for no other.
pub const KEY_BYTES: usize = 512;
const IV_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// Bytes before the ciphertext.
pub const HEAD_BYTES: usize = KEY_BYTES + IV_BYTES + TAG_BYTES;

/// Bytes that have not been encrypted yet. They lie where their ciphertext will, are wiped when they
/// are dropped, and whenever they move because they grow.
pub struct Plaintext(Vec<u8>);

impl Plaintext {
    /// Nothing yet, with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + capacity);
        bytes.resize(HEAD_BYTES, 0);
        Self(bytes)
    }

    /// Of bytes that exist; they are wiped.
    pub fn from_bytes(mut bytes: Vec<u8>) -> Self {
        let mut this = Self::with_capacity(bytes.len());
        this.0.extend_from_slice(&bytes);
        bytes.zeroize();
        this
    }

    /// Lets `write` append, with at least `room` bytes of room: more would leave a copy behind.
    pub fn append(&mut self, room: usize, write: impl FnOnce(&mut Vec<u8>)) {
        if self.0.capacity() - self.0.len() < room {
            let mut larger = Vec::with_capacity((self.0.len() + room).max(self.0.capacity() * 2));
            larger.extend_from_slice(&self.0);
            self.0.zeroize();
            self.0 = larger;
        }
        let before = self.0.as_ptr();
        write(&mut self.0);
        debug_assert!(before == self.0.as_ptr(), "there was too little room");
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.0.len() - HEAD_BYTES
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for Plaintext {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A project's public key, parsed once.
#[derive(Clone)]
pub struct PublicKey(Arc<OaepPublicEncryptingKey>);

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo`; `None` for anything but RSA-4096.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let key = PublicEncryptingKey::from_der(der).ok()?;
        if key.key_size_bytes() != KEY_BYTES {
            return None;
        }
        Some(Self(Arc::new(OaepPublicEncryptingKey::new(key).ok()?)))
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PublicKey(RSA-4096)")
    }
}

/// Why something could not be encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("encryption failed: {0}")]
pub struct SealError(&'static str);

/// Makes envelopes for one project.
pub struct Sealer {
    public_key: PublicKey,
}

impl Sealer {
    /// For a project's key.
    pub fn new(public_key: PublicKey) -> Self {
        Self { public_key }
    }

    /// Encrypts in place.
    ///
    /// # Errors
    /// Where the operating system gives no random bytes, or the library fails.
    pub fn seal(&self, mut plaintext: Plaintext) -> Result<Vec<u8>, SealError> {
        // On the heap: what moves on the stack leaves copies behind.
        let mut key = Zeroizing::new(vec![0u8; 32]);
        let mut iv = [0u8; IV_BYTES];
        getrandom::fill(&mut key)
            .and_then(|()| getrandom::fill(&mut iv))
            .map_err(|_| SealError("the system gives no random bytes"))?;
        let (head, body) = plaintext.0.split_at_mut(HEAD_BYTES);
        let (wrapped, rest) = head.split_at_mut(KEY_BYTES);
        self.public_key
            .0
            .encrypt(&OAEP_SHA256_MGF1SHA256, &key, wrapped, None)
            .map_err(|_| SealError("the public key takes no AES key"))?;
        let cipher = UnboundKey::new(&AES_256_GCM, &key)
            .map(LessSafeKey::new)
            .map_err(|_| SealError("an AES key of another length"))?;
        let tag = cipher
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(iv), Aad::empty(), body)
            .map_err(|_| SealError("too long"))?;
        rest[..IV_BYTES].copy_from_slice(&iv);
        rest[IV_BYTES..].copy_from_slice(tag.as_ref());
        // No plaintext any more.
        Ok(std::mem::take(&mut plaintext.0))
    }
}
