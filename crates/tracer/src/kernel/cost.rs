//! What the kernel side costs: the kernel's own timing of programs.

use std::{
    iter::Sum,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use super::{KernelProgram, Session};

/// Time that the kernel spent in programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelCost {
    /// Runs that were timed.
    pub runs: u64,
    /// Nanoseconds.
    pub nanoseconds: u64,
}

impl Sum for KernelCost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), |sum, cost| Self {
            runs: sum.runs + cost.runs,
            nanoseconds: sum.nanoseconds + cost.nanoseconds,
        })
    }
}

impl Session {
    /// Starts or stops the kernel's own timing of programs, which costs some itself.
    pub fn time_programs(&mut self, on: bool) {
        self.statistics = if on {
            aya::sys::enable_stats(aya::sys::Stats::RunTime).ok()
        } else {
            None
        };
    }

    /// Time spent in programs of a kind so far, while timing was on.
    pub fn cost(&self, is_meant: impl Fn(&KernelProgram) -> bool) -> KernelCost {
        KernelProgram::on_sites()
            .filter(|(_, program)| is_meant(program))
            .map(|(_, program)| self.cost_of(program))
            .sum()
    }

    fn cost_of(&self, program: &'static KernelProgram) -> KernelCost {
        let in_multi_links = self.multi.get(program).map(|it| read(it.fd().as_fd()));
        let loaded = self.ebpf.program(program.name);
        let in_perf_events = loaded.and_then(|it| Some(read(it.fd().ok()?.as_fd())));
        [in_multi_links, in_perf_events].into_iter().flatten().sum()
    }
}

/// What the kernel says of a program (`bpf_prog_show_fdinfo` of kernel/bpf/syscall.c).
fn read(program: BorrowedFd<'_>) -> KernelCost {
    let info = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
    std::fs::read_to_string(info)
        .map(|text| parse(&text))
        .unwrap_or_default()
}

fn parse(text: &str) -> KernelCost {
    let value = |name: &str| {
        text.lines()
            .find_map(|line| {
                line.strip_prefix(name)?
                    .strip_prefix(':')?
                    .trim()
                    .parse()
                    .ok()
            })
            .unwrap_or(0)
    };
    KernelCost {
        runs: value("run_cnt"),
        nanoseconds: value("run_time_ns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        let text = "prog_type:\t2\nrun_time_ns:\t1234\nrun_cnt:\t56\nrecursion_misses:\t0\n";
        let cost = KernelCost {
            runs: 56,
            nanoseconds: 1234,
        };
        assert_eq!(parse(text), cost);
        assert_eq!(parse("run_cnt:\tx"), KernelCost::default());
    }
}
