//! What the kernel side reads of a process must be in its memory: a page of a library that the process itself has
//! not looked at yet is not there, and a probe can't wait for the disk. The first exception of a process would be
//! without its text.

use std::{fs::File, os::unix::fs::FileExt as _};

use super::prepare::Target;
use planner::LayoutPlan;
use tracer::process::face;

/// Bytes at each place that are looked at.
const LOOKED_AT: usize = 64;

/// Has the kernel load what exceptions are described by, by reading it through the process's eyes.
pub(super) fn warm(targets: &[Target], layouts: &LayoutPlan) {
    for target in targets {
        let Ok(memory) = File::open(format!("/proc/{}/mem", face(target.process.pid))) else {
            continue; // it has ended: noticed later
        };
        for module in &target.modules {
            let Some(file) = layouts.of(module.key) else {
                continue;
            };
            let bias = module.bias(&file.code);
            for address in &file.exception_data {
                // Where it can't be read, the kernel side will count it.
                let _ = memory.read_at(&mut [0; LOOKED_AT], address.wrapping_add(bias));
            }
        }
    }
}
