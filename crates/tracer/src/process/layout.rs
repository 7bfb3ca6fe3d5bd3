//! What the kernel side keeps of processes by address: where `errno` lies, the constants of Rust programs, types of Go.
//!
//! What a file says is the same for all ([`LayoutPlan`]); where a process has it is not. Processes that have the same
//! files at the same places share one [`Layout`], of which the kernel side knows the number; a forked child has its
//! parent's, and a process that runs a new program has none until it was looked at.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    os::unix::fs::FileExt as _,
    sync::Arc,
};

use teracron_common::layout::MAX_LAYOUTS;

use super::{Module, face, module::bias_of};
use image::FileKey;
use planner::{LayoutPlan, capture::ErrnoPlace, probe::Constants};

/// What is kept of a process by address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Distance of `errno` from the thread's control block, where it is known.
    pub errno: Option<i64>,
    /// Of its files, as it has them.
    pub constants: Vec<Constants>,
    /// Files with types that spans may name, and where they are loaded, counted from their own addresses.
    pub types: Vec<(FileKey, u64)>,
}

impl Layout {
    /// Of a process that has these files mapped.
    pub fn of(plan: &LayoutPlan, pid: u32, modules: &[Module]) -> Self {
        let mut layout = Self::default();
        for module in modules {
            let Some(file) = plan.of(module.key) else {
                continue;
            };
            let bias = bias_of(&module.mappings, &file.code);
            if layout.errno.is_none()
                && let Some(place) = &file.errno
            {
                layout.errno = errno(pid, place, bias);
            }
            if !file.constants.is_empty() {
                layout.constants.push(file.constants.at(bias));
            }
            if file.has_types {
                layout.types.push((module.key, bias));
            }
        }
        layout
    }

    /// Whether there is nothing to know of such a process.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Distance of `errno` from the thread's control block in a process.
fn errno(pid: u32, place: &ErrnoPlace, bias: u64) -> Option<i64> {
    let memory = File::open(format!("/proc/{}/mem", face(pid))).ok()?;
    place.in_process(&|address| {
        let mut bytes = [0; 8];
        memory
            .read_exact_at(&mut bytes, address.wrapping_add(bias))
            .ok()?;
        Some(u64::from_le_bytes(bytes))
    })
}

/// The layouts of a run: which process has which, and under which number the kernel side knows it. No number has two
/// meanings at a time; one that no process has any more is used again last.
#[derive(Debug, Default)]
pub struct Layouts {
    numbers: HashMap<Arc<Layout>, u32>,
    /// How many processes have it, by number.
    used: HashMap<u32, (Arc<Layout>, usize)>,
    of: HashMap<u32, u32>,
    /// Numbers that were given so far.
    given: u32,
    /// Numbers of layouts that no process has any more, the longest unused first.
    unused: VecDeque<u32>,
}

/// What the kernel side has to be told before a process may name a layout.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The layout that had the number before is forgotten.
    pub forget: Option<Arc<Layout>>,
    /// The layout is new.
    pub write: bool,
}

impl Layouts {
    /// Says what a process has; answers the number (0: there is nothing to know, or no number left), and what the
    /// kernel side has to be told first.
    pub fn set(&mut self, pid: u32, layout: Layout) -> (u32, Change) {
        self.forget(pid);
        let mut change = Change::default();
        if layout.is_empty() {
            return (0, change);
        }
        let layout = Arc::new(layout);
        let number = match self.numbers.get(&layout) {
            Some(number) => *number,
            None => {
                let Some(number) = self.next(&mut change) else {
                    log::warn!("more than {MAX_LAYOUTS} layouts of processes");
                    return (0, change);
                };
                self.numbers.insert(layout.clone(), number);
                self.used.insert(number, (layout, 0));
                change.write = true;
                number
            }
        };
        self.take(pid, number);
        (number, change)
    }

