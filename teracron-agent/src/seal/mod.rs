//! Encryption: plaintext in, envelope out, and nothing of the plaintext or the key left behind.
//!
//! The envelope (wire.md, "Envelope"): RSA-OAEP (SHA-256) of a fresh AES-256 key, 512 bytes; IV, 12;
//! GCM tag, 16; ciphertext. Key and IV come from the operating system for each envelope.

use aes_gcm::{AeadInPlace as _, Aes256Gcm, KeyInit as _};
use rsa::{
    Oaep, RsaPublicKey,
    rand_core::{OsRng, RngCore as _},
};
use sha2::Sha256;
use zeroize::{Zeroize as _, Zeroizing};

const KEY_BYTES: usize = 512;
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

/// Why something could not be encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("encryption failed: {0}")]
pub struct SealError(&'static str);

/// Makes envelopes for one project.
pub struct Sealer {
    public_key: RsaPublicKey,
}

impl Sealer {
    /// For an RSA-4096 key, which was parsed once.
    pub fn new(public_key: RsaPublicKey) -> Self {
        Self { public_key }
    }

    /// Encrypts in place.
    ///
    /// # Errors
    /// Where the operating system gives no random bytes, or the key is not RSA-4096.
    pub fn seal(&self, mut plaintext: Plaintext) -> Result<Vec<u8>, SealError> {
        let mut key = Zeroizing::new([0u8; 32]);
        let mut iv = [0u8; IV_BYTES];
        OsRng
            .try_fill_bytes(key.as_mut_slice())
            .and_then(|()| OsRng.try_fill_bytes(&mut iv))
            .map_err(|_| SealError("the system gives no random bytes"))?;
        let wrapped = self
            .public_key
            .encrypt(&mut OsRng, Oaep::new::<Sha256>(), key.as_slice())
            .map_err(|_| SealError("the public key takes no AES key"))?;
        let cipher = Aes256Gcm::new_from_slice(key.as_slice())
            .map_err(|_| SealError("an AES key of another length"))?;
        let (head, body) = plaintext.0.split_at_mut(HEAD_BYTES);
        let tag = cipher
            .encrypt_in_place_detached(&iv.into(), b"", body)
            .map_err(|_| SealError("too long"))?;
        if wrapped.len() != KEY_BYTES {
            return Err(SealError("the public key is not RSA-4096"));
        }
        head[..KEY_BYTES].copy_from_slice(&wrapped);
        head[KEY_BYTES..KEY_BYTES + IV_BYTES].copy_from_slice(&iv);
        head[KEY_BYTES + IV_BYTES..].copy_from_slice(&tag);
        // No plaintext any more.
        Ok(std::mem::take(&mut plaintext.0))
    }
}
