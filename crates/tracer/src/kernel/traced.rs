//! Whose calls are traced, as the kernel side knows it.

use aya::maps::{HashMap as EbpfHashMap, MapData};
use teracron_common::{
    config::FileId,
    thread::{STACK_COPIED, TRACED},
};

use super::Session;
use model::error::{Context as _, Result};

impl Session {
    /// Traces a process from now on.
    pub fn add_target(&mut self, pid: u32) -> Result<()> {
        let flags = if self.copying.contains(&pid) {
            TRACED | STACK_COPIED
        } else {
            TRACED
        };
        let mut targets: EbpfHashMap<&mut MapData, u32, u32> = self.map_mut("TARGETS")?;
        targets
            .insert(pid, flags, 0)
            .failed(|| format!("cannot trace process {pid}"))
    }

    /// Says of a traced process that its stacks are copied away and back; answers whether it is the first one.
    ///
    /// # Errors
    /// Where the kernel side can't be told.
    pub fn copies_stacks(&mut self, pid: u32) -> Result<bool> {
        if !self.copying.insert(pid) {
            return Ok(false);
        }
        self.add_target(pid)?;
        self.control.copies_epoch = self.control.copies_epoch.wrapping_add(1);
        self.tell()?;
        Ok(self.copying.len() == 1)
    }

    /// The process is gone, or another program.
    pub fn forget_copies(&mut self, pid: u32) {
        self.copying.remove(&pid);
    }

    /// Traces no more processes.
    pub(super) fn clear_targets(&mut self) -> Result<()> {
        let mut targets: EbpfHashMap<&mut MapData, u32, u32> = self.map_mut("TARGETS")?;
        let pids: Vec<u32> = targets.keys().flatten().collect();
        for pid in pids {
            let _ = targets.remove(&pid);
        }
        Ok(())
    }

    /// Traces every process that runs this file from now on.
    pub fn add_executable(&mut self, file: FileId) -> Result<()> {
        let mut executables: EbpfHashMap<&mut MapData, FileId, u32> =
            self.map_mut("EXECUTABLES")?;
        executables
            .insert(file, 1, 0)
            .failed(|| "cannot watch for new processes of an executable".to_owned())
    }
}
