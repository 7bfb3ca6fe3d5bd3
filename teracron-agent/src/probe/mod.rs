//! Probes: resolved functions with their sites, ready to be attached.

mod capturing;
mod danger;
mod plan;
mod policy;
mod resolve;
mod unwinder;

use std::sync::Arc;

use serde::Serialize;
use teracron_common::{EnterCookie, ExitCookie};

use crate::{
    capture::CapturePlan,
    site::{ExitPlan, SitePlan},
    symbol::Function,
    target::{FileKey, Module},
};

pub use capturing::{Debugs, Reading, Sources};
pub use danger::Dangers;
pub use plan::{ModulePlan, Planner, Refused, Wanted, each as plan_each};
pub use policy::{Reached, ReturnProbeMode, decide};
pub use resolve::{Resolution, not_found, resolve};
pub use unwinder::{UnwinderSites, find as find_unwinder_sites};

/// A program of the kernel side that can sit on a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Program {
    /// A call ends; attached before entries, so that none is seen that can't end.
    SpanExit,
    /// A call returns, by return probe.
    SpanReturn,
    /// A call ends, and its result is looked at.
    CaptureExit,
    /// The same by return probe.
    CaptureReturn,
    /// An exception starts.
    UnwindRaise,
    /// The unwinder lands.
    UnwindLand,
    /// A handler begins, where landings can't be seen.
    UnwindCatch,
    /// `longjmp`.
    LongJump,
    /// A call begins, and arguments are looked at.
    CaptureEnter,
    /// A call begins.
    SpanEnter,
}

impl Program {
    /// Every program, in the order of attachment.
    pub const ALL: [Self; 10] = [
        Self::SpanExit,
        Self::SpanReturn,
        Self::CaptureExit,
        Self::CaptureReturn,
        Self::UnwindRaise,
        Self::UnwindLand,
        Self::UnwindCatch,
        Self::LongJump,
        Self::CaptureEnter,
        Self::SpanEnter,
    ];

    /// Whether it sees calls begin and end, not what leaves frames.
    pub fn is_of_spans(self) -> bool {
        !matches!(
            self,
            Self::UnwindRaise | Self::UnwindLand | Self::UnwindCatch | Self::LongJump
        )
    }

    /// Whether it sees calls begin.
    pub fn is_entry(self) -> bool {
        matches!(self, Self::SpanEnter | Self::CaptureEnter)
    }

    /// Whether it is attached as a return probe.
    pub fn is_return_probe(self) -> bool {
        matches!(self, Self::SpanReturn | Self::CaptureReturn)
    }

    /// Whether its cookie names a capture plan.
    pub fn captures(self) -> bool {
        matches!(
            self,
            Self::CaptureEnter | Self::CaptureExit | Self::CaptureReturn
        )
    }

    /// Name of the program that a multi link takes for it: there a return probe is a matter of the
    /// link, and a return is a way out at which the stack pointer is the frame address.
    pub fn multi_name(self) -> &'static str {
        match self {
            Self::SpanReturn => Self::SpanExit.name(),
            Self::CaptureReturn => Self::CaptureExit.name(),
            other => other.name(),
        }
    }

    /// Its name in the eBPF object.
    pub fn name(self) -> &'static str {
        match self {
            Self::SpanExit => "span_exit",
            Self::SpanReturn => "span_return",
            Self::CaptureEnter => "capture_enter",
            Self::CaptureExit => "capture_exit",
            Self::CaptureReturn => "capture_return",
            Self::UnwindRaise => "unwind_raise",
            Self::UnwindLand => "unwind_land",
            Self::UnwindCatch => "unwind_catch",
            Self::LongJump => "long_jump",
            Self::SpanEnter => "span_enter",
        }
    }
}

/// A place in a file, and what sits there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    /// The program.
    pub program: Program,
    /// Offset in the file.
    pub offset: u64,
    /// What the program finds in its attach cookie.
    pub cookie: u64,
}

/// A name that spans carry: index in the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeName {
    /// The workflow.
    pub workflow: Arc<str>,
    /// The plain function name.
    pub operation: Arc<str>,
}

/// All probes of a run; records say the index.
#[derive(Debug, Default)]
pub struct ProbeTable {
    names: Vec<ProbeName>,
    /// What is captured; records say the index.
    captures: Vec<CapturePlan>,
    /// Functions that have a probe already: file, address.
    taken: std::collections::HashMap<(FileKey, u64), u32>,
}

