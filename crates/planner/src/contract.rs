//! How parts of the contract with the kernel side are sent to another process: it has no words for that itself, and
//! most of a plan's steps are empty.

/// Async functions, number by number.
pub(crate) mod futures {
    use serde::{Deserialize, Deserializer, Serialize as _, Serializer};
    use teracron_common::{FutureSite, PlanId, ProbeId};

    type Numbers = (ProbeId, u32, u32, PlanId, PlanId);

    pub(crate) fn serialize<S: Serializer>(sites: &[FutureSite], to: S) -> Result<S::Ok, S::Error> {
        let numbers: Vec<Numbers> = sites
            .iter()
            .map(|site| {
                (
                    site.probe,
                    site.state_offset,
                    site.is_second,
                    site.entry_plan,
                    site.exit_plan,
                )
            })
            .collect();
        numbers.serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<FutureSite>, D::Error> {
        let numbers = Vec::<Numbers>::deserialize(from)?;
        Ok(numbers
            .into_iter()
            .map(
                |(probe, state_offset, is_second, entry_plan, exit_plan)| FutureSite {
                    probe,
                    state_offset,
                    is_second,
                    entry_plan,
                    exit_plan,
                },
            )
            .collect())
    }
}

/// The steps of a plan that are in use.
pub(crate) mod steps {
    use serde::{Deserialize, Deserializer, Serialize as _, Serializer, de::Error as _};
    use teracron_common::{
        Plan, ProbeId,
        plan::{MAX_STEPS, Step},
    };

    type Numbers = (ProbeId, Vec<(u8, u8, u8, u32, u64)>);

    pub(crate) fn serialize<S: Serializer>(plan: &Plan, to: S) -> Result<S::Ok, S::Error> {
        let used = plan.steps.get(..plan.len as usize).unwrap_or(&plan.steps);
        let steps = used
            .iter()
            .map(|step| (step.code, step.a, step.key, step.to, step.operand));
        let numbers: Numbers = (plan.probe, steps.collect());
        numbers.serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Plan, D::Error> {
        let (probe, used) = Numbers::deserialize(from)?;
        let mut plan = Plan {
            probe,
            len: used.len() as u32,
            steps: [Step::default(); MAX_STEPS],
        };
        let room = plan.steps.get_mut(..used.len());
        let room = room.ok_or_else(|| D::Error::custom("a plan of too many steps"))?;
        for (step, (code, a, key, to, operand)) in room.iter_mut().zip(used) {
            *step = Step {
                code,
                a,
                key,
                reserved: 0,
                to,
                operand,
            };
        }
        Ok(plan)
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use proptest::prelude::*;

        #[derive(serde::Serialize, serde::Deserialize)]
        struct Sent(#[serde(with = "super")] Plan);

        proptest! {
            #[test]
            fn what_is_sent_arrives(probe: u32, used in proptest::collection::vec(any::<(u8, u8, u8, u32, u64)>(), 0..=MAX_STEPS)) {
                let mut plan = Plan { probe: ProbeId(probe), len: used.len() as u32, steps: [Step::default(); MAX_STEPS] };
                for (step, (code, a, key, to, operand)) in plan.steps.iter_mut().zip(&used) {
                    *step = Step { code: *code, a: *a, key: *key, reserved: 0, to: *to, operand: *operand };
                }
                let bytes = serde_json::to_vec(&Sent(plan)).unwrap();
                prop_assert_eq!(serde_json::from_slice::<Sent>(&bytes).unwrap().0, plan);
            }
        }

        #[test]
        fn too_many_steps_are_refused() {
            let steps = vec![(0u8, 0u8, 0u8, 0u32, 0u64); MAX_STEPS + 1];
            let bytes = serde_json::to_vec(&(1u32, steps)).unwrap();
            assert!(serde_json::from_slice::<Sent>(&bytes).is_err());
        }
    }
}
