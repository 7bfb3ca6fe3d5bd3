//! Calls that are open, as the kernel side's table of owners has them.

use aya::maps::{HashMap as EbpfHashMap, MapData};
use teracron_common::{
    Frame, FutureKey, FutureState, Spawned, ThreadState,
    thread::{FRAME_OPEN, is_goroutine_of},
};

use super::{OpenFrame, Session};
use model::{
    Polls,
    error::{Context as _, Error, Result},
};

impl Session {
    /// Calls that are open now.
    pub fn open_frames(&self) -> Result<Vec<OpenFrame>> {
        let mut open = Vec::new();
        self.for_each_open(|frame| {
            if frame.unsampled == 0 {
                open.push(OpenFrame {
                    record: frame.record,
                    polls: None,
                });
            }
        })?;
        open.extend(self.waiting(|_| true)?.into_iter().map(|(_, frame)| frame));
        Ok(open)
    }

    pub(super) fn for_each_open(&self, mut look: impl FnMut(&Frame)) -> Result<()> {
        let map = self
            .ebpf
            .map("THREADS")
            .ok_or_else(|| Error::Failed("the eBPF object has no map THREADS".to_owned()))?;
        let threads: EbpfHashMap<&MapData, u64, ThreadState> = map
            .try_into()
            .failed(|| "the eBPF map THREADS".to_owned())?;
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
        Ok(())
    }

    /// Futures that wait.
    fn waiting(
        &self,
        is_meant: impl Fn(&FutureKey) -> bool,
    ) -> Result<Vec<(FutureKey, OpenFrame)>> {
        let map = self
            .ebpf
            .map("FUTURES")
            .ok_or_else(|| Error::Failed("the eBPF object has no map FUTURES".to_owned()))?;
        let futures: EbpfHashMap<&MapData, FutureKey, FutureState> = map
            .try_into()
            .failed(|| "the eBPF map FUTURES".to_owned())?;
        Ok(futures
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
            .collect())
    }

    /// Takes away futures that wait, and answers them: nothing sees any more what becomes of them.
    pub fn take_waiting(
        &mut self,
        is_meant: impl Fn(&FutureKey) -> bool,
    ) -> Result<Vec<OpenFrame>> {
        let waiting = self.waiting(is_meant)?;
        if waiting.is_empty() {
            return Ok(Vec::new());
        }
        let mut futures: EbpfHashMap<&mut MapData, FutureKey, FutureState> =
            self.map_mut("FUTURES")?;
        Ok(waiting
            .into_iter()
            .map(|(key, frame)| {
                let _ = futures.remove(&key);
                frame
            })
            .collect())
    }

    /// Takes away the frames of the goroutines and futures of a process that has ended, and answers them:
    /// the kernel side sees threads end, and nothing else.
    pub fn take_left(&mut self, pid: u32) -> Result<Vec<OpenFrame>> {
        let mut left = self.take_waiting(|key| key.tgid == pid)?;
        let mut threads: EbpfHashMap<&mut MapData, u64, ThreadState> = self.map_mut("THREADS")?;
        for key in goroutines_of(&threads, pid) {
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
        let mut spawned: EbpfHashMap<&mut MapData, u64, Spawned> = self.map_mut("SPAWNED")?;
        for key in goroutines_of(&spawned, pid) {
            let _ = spawned.remove(&key);
        }
        Ok(left)
    }
}

/// The keys of a process's goroutines in a map.
fn goroutines_of<V: aya::Pod>(map: &EbpfHashMap<&mut MapData, u64, V>, pid: u32) -> Vec<u64> {
    let keys = map.keys().flatten();
    keys.filter(|key| is_goroutine_of(*key, pid)).collect()
}
