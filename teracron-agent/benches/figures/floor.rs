//! Empty programs at the very sites that the agent would choose: what tracing costs at the least.

use std::{
    io::{BufRead as _, stdin},
    os::fd::OwnedFd,
};

use image::Image;
use planner::probe::ProbeTable;
use teracron_agent::{cli::Cli, run::prepare, shut_in};
use tracer::kernel::{Features, KernelProgram, MultiProgram, MultiSite};

/// Finds the sites of a run of the agent with these arguments and prints `ready`. Then each line of standard input
/// is a process to attach to, 0 for all; `attached` is printed for each. At the end of the input it detaches and ends.
pub(crate) fn floor(arguments: impl Iterator<Item = String>) {
    let line = std::iter::once("teracron-agent".to_owned()).chain(arguments);
    let settings = Cli::read(line).unwrap().settings().unwrap();
    shut_in::use_agent(env!("CARGO_BIN_EXE_teracron-agent").into());
    let prepared = prepare(&settings.targets, Features::detect(), ProbeTable::default()).unwrap();
    let empty = MultiProgram::empty().unwrap();
    let mut all: Vec<(Image, Vec<MultiSite>, bool)> = Vec::new();
    for plan in prepared.plans() {
        for (on_site, program) in KernelProgram::on_sites() {
            let sites: Vec<MultiSite> = plan
                .sites
                .iter()
                .filter(|site| site.program == on_site)
                .map(|site| MultiSite {
                    offset: site.offset,
                    cookie: 0,
                })
                .collect();
            if !sites.is_empty() {
                all.push((plan.module.clone(), sites, program.is_return_probe()));
            }
        }
    }
    println!("ready");
    let mut links: Vec<OwnedFd> = Vec::new();
    for line in stdin().lock().lines() {
        let pid: u32 = line.unwrap().parse().unwrap();
        for (module, sites, on_return) in &all {
            let link = empty.attach(&module.kernel_path(), sites, pid, *on_return);
            links.push(link.unwrap());
        }
        println!("attached");
    }
    // The kernel waits for each link alone, so all are let go at a time.
    std::thread::scope(|scope| {
        for link in links {
            scope.spawn(move || drop(link));
        }
    });
}
