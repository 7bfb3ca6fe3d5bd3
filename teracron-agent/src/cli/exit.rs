//! Exit codes: which failure ends the program with which, and what help and README say of them.

use model::error::Error;

/// Exit codes and what they mean.
pub(super) const CODES: [(&str, &str); 6] = [
    ("0", "done"),
    (
        "1",
        "failure while running; or no target is left, and the last one died by a signal other than SIGTERM, SIGINT and SIGHUP",
    ),
    ("2", "wrong usage or configuration"),
    (
        "3",
        "a privilege or kernel feature is missing: `teracron-agent doctor`",
    ),
    (
        "4",
        "target or symbol not found, or it can't be probed safely",
    ),
    (
        "130, 143",
        "SIGINT or SIGTERM while it started: nothing was traced",
    ),
];

/// The exit code of a failure. The command line's own mistakes are 2 as well; a signal at the start ends the program
/// in `run`.
pub fn code(error: &Error) -> u8 {
    match error {
        Error::Failed(_) => 1,
        Error::Usage(_) => 2,
        Error::Missing(_) => 3,
        Error::NotFound(_) => 4,
    }
}

/// What help says beside the options.
pub(super) fn extra() -> String {
    let mut text = "\
Without a command, `run` is meant:
  sudo teracron-agent --pid 1234 --probe payment:create_order

Times are seconds, or have a unit: 500ms, 5s, 2m, 1h30m. `teracron-agent config` shows what is in force.

Exit codes:
"
    .to_owned();
    for (code, meaning) in CODES {
        text.push_str(&format!("  {code:<9} {meaning}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    #[test]
    fn the_page_has_these_codes() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
        let page = fs::read_to_string(path).unwrap();
        let rows: Vec<String> = CODES
            .iter()
            .map(|(code, meaning)| format!("| {code} | {meaning} |"))
            .collect();
        assert!(page.contains(&rows.join("\n")), "{rows:#?}");
    }
}