impl ProbeTable {
    /// The name behind an index.
    pub fn name(&self, index: u32) -> Option<&ProbeName> {
        self.names.get(index as usize)
    }

    /// Number of names.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// A table with these names, for benches.
    pub fn of_names(names: Vec<ProbeName>) -> Self {
        Self {
            names,
            captures: Vec::new(),
            taken: std::collections::HashMap::new(),
        }
    }

    /// A table for a new set of probes: names keep their indexes, no function has a probe yet.
    pub fn next(&self) -> Self {
        Self {
            names: self.names.clone(),
            captures: self.captures.clone(),
            taken: std::collections::HashMap::new(),
        }
    }

    /// Functions that have a probe.
    pub fn functions(&self) -> usize {
        self.taken.len()
    }

    /// Index of a name, made where it is new. The clones of a function share it.
    fn index(&mut self, workflow: &str, operation: &str) -> u32 {
        let found = self
            .names
            .iter()
            .rposition(|name| *name.workflow == *workflow && *name.operation == *operation);
        found.unwrap_or_else(|| {
            self.names.push(ProbeName {
                workflow: workflow.into(),
                operation: operation.into(),
            });
            self.names.len() - 1
        }) as u32
    }

    /// Takes a function for a workflow; `None` where it is taken already.
    pub fn take(&mut self, module: &Module, workflow: &str, function: &Function) -> Option<u32> {
        let place = (module.key, function.address);
        if self.taken.contains_key(&place) {
            return None;
        }
        let index = self.index(workflow, &function.plain);
        self.taken.insert(place, index);
        Some(index)
    }

    /// Notes a capture plan; answers its index.
    pub fn add_capture(&mut self, plan: CapturePlan) -> u32 {
        self.captures.push(plan);
        (self.captures.len() - 1) as u32
    }

    /// All capture plans of the run, by index.
    pub fn captures(&self) -> &[CapturePlan] {
        &self.captures
    }

    /// Whether a function has a probe.
    pub fn is_taken(&self, key: FileKey, address: u64) -> bool {
        self.taken.contains_key(&(key, address))
    }

    /// Gives a function free again that turned out not to be probeable.
    pub fn release(&mut self, key: FileKey, address: u64) {
        self.taken.remove(&(key, address));
    }
}

/// The sites of a planned function; `reading` names the plans of what is captured.
fn sites_of(
    plan: &SitePlan,
    probe: u32,
    reading: Reading,
    is_part: bool,
    offset_of: impl Fn(u64) -> Option<u64>,
) -> Option<Vec<Site>> {
    let enter = EnterCookie {
        probe: reading.entry.unwrap_or(probe),
        cfa_offset: plan.entry.cfa_offset,
        part: is_part,
        tail_calls: plan.tail_calls,
        generation: 0,
    };
    let entry_offset = offset_of(plan.entry.address)?;
    let mut sites = vec![Site {
        program: match reading.entry {
            Some(_) => Program::CaptureEnter,
            None => Program::SpanEnter,
        },
        offset: entry_offset,
        cookie: enter.pack(),
    }];
    match &plan.exit {
        ExitPlan::ReturnProbe => sites.push(Site {
            program: match reading.exit {
                Some(_) => Program::CaptureReturn,
                None => Program::SpanReturn,
            },
            offset: entry_offset,
            cookie: ExitCookie {
                probe: reading.exit.unwrap_or(probe),
                base: teracron_common::CfaBase::Rsp,
                cfa_offset: 0,
                condition: None,
            }
            .pack(),
        }),
        ExitPlan::Sites(exits) => {
            for exit in exits {
                let reading = reading.exit.filter(|_| exit.returns);
                sites.push(Site {
                    program: match reading {
                        Some(_) => Program::CaptureExit,
                        None => Program::SpanExit,
                    },
                    offset: offset_of(exit.address)?,
                    cookie: ExitCookie {
                        probe: reading.unwrap_or(probe),
                        base: exit.base,
                        cfa_offset: exit.cfa_offset,
                        condition: exit.condition,
                    }
                    .pack(),
                });
            }
        }
    }
    Some(sites)
}
