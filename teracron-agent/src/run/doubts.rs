//! Processes that may lack breakpoints: of their calls that were open nobody knows how they ended.

use std::collections::HashMap;

/// Since when a process has its breakpoints again.
enum Again {
    /// It may lack some still.
    NotYet,
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    Since(u64),
}

/// Bookkeeping without I/O.
#[derive(Default)]
pub(super) struct Doubts {
    processes: HashMap<u32, Again>,
    /// Calls that are not told, because their ends may have been missed.
    pub calls: u64,
}

impl Doubts {
    /// From now on a process may lack breakpoints.
    pub(super) fn begin(&mut self, pid: u32) {
        self.processes.insert(pid, Again::NotYet);
    }

    /// It had lacked some, and has them again since then.
    pub(super) fn end(&mut self, pid: u32, at_ns: u64) {
        self.processes.insert(pid, Again::Since(at_ns));
    }

    /// Forgets a process: it never lacked any, or is no more. Answers whether it may have lacked some to the last.
    pub(super) fn forget(&mut self, pid: u32) -> bool {
        matches!(self.processes.remove(&pid), Some(Again::NotYet))
    }

    /// Whether the end of a call that began then may have been missed.
    pub(super) fn hold_for(&self, pid: u32, start_ns: u64) -> bool {
        match self.processes.get(&pid) {
            None => false,
            Some(Again::NotYet) => true,
            Some(Again::Since(at_ns)) => start_ns < *at_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubts_come_and_go() {
        let mut doubts = Doubts::default();
        assert!(!doubts.hold_for(1, 5));
        doubts.begin(1);
        assert!(doubts.hold_for(1, u64::MAX));
        assert!(!doubts.hold_for(2, 5));
        doubts.end(1, 7);
        assert!(doubts.hold_for(1, 6) && !doubts.hold_for(1, 7));
        assert!(!doubts.forget(1));
        doubts.begin(1);
        assert!(doubts.forget(1) && !doubts.forget(1));
    }
}
