//! Calls that are open, as the kernel side's table of owners has them.

use teracron_common::{
    Frame, FutureKey,
    thread::{FRAME_OPEN, is_goroutine_of},
};

use super::{OpenFrame, Session, maps::Hash};
use model::Polls;

impl Session {
    /// Calls that are open now.
    pub fn open_frames(&self) -> Vec<OpenFrame> {
        let mut open = Vec::new();
        self.for_each_open(|frame| {
            if frame.unsampled == 0 {
                open.push(OpenFrame {
                    record: frame.record,
                    polls: None,
                });
            }
        });
        open.extend(self.waiting(|_| true).into_iter().map(|(_, frame)| frame));
        open
    }

    pub(super) fn for_each_open(&self, mut look: impl FnMut(&Frame)) {
        let threads = &self.maps.threads;
        for key in threads.keys().flatten() {
            let Ok(state) = threads.get(&key, 0) else {
                continue;
            };
            let depth = state.depth as usize;
            state
                .frames
                .iter()
                .take(depth)
                .filter(|frame| frame.state == FRAME_OPEN)
                .for_each(&mut look);
        }
    }

    /// Futures that wait.
    fn waiting(&self, is_meant: impl Fn(&FutureKey) -> bool) -> Vec<(FutureKey, OpenFrame)> {
        self.maps
            .futures
            .iter()
            .flatten()
            .filter(|(key, future)| is_meant(key) && future.polling == 0 && future.unsampled == 0)
            .map(|(key, future)| {
                let polls = Polls {
                    count: future.polls,
                    busy_ns: future.busy_ns,
                };
                let frame = OpenFrame {
                    record: future.record,
                    polls: Some(polls),
                };
                (key, frame)
            })
            .collect()
    }

    /// Takes away futures that wait, and answers them: nothing sees any more what becomes of them.
    pub fn take_waiting(&mut self, is_meant: impl Fn(&FutureKey) -> bool) -> Vec<OpenFrame> {
        let waiting = self.waiting(is_meant);
        let futures = &mut self.maps.futures;
        waiting
            .into_iter()
            .map(|(key, frame)| {
                let _ = futures.remove(&key);
                frame
            })
            .collect()
    }

    /// Takes away the frames of the goroutines and futures of a process that has ended, and answers them:
    /// the kernel side sees threads end, and nothing else.
    pub fn take_left(&mut self, pid: u32) -> Vec<OpenFrame> {
        let mut left = self.take_waiting(|key| key.tgid == pid);
        let threads = &mut self.maps.threads;
        for key in goroutines_of(threads, pid) {
            if let Ok(state) = threads.get(&key, 0) {
                let frames = state.frames.iter().take(state.depth as usize);
                left.extend(
                    frames
                        .filter(|frame| frame.state == FRAME_OPEN && frame.unsampled == 0)
                        .map(|frame| OpenFrame {
                            record: frame.record,
                            polls: None,
                        }),
                );
            }
            let _ = threads.remove(&key);
        }
        let spawned = &mut self.maps.spawned;
        for key in goroutines_of(spawned, pid) {
            let _ = spawned.remove(&key);
        }
        left
    }
}

/// The keys of a process's goroutines in a map.
fn goroutines_of<V: aya::Pod>(map: &Hash<u64, V>, pid: u32) -> Vec<u64> {
    let keys = map.keys().flatten();
    keys.filter(|key| is_goroutine_of(*key, pid)).collect()
}
