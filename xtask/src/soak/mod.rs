//! Proofs that take too long for every change: run before an issue is resolved, with their figures in docs/measurements.md.

mod fuzz;
mod giant;

use crate::shell::{Result, cargo, run, step};

/// How often the way to the wire is killed at any instant.
const KILLS: &str = "1000";

/// A proof, by its name.
type Proof = (&'static str, fn() -> Result<()>);

/// One by its name, or all.
pub(crate) fn soak(only: Option<&str>) -> Result<()> {
    let proofs: [Proof; 3] = [
        ("kills", kills),
        ("giant", giant::giant),
        ("fuzz", fuzz::fuzz),
    ];
    let chosen: Vec<_> = proofs
        .iter()
        .filter(|(name, _)| only.is_none_or(|only| only == *name))
        .collect();
    if chosen.is_empty() {
        let names = proofs.map(|(name, _)| name).join(", ");
        return Err(format!("there is {names}"));
    }
    chosen.into_iter().try_for_each(|(_, proof)| proof())
}

fn kills() -> Result<()> {
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
