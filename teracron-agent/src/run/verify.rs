//! The code in the files is the code that runs.

use std::{collections::HashMap, fs::File, os::unix::fs::FileExt as _};

use super::Prepared;
use crate::{
    error::{Error, Result},
    target::{FileKey, Module},
    text,
};

/// Compares the code at every site with what the target has in memory: probing a file that is not
/// the one that runs would damage the program.
pub fn verify_memory(prepared: &Prepared) -> Result<()> {
    for target in &prepared.targets {
        let pid = target.process.pid;
        let Ok(memory) = File::open(format!("/proc/{pid}/mem")) else {
            continue; // it has ended: noticed later
        };
        let sites: HashMap<FileKey, Vec<u64>> = prepared
            .plans_of(target)
            .map(|plan| (plan.module.key, &plan.sites))
            .chain(
                prepared
                    .unwinders_of(target)
                    .map(|unwinder| (unwinder.module.key, &unwinder.sites)),
            )
            .map(|(key, sites)| (key, sites.iter().map(|site| site.offset).collect()))
            .collect();
        for module in &target.modules {
            let Some(offsets) = sites.get(&module.key) else {
                continue;
            };
            if FileKey::of(&module.file).ok() != Some(module.key) {
                return Err(Error::Failed(format!(
                    "{} changed while it was being read; try again",
                    text::shown(&module.path)
                )));
            }
            for offset in offsets {
                if !same_code(&memory, module, *offset) {
                    return Err(Error::NotFound(format!(
                        "process {pid} does not run the code that {} holds at offset {offset:#x}: was it changed in place or patched at run time?",
                        text::shown(&module.path)
                    )));
                }
            }
        }
    }
    Ok(())
}

fn same_code(memory: &File, module: &Module, offset: u64) -> bool {
    let Some(address) = module.mappings.iter().find_map(|(start, end, at)| {
        let distance = offset.checked_sub(*at)?;
        let address = start.checked_add(distance)?;
        (address < *end).then_some(address)
    }) else {
        return true; // mapped elsewhere or not yet: nothing to compare
    };
    let (mut here, mut there) = ([0u8; 1], [0u8; 1]);
    if memory.read_exact_at(&mut here, address).is_err()
        || module.file.read_exact_at(&mut there, offset).is_err()
    {
        return true;
    }
    // Another tracer's breakpoint, or the call that newer kernels make of a nop.
    here == there || here == [0xcc] || (here == [0xe8] && there == [0x0f])
}
