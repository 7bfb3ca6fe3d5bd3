//! Processes that have ended, of which something is still known: their last spans may be read after their end.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// By then all that they did has been read.
const KEPT: Duration = Duration::from_secs(10);

/// Those that have ended, in order.
#[derive(Default)]
pub(super) struct Gone(VecDeque<(Instant, u32)>);

impl Gone {
    /// A process has ended.
    pub(super) fn add(&mut self, pid: u32, now: Instant) {
        self.0.push_back((now, pid));
    }

    /// Those of whom nothing needs to be known any more.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<u32> {
        let due = self
            .0
            .partition_point(|(ended, _)| now.saturating_duration_since(*ended) >= KEPT);
        self.0.drain(..due).map(|(_, pid)| pid).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_kept_for_a_while() {
        let start = Instant::now();
        let mut gone = Gone::default();
        gone.add(1, start);
        gone.add(2, start + KEPT / 2);
        assert_eq!(gone.take_due(start + KEPT / 2), [0u32; 0]);
        assert_eq!(gone.take_due(start + KEPT), [1]);
        assert_eq!(gone.take_due(start + 2 * KEPT), [2]);
        assert_eq!(gone.take_due(start + 2 * KEPT), [0u32; 0]);
    }
}
