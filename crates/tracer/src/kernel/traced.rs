//! Whose calls are traced, as the kernel side knows it.

use teracron_common::{
    Layout as KernelLayout, Placed,
    config::FileId,
    layout::{MAX_CONSTANTS, NO_ERRNO, with_layout},
    thread::{STACK_COPIED, TRACED},
};

use super::Session;
use crate::process::{Layout, Layouts};
use model::error::{Context as _, Result};

/// `BPF_ANY` and `BPF_EXIST` of include/uapi/linux/bpf.h.
const ANY: u64 = 0;
const EXISTING: u64 = 2;

impl Session {
    /// Traces a process from now on.
    pub fn add_target(&mut self, pid: u32) -> Result<()> {
        self.write_target(pid, ANY)
    }

    fn write_target(&mut self, pid: u32, how: u64) -> Result<()> {
        let flags = if self.copying.contains(&pid) {
            TRACED | STACK_COPIED
        } else {
            TRACED
        };
        let value = with_layout(flags, self.layouts.number(pid));
        let targets = &mut self.maps.targets;
        targets
            .insert(pid, value, how)
            .failed(|| format!("cannot trace process {pid}"))
    }

    /// Traces a process from now on, of which this is known by address.
    ///
    /// # Errors
    /// Where the kernel side can't be told.
    pub fn add_target_with(&mut self, pid: u32, layout: Layout) -> Result<()> {
        self.learn(pid, layout)?;
        self.add_target(pid)
    }

    /// Takes what is known by address of a process that is traced already. One that has ended meanwhile is not traced
    /// again: another may have its id.
    ///
    /// # Errors
    /// Where the kernel side can't be told.
    pub fn set_layout(&mut self, pid: u32, layout: Layout) -> Result<()> {
        if self.layouts.get(pid).is_some_and(|known| *known == layout) {
            return Ok(());
        }
        self.learn(pid, layout)?;
        // Not there: it has ended.
        let _ = self.write_target(pid, EXISTING);
        Ok(())
    }

    fn learn(&mut self, pid: u32, layout: Layout) -> Result<()> {
        let before = self.layouts.number(pid);
        let (number, change) = self.layouts.set(pid, layout);
        if let Some(old) = &change.forget {
            self.place(number, old, false)?;
        }
        if change.write
            && let Some(layout) = self.layouts.get(pid).cloned()
        {
            self.place(number, &layout, true)?;
        }
        log::debug!("process {pid}: layout {before}, now {number}");
        Ok(())
    }

    /// Writes what processes of a layout have, or takes it away.
    fn place(&mut self, number: u32, layout: &Layout, write: bool) -> Result<()> {
        let no_room = || "the kernel has no room for a program's constants".to_owned();
        let all = layout.constants.iter();
        let placed = |address: &u64| Placed {
            address: *address,
            layout: number.into(),
        };
        let texts = &mut self.maps.go_texts;
        for (address, offset) in all.clone().flat_map(|constants| &constants.go_texts) {
            if !write {
                let _ = texts.remove(&placed(address));
            } else if texts.insert(placed(address), offset, 0).is_err() {
                // Errors of these types are told without their text.
                log::warn!("{}", no_room());
                break;
            }
        }
        let strings = &mut self.maps.rust_strings;
        for address in all.clone().flat_map(|constants| &constants.rust_strings) {
            if !write {
                let _ = strings.remove(&placed(address));
            } else {
                strings.insert(placed(address), 1, 0).failed(no_room)?;
            }
        }
        let mut told = KernelLayout {
            errno: layout.errno.unwrap_or(NO_ERRNO),
            constants: [[0; 2]; MAX_CONSTANTS],
        };
        let memory = all.flat_map(|constants| &constants.rust_memory);
        for (place, (start, end)) in told.constants.iter_mut().zip(memory) {
            *place = [*start, *end];
        }
        let layouts = &mut self.maps.layouts;
        if write {
            layouts.insert(number, told, 0).failed(no_room)
        } else {
            let _ = layouts.remove(&number);
            Ok(())
        }
    }

    /// What is known of processes by address.
    pub fn layouts(&self) -> &Layouts {
        &self.layouts
    }

    /// A child has what its parent has.
    pub fn forked(&mut self, parent: u32, child: u32) {
        self.layouts.forked(parent, child);
    }

    /// A process is gone, or another program.
    pub fn forget_layout(&mut self, pid: u32) {
        self.layouts.forget(pid);
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
    pub(super) fn clear_targets(&mut self) {
        let targets = &mut self.maps.targets;
        let pids: Vec<u32> = targets.keys().flatten().collect();
        for pid in pids {
            let _ = targets.remove(&pid);
        }
    }

    /// Traces every process that runs this file from now on.
    pub fn add_executable(&mut self, file: FileId) -> Result<()> {
        let executables = &mut self.maps.executables;
        executables
            .insert(file, 1, 0)
            .failed(|| "cannot watch for new processes of an executable".to_owned())
    }
}
