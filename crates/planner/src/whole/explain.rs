//! A plan, line by line, for people.

use crate::probe::ModulePlan;
use model::text;
use sites::ExitPlan;

/// What is going to be attached in a file, and read.
pub(super) fn lines(plan: &ModulePlan) -> Vec<String> {
    let mut lines = Vec::new();
    for (function, sites, captures) in &plan.functions {
        lines.push(format!(
            "{} in {}",
            text::shown(&function.full),
            text::shown(plan.module.name())
        ));
        lines.push(format!(
            "entry at {:#x} ({})",
            sites.entry.address,
            sites.entry.cost.name()
        ));
        if let Some(plan) = &captures.entry {
            lines.extend(plan.to_string().lines().map(str::to_owned));
        }
        match &sites.exit {
            ExitPlan::ReturnProbe => lines.push("exit by return probe".to_owned()),
            ExitPlan::Sites(exits) => {
                for exit in exits {
                    let out = if exit.returns {
                        "exit"
                    } else {
                        "exit by a jump"
                    };
                    lines.push(format!(
                        "{out} at {:#x} ({})",
                        exit.address,
                        exit.cost.name()
                    ));
                }
            }
        }
        if let Some(plan) = &captures.exit {
            lines.extend(plan.to_string().lines().map(str::to_owned));
        }
    }
    lines
}
