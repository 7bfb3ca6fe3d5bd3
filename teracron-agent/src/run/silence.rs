//! Why nothing was told.

use std::time::{Duration, Instant};

use super::plural;
use image::FileKey;
use tracer::process::maps_any;

/// The others are looked for no longer than this.
const PATIENCE: Duration = Duration::from_millis(300);
/// As many of them are named.
const NAMED: usize = 5;

/// For a run that saw no call: who was traced, and who else has the code. `files` are those with probes.
pub(super) fn why(traced: &[u32], functions: usize, files: &[FileKey]) -> String {
    let until = Instant::now() + PATIENCE;
    let mut others = maps_any(files, until);
    others.retain(|pid| !traced.contains(pid) && *pid != std::process::id());
    sentence(traced.len(), functions, &others)
}

fn sentence(traced: usize, functions: usize, others: &[u32]) -> String {
    let what = match functions {
        1 => "the function was not called".to_owned(),
        _ => format!("none of the {functions} functions was called"),
    };
    let who = match traced {
        0 => "no traced process is running".to_owned(),
        1 => "in the traced process".to_owned(),
        _ => format!("in the {} that were traced", plural(traced, "process")),
    };
    let mut text = match traced {
        0 => format!("{what}; {who}"),
        _ => format!("{what} {who}"),
    };
    if !others.is_empty() {
        let named: Vec<String> = others.iter().take(NAMED).map(u32::to_string).collect();
        let more = match others.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        text.push_str(&format!(
            "; {} with the same code {} not traced: {}{more} (--pid each, or --exe FILE for all that run it)",
            plural(others.len(), "process"),
            if others.len() == 1 { "was" } else { "were" },
            named.join(", "),
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences() {
        insta::assert_snapshot!(sentence(1, 1, &[]), @"the function was not called in the traced process");
        insta::assert_snapshot!(sentence(0, 2, &[]), @"none of the 2 functions was called; no traced process is running");
        insta::assert_snapshot!(sentence(3, 2, &[7]), @"none of the 2 functions was called in the 3 processes that were traced; 1 process with the same code was not traced: 7 (--pid each, or --exe FILE for all that run it)");
        insta::assert_snapshot!(sentence(1, 1, &[1, 2, 3, 4, 5, 6, 7]), @"the function was not called in the traced process; 7 processes with the same code were not traced: 1, 2, 3, 4, 5 and 2 more (--pid each, or --exe FILE for all that run it)");
    }

    #[test]
    fn whoever_maps_a_file_is_found() {
        let own = image::Image::open(&std::env::current_exe().unwrap(), true).unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        assert!(maps_any(&[own.key], until).contains(&std::process::id()));
        assert_eq!(maps_any(&[own.key], Instant::now()), [0u32; 0]);
    }
}