    fn next(&mut self, change: &mut Change) -> Option<u32> {
        if self.given + 1 < MAX_LAYOUTS {
            self.given += 1;
            return Some(self.given);
        }
        let number = self.unused.pop_front()?;
        let (layout, _) = self.used.remove(&number)?;
        self.numbers.remove(&layout);
        change.forget = Some(layout);
        Some(number)
    }

    fn take(&mut self, pid: u32, number: u32) {
        self.of.insert(pid, number);
        if let Some((_, processes)) = self.used.get_mut(&number) {
            if *processes == 0 {
                self.unused.retain(|unused| *unused != number);
            }
            *processes += 1;
        }
    }

    /// A child has what its parent has.
    pub fn forked(&mut self, parent: u32, child: u32) {
        self.forget(child);
        if let Some(number) = self.of.get(&parent) {
            self.take(child, *number);
        }
    }

    /// A process has ended, or runs a new program.
    pub fn forget(&mut self, pid: u32) {
        let Some(number) = self.of.remove(&pid) else {
            return;
        };
        if let Some((_, processes)) = self.used.get_mut(&number) {
            *processes -= 1;
            if *processes == 0 {
                self.unused.push_back(number);
            }
        }
    }

    /// The number of a process's layout, 0 where there is none.
    pub fn number(&self, pid: u32) -> u32 {
        self.of.get(&pid).copied().unwrap_or(0)
    }

    /// A process's layout.
    pub fn get(&self, pid: u32) -> Option<&Layout> {
        let (layout, _) = self.used.get(self.of.get(&pid)?)?;
        Some(layout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with_errno(errno: i64) -> Layout {
        Layout {
            errno: Some(errno),
            ..Layout::default()
        }
    }

    #[test]
    fn processes_that_have_the_same_share_a_number() {
        let mut layouts = Layouts::default();
        let (one, change) = layouts.set(10, with_errno(-8));
        assert!(one != 0 && change.write);
        let (same, change) = layouts.set(11, with_errno(-8));
        assert_eq!((same, change), (one, Change::default()));
        let (other, change) = layouts.set(12, with_errno(-16));
        assert!(other != one && change.write);
        layouts.forked(12, 13);
        assert_eq!(layouts.get(13).unwrap().errno, Some(-16));
        layouts.forget(13);
        assert_eq!((layouts.number(13), layouts.number(12)), (0, other));
        assert_eq!(layouts.set(14, Layout::default()).0, 0);
    }

    proptest! {
        /// Whatever comes and goes: a process has what was said of it last, and no number is two layouts'.
        #[test]
        fn numbers_have_one_meaning(steps in proptest::collection::vec((0u8..4, 1u32..6, 1u32..6, 0i64..5), 0..60)) {
            let mut layouts = Layouts { given: MAX_LAYOUTS - 4, ..Layouts::default() };
            let mut expected: HashMap<u32, Option<i64>> = HashMap::new();
            let mut meaning: HashMap<u32, i64> = HashMap::new();
            for (kind, pid, other, errno) in steps {
                match kind {
                    0 | 1 => {
                        let (number, change) = layouts.set(pid, with_errno(errno));
                        if let Some(gone) = &change.forget {
                            let old = meaning.insert(number, errno);
                            prop_assert_eq!(old, gone.errno);
                        } else if change.write {
                            prop_assert_eq!(meaning.insert(number, errno), None);
                        }
                        if number != 0 {
                            prop_assert_eq!(meaning.get(&number), Some(&errno));
                        }
                        expected.insert(pid, (number != 0).then_some(errno));
                    }
                    2 => {
                        let parent = expected.get(&pid).copied().flatten();
                        if pid != other {
                            layouts.forked(pid, other);
                            expected.insert(other, parent);
                        }
                    }
                    _ => {
                        layouts.forget(pid);
                        expected.remove(&pid);
                    }
                }
                for (pid, errno) in &expected {
                    prop_assert_eq!(layouts.get(*pid).and_then(|layout| layout.errno), *errno);
                    if let Some(errno) = errno {
                        prop_assert_eq!(meaning.get(&layouts.number(*pid)), Some(errno));
                    }
                }
            }
        }
    }
}
