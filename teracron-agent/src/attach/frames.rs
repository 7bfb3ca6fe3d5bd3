//! Calls that are open, as the kernel side's table of owners has them.

use aya::maps::{HashMap as EbpfHashMap, MapData};
use teracron_common::{
    Frame, ThreadState,
    thread::{FRAME_OPEN, is_goroutine_of},
};

use super::{OpenFrame, Session};
use crate::error::{Context as _, Error, Result};

impl Session {
    /// Calls that are open now.
    pub fn open_frames(&self) -> Result<Vec<OpenFrame>> {
        let mut open = Vec::new();
        self.for_each_open(|frame| {
            if frame.unsampled == 0 {
                open.push(OpenFrame(frame.record));
            }
        })?;
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

    /// Takes away the frames of the goroutines of a process that has ended, and answers them: the kernel
    /// side sees threads end, not goroutines.
    pub fn take_goroutines(&mut self, pid: u32) -> Result<Vec<OpenFrame>> {
        let mut left = Vec::new();
        let mut threads: EbpfHashMap<&mut MapData, u64, ThreadState> = self.map_mut("THREADS")?;
        let keys: Vec<u64> = threads
            .keys()
            .flatten()
            .filter(|key| is_goroutine_of(*key, pid))
            .collect();
        for key in keys {
            if let Ok(state) = threads.get(&key, 0) {
                let frames = state.frames.iter().take(state.depth as usize);
                left.extend(
                    frames
                        .filter(|frame| frame.state == FRAME_OPEN && frame.unsampled == 0)
                        .map(|frame| OpenFrame(frame.record)),
                );
            }
            let _ = threads.remove(&key);
        }
        Ok(left)
    }
}
