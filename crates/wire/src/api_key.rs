//! The API key (wire.md, "Identity"): a name and a public key in one token.

use base64::Engine as _;
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};

use crate::seal::PublicKey;

const PREFIX: &str = "tcn_";
const PEM_HEADER: &str = "-----BEGIN PUBLIC KEY-----";

/// Why a key can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Another token.
    #[error("an API key begins with tcn_; copy it whole from the Teracron dashboard")]
    Prefix,
    /// Not base64, or not text.
    #[error("the API key is damaged; copy it whole from the Teracron dashboard")]
    Damaged,
    /// No separator.
    #[error("the API key has no public key in it; copy it whole from the Teracron dashboard")]
    NoKey,
    /// No slug.
    #[error("the project's name must look like vivid-kudu-655")]
    Slug,
    /// Not a PEM public key.
    #[error("the public key must be in PEM, from -----BEGIN PUBLIC KEY----- on")]
    Pem,
    /// Another kind of key, or another size.
    #[error("the public key must be RSA-4096: envelopes have room for no other")]
    Size,
}

/// What an API key says: nothing of it is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Name of the project.
    pub slug: String,
    /// Its public key.
    pub public_key: String,
}

/// Reads a token.
///
/// # Errors
/// Where it is none.
pub fn decode(token: &str) -> Result<Decoded, KeyError> {
    let encoded = token.trim().strip_prefix(PREFIX).ok_or(KeyError::Prefix)?;
    let bytes = lenient_base64(encoded).ok_or(KeyError::Damaged)?;
    let payload = String::from_utf8(bytes).map_err(|_| KeyError::Damaged)?;
    let (slug, public_key) = payload.split_once(':').ok_or(KeyError::NoKey)?;
    check_slug(slug)?;
    if !public_key.contains(PEM_HEADER) {
        return Err(KeyError::Pem);
    }
    Ok(Decoded {
        slug: slug.to_owned(),
        public_key: public_key.to_owned(),
    })
}

/// base64url as Python reads it: missing padding is restored, foreign characters are passed over.
fn lenient_base64(encoded: &str) -> Option<Vec<u8>> {
    let padding =
        (4 - encoded.len() % 4) % 4 + encoded.bytes().filter(|byte| *byte == b'=').count();
    let digits: String = encoded
        .chars()
        .filter_map(|character| match character {
            '+' => Some('-'),
            '/' => Some('_'),
            'A'..='Z' | 'a'..='z' | '0'..='9' | '-' | '_' => Some(character),
            _ => None,
        })
        .collect();
    let wanted = match digits.len() % 4 {
        0 => 0,
        2 => 2,
        3 => 1,
        _ => return None,
    };
    if padding < wanted {
        return None;
    }
    let engine = base64::engine::GeneralPurpose::new(
        &base64::alphabet::URL_SAFE,
        base64::engine::GeneralPurposeConfig::new()
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone)
            .with_decode_allow_trailing_bits(true),
    );
    engine.decode(digits).ok()
}

/// Checks the name of a project: `^[a-z]+-[a-z]+-\d{3}$`.
///
/// # Errors
/// Where it is none.
pub fn check_slug(slug: &str) -> Result<(), KeyError> {
    let parts: Vec<&str> = slug.split('-').collect();
    let word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase());
    match parts.as_slice() {
        [first, second, number]
            if word(first)
                && word(second)
                && number.len() == 3
                && number.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            Ok(())
        }
        _ => Err(KeyError::Slug),
    }
}

/// Parses the public key.
///
/// # Errors
/// Where it is none, or not RSA-4096.
pub fn parse_public_key(pem: &str) -> Result<PublicKey, KeyError> {
    let start = pem.find(PEM_HEADER).ok_or(KeyError::Pem)?;
    let pem = pem.get(start..).unwrap_or_default();
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::Pem)?;
    PublicKey::from_der(&der).ok_or(KeyError::Size)
}

/// A key as it is shown.
pub fn mask(token: &str) -> String {
    let characters: Vec<char> = token.chars().collect();
    if characters.len() < 16 {
        return "tcn_****".to_owned();
    }
    let (head, tail) = (&characters[..8], &characters[characters.len() - 4..]);
    head.iter().chain(&['.'; 3]).chain(tail).collect()
}
