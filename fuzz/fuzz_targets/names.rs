//! Probe specifications, symbols, and text for a terminal.
#![no_main]

use image::symbol::{Names, type_name};
use libfuzzer_sys::fuzz_target;
use model::text::{glob, shown};
use planner::probe_spec::ProbeSpec;

fuzz_target!(|text: &str| {
    let _ = text.parse::<ProbeSpec>();
    let _ = Names::of(text);
    let _ = type_name(text);
    let (pattern, rest) = text.split_at(text.floor_char_boundary(text.len() / 2));
    let _ = glob(pattern.as_bytes(), rest.as_bytes());
    assert!(!shown(text).chars().any(char::is_control));
});
