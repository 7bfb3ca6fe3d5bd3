//! The programs of the eBPF object, described once: what loads, attaches, accounts and tests them reads this table.

use planner::probe::Program;

/// A program of the eBPF object.
#[derive(Debug, PartialEq, Eq)]
pub struct KernelProgram {
    /// Its name in the object.
    pub(super) name: &'static str,
    /// With which others it is loaded.
    pub(super) group: Group,
    /// What it is attached to.
    pub(super) attach: Attach,
}

/// What a program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attach {
    /// Sites of this kind in programs' files.
    Site(Program, Role),
    /// A raw tracepoint of the kernel, for as long as the agent runs.
    Tracepoint {
        /// Its name.
        name: &'static str,
        /// Whether a run can't be without it.
        needed: bool,
    },
}

/// What a program on a site does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It sees calls begin and opens spans: its cookie is that of an entry.
    Opens,
    /// It sees calls begin and counts them: its cookie is that of an entry.
    Counts,
    /// It sees calls end, at a way out.
    Ends,
    /// It sees calls end, by return probe. Multi links take another program for it: there a return probe is a matter of
    /// the link, and a return is a way out at which the stack pointer is the frame address.
    Returns(Program),
    /// It sees goroutines being made.
    Spawns,
    /// It watches unwinders and other runtimes: it belongs to no set of probes.
    Watches,
    /// It does nothing: it keeps breakpoints where a main thread has ended.
    Holds,
}

/// Programs that are loaded together, because a run needs all of them or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Group {
    /// In every run.
    Always,
    /// Where arguments or results are looked at.
    Capture,
    /// Where Go functions are traced.
    Go,
    /// Where goroutines belong to the span that started them.
    Spawn,
    /// Where async functions of Rust are traced.
    Future,
    /// Where a main thread has ended.
    Hold,
}

impl Group {
    /// Every group, the one that each run needs first.
    pub(super) const ALL: [Self; 6] = [
        Self::Always,
        Self::Capture,
        Self::Go,
        Self::Spawn,
        Self::Future,
        Self::Hold,
    ];

    /// The programs that are loaded together, in the order of attachment.
    pub(super) fn programs(self) -> impl Iterator<Item = &'static KernelProgram> {
        PROGRAMS.iter().filter(move |program| program.group == self)
    }
}

/// Makes the table, and what finds a site's program in it: the compiler sees that none is left out.
macro_rules! programs {
    (
        sites: { $($program:ident, $name:literal, $group:ident, $role:expr;)* }
        tracepoints: { $($own:literal, $tracepoint:literal, $needed:literal;)* }
    ) => {
        /// Every program: those on sites in the order of attachment.
        pub(super) static PROGRAMS: &[KernelProgram] = &[
            $(KernelProgram {
                name: $name,
                group: Group::$group,
                attach: Attach::Site(Program::$program, $role),
            },)*
            $(KernelProgram {
                name: $own,
                group: Group::Always,
                attach: Attach::Tracepoint { name: $tracepoint, needed: $needed },
            },)*
        ];

        /// The place of a site's program in the table.
        fn place(program: Program) -> usize {
            /// As the table has them.
            enum Place { $($program,)* }
            match program { $(Program::$program => Place::$program as usize,)* }
        }
    };
}

// Ends before beginnings, so that no call is seen that can't end; what reads a future's arguments before what opens its
// span, so that it runs after it.
programs! {
    sites: {
        SpanExit, "span_exit", Always, Role::Ends;
        SpanReturn, "span_return", Always, Role::Returns(Program::SpanExit);
        CaptureExit, "capture_exit", Capture, Role::Ends;
        CaptureReturn, "capture_return", Capture, Role::Returns(Program::CaptureExit);
        GoExit, "go_exit", Go, Role::Ends;
        FutureExit, "future_exit", Future, Role::Ends;
        FutureDrop, "future_drop", Future, Role::Ends;
        UnwindRaise, "unwind_raise", Always, Role::Watches;
        UnwindLand, "unwind_land", Always, Role::Watches;
        UnwindCatch, "unwind_catch", Always, Role::Watches;
        LibraryLoaded, "library_loaded", Always, Role::Watches;
        LongJump, "long_jump", Always, Role::Watches;
        GoPanic, "go_panic", Go, Role::Watches;
        GoRecover, "go_recover", Go, Role::Watches;
        GoGoexit, "go_goexit", Go, Role::Watches;
        GoStarted, "go_started", Spawn, Role::Spawns;
        GoStarting, "go_starting", Spawn, Role::Spawns;
        InlineCount, "inline_count", Always, Role::Counts;
        CaptureEnter, "capture_enter", Capture, Role::Opens;
        GoEnter, "go_enter", Go, Role::Opens;
        FutureCapture, "future_capture", Future, Role::Opens;
        FutureEnter, "future_enter", Future, Role::Opens;
        SpanEnter, "span_enter", Always, Role::Opens;
        Hold, "hold", Hold, Role::Holds;
    }
    tracepoints: {
        "process_fork", "sched_process_fork", true;
        "process_exec", "sched_process_exec", true;
        "process_exit", "sched_process_exit", true;
        // Without it, that a process died is still known, but not where.
        "process_signal", "signal_deliver", false;
    }
}

