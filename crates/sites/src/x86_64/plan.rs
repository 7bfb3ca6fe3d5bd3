//! The plan of a function: its entry and exit sites, chosen together.

use super::{
    Code, Context, Cost, ExitPlan, Flow, KernelRules, Leave, Refusal, ReturnProbe, SitePlan,
    emulate, entry, exit,
};

impl SitePlan {
    /// The plan, where the kernel takes a probe at each of its sites and none can do harm.
    pub(super) fn taken(self, code: &Code, rules: KernelRules) -> Result<Self, Refusal> {
        let exits = match &self.exit {
            ExitPlan::ReturnProbe => &[],
            ExitPlan::Sites(sites) => sites.as_slice(),
        };
        let addresses = exits.iter().map(|exit| exit.address);
        for address in addresses.chain([self.entry.address]) {
            let index = code.at(address).ok_or(Refusal::Overlapping(address))?;
            if !emulate::is_taken(code.bytes(index)) {
                return Err(Refusal::NotTaken(address));
            }
            if !rules.allows(code.bytes(index)) {
                return Err(Refusal::LongNop(address));
            }
        }
        Ok(self)
    }
}

/// Makes the plan for a function.
///
/// # Errors
/// Where the code can't be understood completely.
pub fn plan(code: &Code, context: &Context<'_>) -> Result<SitePlan, Refusal> {
    let flow = match Flow::analyse(code, context.read_data) {
        Ok(flow) => flow,
        // What happens inside does not matter to a return probe, where one is safe.
        Err(_) if context.return_probe != ReturnProbe::Never => {
            return SitePlan {
                entry: entry::first(code, context.rules),
                exit: ExitPlan::ReturnProbe,
                tail_calls: true,
                leaf: false,
            }
            .taken(code, context.rules);
        }
        Err(refusal) => return Err(refusal),
    };
    let (entry, to_start) = if context.go {
        let entry = entry::after_stack_check(code, &flow, context.rules);
        (entry.ok_or(Refusal::StackCheck)?, false)
    } else {
        (
            entry::choose(code, &flow, context.rules),
            flow.is_target(code.entry()),
        )
    };
    let leaf = flow.calls == 0 && flow.leaves.iter().all(|leave| !leave.is_tail_call());

    let returning = entry::choose_unmoved(code, &flow, context.rules);
    let (exits, to_probed) = exit::choose(code, &flow, context, entry.address);
    let by_return = match context.return_probe {
        ReturnProbe::Never => false,
        ReturnProbe::Always => true,
        ReturnProbe::IfCheaper => {
            let worst = exits
                .iter()
                .map(|site| site.cost.weight())
                .max()
                .unwrap_or(0);
            returning.cost.weight() + Cost::Return.weight() < entry.cost.weight() + worst
        }
    };
    let plan = if by_return {
        SitePlan {
            entry: returning,
            exit: ExitPlan::ReturnProbe,
            tail_calls: to_start || flow.leaves.iter().any(Leave::is_tail_call),
            leaf,
        }
    } else {
        SitePlan {
            entry,
            exit: ExitPlan::Sites(exits),
            tail_calls: to_start || to_probed,
            leaf,
        }
    };
    plan.taken(code, context.rules)
}
