//! Proofs that take too long for every change: run before an issue is resolved, with their figures in docs/measurements.md.

use crate::shell::{Result, cargo, run, step};

/// How often the way to the wire is killed at any instant.
const KILLS: &str = "1000";

pub(crate) fn soak() -> Result<()> {
    step("killed a thousand times", || {
        // Opening what arrived takes most of the time: optimised.
        run(cargo()
            .args([
                "test",
                "--locked",
                "--release",
                "--package",
                "teracron-agent",
            ])
            .args(["--test", "user", "--", "killed::", "--nocapture"])
            .env("TERACRON_KILLS", KILLS))
    })
}
