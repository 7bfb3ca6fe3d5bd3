//! Encryption: plaintext in, envelope out, and nothing of the plaintext or the key left behind.
//!
//! The envelope (wire.md, "Envelope"): RSA-OAEP (SHA-256) of a fresh AES-256 key, 512 bytes; IV, 12;
//! GCM tag, 16; ciphertext. Key and IV come from the operating system for each envelope.
//!
//! The crates `rsa` and `aes-gcm` do it. What they put on the heap is wiped when it is freed (the program's
//! allocator, and theirs); what they leave on the stack and in registers is overwritten in `leftovers`.

mod leftovers;
mod oaep;

use std::sync::Arc;

use aes_gcm::{Aes256Gcm, KeyInit as _, aead::AeadInOut as _};
use rsa::{pkcs8::DecodePublicKey as _, traits::PublicKeyParts as _};
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
pub struct PublicKey {
    key: Arc<rsa::PublicKey>,
    der: Arc<[u8]>,
}

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo`; `None` for anything but RSA-4096.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let key = rsa::PublicKey::from_public_key_der(der).ok()?;
        (key.size() == KEY_BYTES).then(|| Self {
            key: Arc::new(key),
            der: der.into(),
        })
    }
}

impl PublicKey {
    /// The `SubjectPublicKeyInfo` that it was read from.
    pub fn der(&self) -> &[u8] {
        &self.der
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
        let sealed = leftovers::wiped(|| self.seal_in_place(&mut plaintext));
        // No plaintext any more.
        sealed.map(|()| std::mem::take(&mut plaintext.0))
    }

    fn seal_in_place(&self, plaintext: &mut Plaintext) -> Result<(), SealError> {
        // On the heap: what moves on the stack leaves copies behind.
        let mut key = Zeroizing::new(vec![0u8; 32]);
        let mut seed = Zeroizing::new([0u8; 32]);
        let mut iv = [0u8; IV_BYTES];
        getrandom::fill(&mut key)
            .and_then(|()| getrandom::fill(&mut seed[..]))
            .and_then(|()| getrandom::fill(&mut iv))
            .map_err(|_| SealError("the system gives no random bytes"))?;
        let (head, body) = plaintext.0.split_at_mut(HEAD_BYTES);
        let (wrapped, rest) = head.split_at_mut(KEY_BYTES);
        let encrypted = oaep::encrypt(&self.public_key.key, &key, &seed)
            .ok_or(SealError("the public key takes no AES key"))?;
        wrapped.copy_from_slice(&encrypted);
        let tag = encrypt(&key, &iv, body)?;
        rest[..IV_BYTES].copy_from_slice(&iv);
        rest[IV_BYTES..].copy_from_slice(&tag);
        Ok(())
    }
}

/// AES-256-GCM in place; gives the tag back.
fn encrypt(key: &[u8], iv: &[u8; IV_BYTES], body: &mut [u8]) -> Result<[u8; TAG_BYTES], SealError> {
    let cipher =
        Aes256Gcm::new_from_slice(key).map_err(|_| SealError("an AES key of another length"))?;
    let tag = cipher
        .encrypt_inout_detached(iv.into(), &[], body.into())
        .map_err(|_| SealError("too long"))?;
    Ok(tag.into())
}
