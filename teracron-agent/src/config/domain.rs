//! The host that everything is sent to (wire.md, "Requests").

use std::fmt;

use model::text;

/// Where nothing else is said.
pub(super) const DEFAULT: &str = "www.teracron.com";

/// Keeps `host[:port]` of what was given.
pub fn sanitise(given: &str) -> String {
    let given = given.trim();
    let rest = given
        .strip_prefix("https://")
        .or_else(|| given.strip_prefix("http://"))
        .unwrap_or(given);
    let host = rest.split('/').next().unwrap_or_default();
    if host.is_empty() {
        DEFAULT.to_owned()
    } else {
        host.to_owned()
    }
}

/// Whether it may be sent to.
pub fn is_allowed(domain: &str, allow_custom: bool) -> bool {
    // What could be more than a host and a port is never one: `user@host`, `host?x`, spaces.
    let plain = domain.bytes().all(|byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']')
    });
    let host = domain.split(':').next().unwrap_or_default().to_lowercase();
    plain && (allow_custom || host == "teracron.com" || host.ends_with(".teracron.com"))
}

/// A host that may not be sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAllowed(String);

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is not a Teracron host (*.teracron.com); TERACRON_ALLOW_CUSTOM_DOMAIN=1 allows any host",
            text::shown(&self.0)
        )
    }
}

impl std::error::Error for NotAllowed {}

/// Reads what was given as the host to send to.
///
/// # Errors
/// Where that may not be sent to.
pub fn checked(given: &str, allow_custom: bool) -> Result<String, NotAllowed> {
    let host = sanitise(given);
    if is_allowed(&host, allow_custom) {
        Ok(host)
    } else {
        Err(NotAllowed(host))
    }
}
