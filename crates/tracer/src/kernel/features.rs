//! What this kernel has.

use super::nop5::nop5;
use sites::{KernelRules, Nop5};

/// The running kernel's version: major, minor.
pub(crate) fn kernel_version() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    parse_version(&release).unwrap_or((0, 0))
}

fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The oldest kernel: attach cookies of uprobes came with it.
pub const OLDEST_KERNEL: (u32, u32) = (5, 15);

/// Newer features that are used where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Version of the kernel.
    pub kernel: (u32, u32),
    /// One link for many uprobes (6.6).
    pub multi_link: bool,
    /// Multi links that reach all threads of one process (6.12; before, only the given thread).
    pub multi_link_by_process: bool,
    /// Kernel structures can be read through pointers whose type the verifier knows: 6.1 refuses
    /// ours, 6.12 takes them.
    pub typed_pointers: bool,
    /// `bpf_loop` (5.17): without it the verifier looks at each turn of each loop, which takes seconds.
    pub loops: bool,
}

impl Features {
    /// Of the running kernel.
    pub fn detect() -> Self {
        Self::of(kernel_version())
    }

    /// Of a version.
    pub fn of(kernel: (u32, u32)) -> Self {
        Self {
            kernel,
            multi_link: kernel >= (6, 6),
            multi_link_by_process: kernel >= (6, 12),
            typed_pointers: kernel >= (6, 12),
            loops: kernel >= (5, 17),
        }
    }

    /// What the kernel does with the instruction under a probe. The first call may try something out, which takes
    /// some milliseconds and needs privileges; without them the careful answer is given.
    pub fn rules(&self) -> KernelRules {
        KernelRules {
            nop5: nop5(self.kernel).0,
            whole: false,
        }
    }

    /// What is used, for people.
    pub fn names(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        if self.multi_link {
            names.push("uprobe multi links");
        } else {
            names.push("one perf event per probe (kernels before 6.6)");
        }
        match nop5(self.kernel) {
            (Nop5::Stepped, _) => {}
            (Nop5::Optimised, _) => {
                names.push("optimised 5-byte nops, where a forked child lives (self-test)");
            }
            (Nop5::Unsafe, true) => names
                .push("5-byte nops: not used, a forked child would die on this kernel (self-test)"),
            (Nop5::Unsafe, false) => names.push(
                "5-byte nops: not used, the self-test whether a forked child would die did not run",
            ),
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(parse_version("6.18.44-fc-v769\n"), Some((6, 18)));
        assert_eq!(parse_version("5.15.0-1"), Some((5, 15)));
        assert_eq!(parse_version("6.1-rc1"), Some((6, 1)));
        assert_eq!(parse_version("x"), None);
        assert!(kernel_version() > (4, 0));
        assert!(!Features::of((6, 1)).multi_link);
        assert!(Features::of((6, 6)).multi_link && !Features::of((6, 6)).multi_link_by_process);
    }
}
