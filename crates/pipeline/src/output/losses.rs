//! What was lost, and what is missing, by cause.

use teracron_common::{Counter, Counters};

use model::text::grouped;

/// Calls of which no span comes.
const LOST: [(Counter, &str); 4] = [
    (Counter::LostRing, "because the ring buffer was full"),
    (
        Counter::LostFrames,
        "more than 64 calls open at once in a thread",
    ),
    (Counter::LostThreads, "in too many threads"),
    (Counter::LostEnds, "whose end could not be known"),
];

/// What else a user should hear of.
const MISSING: [(Counter, &str); 4] = [
    (Counter::Unreadable, "reads of the target's memory failed"),
    (Counter::LostEvents, "process events"),
    (
        Counter::LostCaptures,
        "calls with values that could not be read",
    ),
    (
        Counter::LostOrigins,
        "goroutines whose spans are traces of their own",
    ),
];

/// Why calls were lost; empty where none was.
pub(super) fn lost(counters: &Counters) -> String {
    causes(counters, &LOST)
}

/// What is missing though no call was lost by it; empty where nothing is.
pub(super) fn missing(counters: &Counters) -> String {
    causes(counters, &MISSING)
}

fn causes(counters: &Counters, causes: &[(Counter, &str)]) -> String {
    let told: Vec<String> = causes
        .iter()
        .filter(|(counter, _)| counters.get(*counter) > 0)
        .map(|(counter, cause)| format!("{} {cause}", grouped(counters.get(*counter))))
        .collect();
    told.join(", ")
}

/// Both, while the run goes on.
pub(super) fn so_far(counters: &Counters) -> String {
    let parts = [("lost", lost(counters)), ("missing", missing(counters))];
    let told: Vec<String> = parts
        .into_iter()
        .filter(|(_, causes)| !causes.is_empty())
        .map(|(what, causes)| format!("{what} so far: {causes}"))
        .collect();
    told.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_its_place() {
        for counter in 0..teracron_common::counters::COUNTERS {
            let mut counters = Counters::default();
            counters.0[counter as usize] = 1;
            assert_eq!(counters.lost() > 0, !lost(&counters).is_empty());
            assert_eq!(counters.troubles() > 0, !so_far(&counters).is_empty());
        }
        let mut counters = Counters::default();
        counters.0[Counter::LostRing as usize] = 1200;
        counters.0[Counter::LostCaptures as usize] = 3;
        insta::assert_snapshot!(so_far(&counters), @"lost so far: 1,200 because the ring buffer was full; missing so far: 3 calls with values that could not be read");
    }
}
