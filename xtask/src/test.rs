//! All tests.

use crate::shell::{Result, again_as_root, cargo, need, run};

pub fn test(args: &[String]) -> Result<()> {
    if again_as_root()? {
        return Ok(());
    }
    // Compilers for the targets, and programs whose every function the site planner is tried on.
    need(&[
        ("gcc", "gcc"),
        ("g++", "g++"),
        ("python3", "python3"),
        ("git", "git"),
    ])?;
    run(cargo().args(["test", "--workspace", "--locked"]).args(args))
}
