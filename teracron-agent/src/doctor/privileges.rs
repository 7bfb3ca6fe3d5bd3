//! Whether the agent may do what it has to: the table of docs/install.md.

use std::fs;

use super::{Check, Verdict};
use tracer::kernel::Features;

/// CAP_SYS_ADMIN (include/uapi/linux/capability.h).
const SYS_ADMIN: u32 = 21;

/// What a missing capability costs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Without {
    /// Nothing can be traced.
    Nothing,
    /// Nothing can be traced on kernels that set breakpoints of one process by perf events (before 6.12).
    NothingBefore,
    /// The rest can.
    Less,
}

/// A capability: number (include/uapi/linux/capability.h), name, what it is for, and what is without it.
struct Needed {
    number: u32,
    name: &'static str,
    purpose: &'static str,
    without: Without,
    /// CAP_SYS_ADMIN has it in it.
    in_admin: bool,
}

const fn needed(
    number: u32,
    name: &'static str,
    purpose: &'static str,
    without: Without,
    in_admin: bool,
) -> Needed {
    Needed {
        number,
        name,
        purpose,
        without,
        in_admin,
    }
}

const NEEDED: [Needed; 9] = [
    needed(
        39,
        "CAP_BPF",
        "programs in the kernel",
        Without::Nothing,
        true,
    ),
    needed(38, "CAP_PERFMON", "attaching them", Without::Nothing, true),
    needed(
        19,
        "CAP_SYS_PTRACE",
        "what a process has mapped",
        Without::Nothing,
        false,
    ),
    needed(
        SYS_ADMIN,
        "CAP_SYS_ADMIN",
        "breakpoints before Linux 6.12; how long the agent's programs take",
        Without::NothingBefore,
        true,
    ),
    needed(
        40,
        "CAP_CHECKPOINT_RESTORE",
        "programs in another mount namespace: other containers",
        Without::Less,
        true,
    ),
    needed(
        2,
        "CAP_DAC_READ_SEARCH",
        "programs that only their owner may read",
        Without::Less,
        false,
    ),
    needed(
        7,
        "CAP_SETUID",
        "reading files of targets as nobody's user",
        Without::Nothing,
        false,
    ),
    needed(6, "CAP_SETGID", "the same", Without::Nothing, false),
    needed(
        5,
        "CAP_KILL",
        "ending what reads them",
        Without::Less,
        false,
    ),
];

pub(super) fn check() -> Check {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    judge(
        effective,
        rustix::process::geteuid().is_root(),
        Features::detect().multi_link_by_process,
    )
}

/// By the capabilities that are there, the user, and whether the kernel sets breakpoints of one process without perf events.
fn judge(effective: u64, is_root: bool, is_new: bool) -> Check {
    let has = |number: u32| effective & (1 << number) != 0;
    let has_it = |needed: &Needed| has(needed.number) || (needed.in_admin && has(SYS_ADMIN));
    let is_missing = |needed: &&Needed| !has_it(needed);
    let is_vital = |needed: &&Needed| match needed.without {
        Without::Nothing => true,
        Without::NothingBefore => !is_new,
        Without::Less => false,
    };
    let (vital, rest): (Vec<&Needed>, Vec<&Needed>) =
        NEEDED.iter().filter(is_missing).partition(is_vital);
    let list = |of: &[&Needed]| {
        let named = of
            .iter()
            .map(|needed| format!("{} ({})", needed.name, needed.purpose));
        named.collect::<Vec<_>>().join(", ")
    };
    const NAME: &str = "privileges";
    if !is_root {
        let missing = if vital.is_empty() {
            String::new()
        } else {
            format!("; missing: {}", list(&vital))
        };
        return Check::bad(
            NAME,
            Verdict::Failed,
            format!("not root{missing}"),
            "use sudo",
        );
    }
    if !vital.is_empty() {
        return Check::bad(
            NAME,
            Verdict::Failed,
            format!("missing: {}", list(&vital)),
            "use sudo; in a container or unit, add these capabilities (docs/install.md)",
        );
    }
    if !rest.is_empty() {
        return Check::bad(
            NAME,
            Verdict::Warning,
            format!("root, but without {}", list(&rest)),
            "fine where these are not wanted; otherwise add them",
        );
    }
    Check::ok(NAME, "root with all capabilities that are needed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(numbers: &[u32]) -> u64 {
        numbers.iter().fold(0, |bits, number| bits | 1 << number)
    }

    #[test]
    fn the_least_that_traces_is_enough() {
        let least = bits(&[39, 38, 19, 7, 6]);
        assert_eq!(judge(least, true, true).verdict, Verdict::Warning);
        // Perf events want more.
        let old = judge(least, true, false);
        assert_eq!(old.verdict, Verdict::Failed);
        assert!(
            old.found.starts_with("missing: CAP_SYS_ADMIN ("),
            "{}",
            old.found
        );
        // The great one has the small ones in it, but not the right to look at processes.
        let admin = judge(bits(&[SYS_ADMIN, 7, 6]), true, true);
        assert!(
            admin.found.starts_with("missing: CAP_SYS_PTRACE ("),
            "{}",
            admin.found
        );
        assert!(!admin.found.contains("CAP_BPF"));
        let all = judge(u64::MAX, true, false);
        assert_eq!(all.verdict, Verdict::Ok);
        let user = judge(0, false, true);
        assert!(
            user.found.starts_with("not root; missing: CAP_BPF"),
            "{}",
            user.found
        );
        assert_eq!(user.todo.as_deref(), Some("use sudo"));
    }
}
