//! What the way to the wire reads from outside: spool entries, API keys, hosts, settings, answers.
#![no_main]

use std::time::SystemTime;

use libfuzzer_sys::fuzz_target;
use pipeline::{ship::judge, spool::Entry};
use teracron_agent::config::{ConfigFile, is_allowed, sanitise};
use wire::api_key::{decode, mask, parse_public_key};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(entry) = Entry::from_bytes(bytes) {
        assert_eq!(entry.to_bytes(), bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(decoded) = decode(text) {
        let _ = parse_public_key(&decoded.public_key);
    }
    let _ = parse_public_key(text);
    let _ = mask(text);
    let host = sanitise(text);
    assert!(!is_allowed(&host, true) || !host.contains(['/', '@', ' ', '?']));
    let _ = ConfigFile::parse(text, "fuzz");
    let _ = judge(503, Some(text), text, SystemTime::UNIX_EPOCH);
});
