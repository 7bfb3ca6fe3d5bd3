//! What was captured of calls that have not ended.

use std::collections::{HashMap, VecDeque};

use crate::decode::RawCapture;
use model::Polls;
use planner::capture::{CapturePlan, Captured, read};

/// Calls whose captures are kept; what a call captured longer ago is forgotten, and counted.
const MAX_OPEN: usize = 65_536;

/// Captures by span.
#[derive(Default)]
pub(super) struct Captures {
    open: HashMap<[u64; 2], Captured>,
    order: VecDeque<[u64; 2]>,
    lost: u64,
}

impl Captures {
    /// Takes what was read of a call.
    pub(super) fn add(&mut self, raw: &RawCapture<'_>, plans: &[CapturePlan]) {
        let Some(plan) = plans.get(raw.plan.index()) else {
            return;
        };
        let captured = self.of(raw.span_id);
        if captured.failure.is_none() {
            captured.failure.clone_from(&plan.failure);
        }
        if plan.at_exit && captured.given.is_none() {
            captured.given = Some(captured.parameters.len());
        }
        read(plan, raw.items, captured);
    }

    /// Takes how a future was polled.
    pub(super) fn polled(&mut self, span_id: [u64; 2], polls: Polls) {
        self.of(span_id).polls = Some(polls);
    }

    /// What is known of a call so far.
    fn of(&mut self, span_id: [u64; 2]) -> &mut Captured {
        if !self.open.contains_key(&span_id) {
            // Ids of calls that have ended are dropped as they come up.
            while self.open.len() >= MAX_OPEN || self.order.len() >= 2 * MAX_OPEN {
                let Some(oldest) = self.order.pop_front() else {
                    break;
                };
                self.lost += u64::from(self.open.remove(&oldest).is_some());
            }
            self.order.push_back(span_id);
        }
        self.open.entry(span_id).or_default()
    }

    /// What was read of a call that has ended.
    pub(super) fn take(&mut self, span_id: [u64; 2]) -> Option<Captured> {
        if self.open.is_empty() {
            return None;
        }
        self.open.remove(&span_id)
    }

    /// Forgets what a call gave back.
    pub(super) fn forget_result(&mut self, span_id: [u64; 2]) {
        if let Some(captured) = self.open.get_mut(&span_id)
            && let Some(given) = captured.given
        {
            let given = Captured {
                parameters: std::mem::take(&mut captured.parameters).first(given),
                polls: captured.polls,
                ..Captured::default()
            };
            *captured = given;
        }
    }

    /// Calls whose captures were forgotten.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use teracron_common::{
        Plan,
        plan::{MAX_STEPS, Step},
    };

    #[test]
    fn what_waits_is_bounded_and_counted() {
        let plans = [CapturePlan {
            steps: Plan {
                probe: teracron_common::ProbeId(0),
                len: 0,
                steps: [Step::default(); MAX_STEPS],
            },
            keys: Vec::new(),
            failure: None,
            at_exit: false,
        }];
        let mut captures = Captures::default();
        let add = |captures: &mut Captures, id: u64| {
            captures.add(
                &RawCapture {
                    plan: teracron_common::PlanId(0),
                    span_id: [0, id],
                    items: &[],
                },
                &plans,
            );
        };
        for id in 0..MAX_OPEN as u64 + 10 {
            add(&mut captures, id);
        }
        assert_eq!(captures.lost(), 10);
        assert!(captures.take([0, 9]).is_none());
        assert!(captures.take([0, 10]).is_some());
        // Calls that end in time cost nothing.
        for id in 0..10 * MAX_OPEN as u64 {
            add(&mut captures, id);
            captures.take([0, id]);
        }
        assert!(captures.order.len() <= 2 * MAX_OPEN);
    }
}