impl KernelProgram {
    /// The program that sits on a site.
    pub fn of(program: Program) -> &'static Self {
        // The table begins with the programs of sites; a test looks at each.
        PROGRAMS.get(place(program)).unwrap_or(&PROGRAMS[0])
    }

    /// All that sit on sites, in the order of attachment.
    pub fn on_sites() -> impl Iterator<Item = (Program, &'static Self)> {
        PROGRAMS.iter().filter_map(|this| match this.attach {
            Attach::Site(program, _) => Some((program, this)),
            Attach::Tracepoint { .. } => None,
        })
    }

    fn role(&self) -> Option<Role> {
        match self.attach {
            Attach::Site(_, role) => Some(role),
            Attach::Tracepoint { .. } => None,
        }
    }

    /// Whether it belongs to a set of probes; what watches unwinders and other runtimes does not.
    pub(crate) fn is_of_set(&self) -> bool {
        self.is_entry() || self.is_exit() || self.role() == Some(Role::Spawns)
    }

    /// Whether it sees calls end.
    pub fn is_exit(&self) -> bool {
        matches!(self.role(), Some(Role::Ends | Role::Returns(_)))
    }

    /// Whether it opens spans.
    pub fn opens(&self) -> bool {
        self.role() == Some(Role::Opens)
    }

    /// Whether it sees calls begin: its cookie is that of an entry.
    pub fn is_entry(&self) -> bool {
        matches!(self.role(), Some(Role::Opens | Role::Counts))
    }

    /// Whether it is attached as a return probe.
    pub fn is_return_probe(&self) -> bool {
        matches!(self.role(), Some(Role::Returns(_)))
    }

    /// The program that a multi link takes for it; `None` where it never has one.
    pub(super) fn in_multi_link(&'static self) -> Option<&'static Self> {
        match self.role()? {
            Role::Returns(instead) => Some(Self::of(instead)),
            Role::Holds => None,
            Role::Opens | Role::Counts | Role::Ends | Role::Spawns | Role::Watches => Some(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use aya_obj::ProgramSection;

    use super::*;
    use crate::kernel::OBJECT;

    #[test]
    fn each_site_finds_its_own_program() {
        for (program, this) in KernelProgram::on_sites() {
            assert_eq!(KernelProgram::of(program), this);
        }
    }

    #[test]
    fn the_table_is_what_the_object_has() {
        let object = aya_obj::Object::parse(OBJECT).unwrap();
        let names: BTreeSet<&str> = PROGRAMS.iter().map(|program| program.name).collect();
        let built: BTreeSet<&str> = object.programs.keys().map(String::as_str).collect();
        assert_eq!(names, built);
        assert_eq!(names.len(), PROGRAMS.len(), "a name stands twice");
        for program in PROGRAMS {
            let fits = match (&object.programs[program.name].section, program.attach) {
                (ProgramSection::URetProbe { .. }, Attach::Site(..)) => program.is_return_probe(),
                (ProgramSection::UProbe { .. }, Attach::Site(..)) => !program.is_return_probe(),
                (ProgramSection::RawTracePoint, Attach::Tracepoint { .. }) => true,
                _ => false,
            };
            assert!(fits, "{}", program.name);
        }
    }

    #[test]
    fn ends_are_attached_before_beginnings_and_loaded_with_what_stands_for_them() {
        let order: Vec<_> = KernelProgram::on_sites().map(|(_, this)| this).collect();
        let last_end = order.iter().rposition(|this| this.is_exit()).unwrap();
        let first_beginning = order.iter().position(|this| this.is_entry()).unwrap();
        assert!(last_end < first_beginning);
        for this in order {
            if let Some(instead) = this.in_multi_link() {
                assert_eq!(instead.group, this.group);
                assert!(!instead.is_return_probe());
            }
        }
    }
}
