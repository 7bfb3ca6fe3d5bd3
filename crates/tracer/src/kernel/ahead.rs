//! Verdicts about traces to come: user space draws ids and hashes them, so that the probe need not.

use std::collections::VecDeque;

use teracron_common::{Ahead, Sampling, sampling};

/// Verdicts that may lie in the queue: its size.
const MAX_ENTRIES: usize = 4096;
/// Traces that may be decided ahead: what the fastest program begins in a tenth of a second.
const MAX_TRACES: u64 = 100_000;
/// Hashes that are computed at a time, a millisecond or two of work.
const BUDGET: u32 = 16_384;
/// Ids that random bytes are fetched for at a time.
const IDS: usize = 256;

/// Draws traces and decides about them.
pub(super) struct Drawer {
    random: Vec<u8>,
    /// Traces behind each verdict in the queue, the oldest first.
    queued: VecDeque<u32>,
    traces: u64,
    /// Verdicts that the kernel side has taken, in all.
    taken: u64,
    /// Ids drawn and left out since the last verdict.
    skip: u32,
    epoch: u32,
}

impl Drawer {
    /// Nothing is queued yet.
    pub(super) fn new() -> Self {
        Self {
            random: Vec::new(),
            queued: VecDeque::new(),
            traces: 0,
            taken: 0,
            skip: 0,
            epoch: 0,
        }
    }

    /// The kernel side has taken so many verdicts in all.
    pub(super) fn took(&mut self, taken: u64) {
        for _ in self.taken..taken {
            if let Some(traces) = self.queued.pop_front() {
                self.traces -= u64::from(traces);
            }
        }
        self.taken = taken;
    }

    /// Decides about more traces, until enough are queued; `push` queues a verdict and says whether it
    /// found room.
    pub(super) fn fill(
        &mut self,
        sampling: Sampling,
        epoch: u32,
        mut push: impl FnMut(Ahead) -> bool,
    ) {
        if sampling.mode != sampling::SOME {
            return;
        }
        if self.epoch != epoch {
            (self.epoch, self.skip) = (epoch, 0);
        }
        for _ in 0..BUDGET {
            if self.queued.len() >= MAX_ENTRIES || self.traces >= MAX_TRACES {
                return;
            }
            let Some(id) = self.draw() else {
                return; // without random numbers the kernel side decides alone
            };
            let kept = sampling.keeps(id);
            if !kept {
                self.skip += 1;
            }
            if kept || u64::from(self.skip) >= MAX_TRACES / 2 {
                let ahead = Ahead {
                    skip: self.skip,
                    epoch,
                    id: if kept { id } else { [0; 2] },
                };
                let traces = std::mem::take(&mut self.skip).saturating_add(u32::from(kept));
                if !push(ahead) {
                    return;
                }
                self.queued.push_back(traces);
                self.traces += u64::from(traces);
            }
        }
    }

    /// A random id, never zero.
    fn draw(&mut self) -> Option<[u64; 2]> {
        if self.random.is_empty() {
            self.random.resize(IDS * 16, 0);
            getrandom::fill(&mut self.random).ok()?;
        }
        let at = self.random.len().checked_sub(16)?;
        let mut bytes = [0u8; 16];
        bytes.copy_from_slice(self.random.get(at..)?);
        self.random.truncate(at);
        let id = u128::from_le_bytes(bytes).max(1);
        Some([(id >> 64) as u64, id as u64])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(drawer: &mut Drawer, rate: f64) -> Vec<Ahead> {
        let mut pushed = Vec::new();
        loop {
            let before = (pushed.len(), drawer.skip);
            drawer.fill(Sampling::of(rate), 1, |ahead| {
                pushed.push(ahead);
                true
            });
            if before == (pushed.len(), drawer.skip) {
                return pushed;
            }
        }
    }

    #[test]
    fn the_share_is_the_rate_and_every_kept_id_obeys_the_rule() {
        let mut drawer = Drawer::new();
        let pushed = verdicts(&mut drawer, 0.1);
        assert_eq!(pushed.len(), MAX_ENTRIES);
        let sampling = Sampling::of(0.1);
        assert!(pushed.iter().all(|ahead| sampling.keeps(ahead.id)));
        let traces: u64 = pushed.iter().map(|ahead| u64::from(ahead.skip) + 1).sum();
        // Geometric: a standard deviation is 640.
        assert!(traces.abs_diff(40_960) < 6_400, "{traces}");
        let ids: std::collections::HashSet<_> = pushed.iter().map(|ahead| ahead.id).collect();
        assert_eq!(ids.len(), pushed.len());
    }

    #[test]
    fn rare_traces_do_not_cost_a_search_without_end() {
        let mut drawer = Drawer::new();
        let pushed = verdicts(&mut drawer, 1e-9);
        assert!(pushed.len() <= 4, "{pushed:?}");
        assert!(pushed.iter().all(|ahead| ahead.skip > 0));
        assert_eq!(drawer.traces, MAX_TRACES);
        drawer.took(1);
        assert_eq!(drawer.traces, MAX_TRACES / 2);
    }

    #[test]
    fn nothing_is_drawn_where_all_or_none_are_kept() {
        let mut drawer = Drawer::new();
        assert!(verdicts(&mut drawer, 0.0).is_empty() && verdicts(&mut drawer, 1.0).is_empty());
    }
}
