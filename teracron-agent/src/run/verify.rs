//! The code in the files is the code that runs.

use std::{fs::File, os::unix::fs::FileExt as _};

use super::Prepared;
use image::FileKey;
use model::{
    error::{Error, Result},
    text,
};
use planner::probe::Site;
use tracer::process::{Module, face};

/// Compares the instruction at every site with what the target has in memory at this instant: probing a file that
/// is not the one that runs would damage the program.
pub(super) fn verify_memory(prepared: &Prepared) -> Result<()> {
    for target in &prepared.targets {
        let pid = target.process.pid;
        let Ok(memory) = File::open(format!("/proc/{}/mem", face(pid))) else {
            continue; // it has ended: noticed later
        };
        for module in &target.modules {
            // A file may be attached to twice: a program with its own unwinder.
            let mut sites = prepared
                .attachments
                .iter()
                .filter(|attachment| attachment.module.key == module.key)
                .flat_map(|attachment| &attachment.sites)
                .peekable();
            if sites.peek().is_none() {
                continue;
            }
            if FileKey::of(&module.file).ok() != Some(module.key) {
                return Err(Error::Failed(format!(
                    "{} changed while it was being read; try again",
                    text::shown(&module.path)
                )));
            }
            for site in sites {
                if !same_code(&memory, module, site) {
                    return Err(Error::NotFound(format!(
                        "process {pid} does not run the code that {} holds at offset {:#x}: was it changed in place or patched at run time?",
                        text::shown(&module.path),
                        site.offset
                    )));
                }
            }
        }
    }
    Ok(())
}

fn same_code(memory: &File, module: &Module, site: &Site) -> bool {
    let Some(address) = module.mappings.iter().find_map(|(start, end, at)| {
        let distance = site.offset.checked_sub(*at)?;
        let address = start.checked_add(distance)?;
        (address < *end).then_some(address)
    }) else {
        return true; // mapped elsewhere or not yet: nothing to compare
    };
    let decoded = site.instruction();
    let mut there = [0u8; 15];
    let Some(there) = there.get_mut(..decoded.len()) else {
        return false;
    };
    if memory.read_exact_at(there, address).is_err() {
        return true;
    }
    is_same(decoded, there)
}

/// Whether an instruction in memory is the one that was decoded, but for what tracers and the kernel make of it.
fn is_same(decoded: &[u8], there: &[u8]) -> bool {
    match (decoded, there) {
        // Another tracer's breakpoint: the rest is as it was.
        ([_, rest @ ..], [0xcc, others @ ..]) if rest == others => true,
        // The call that newer kernels make of a nop of five bytes.
        ([0x0f, 0x1f, 0x44, 0, 0], [0xe8, ..]) => true,
        // The kernel takes a breakpoint out of one byte at a time: the call's distance may still be there.
        ([0x0f, 0x1f, 0x44, 0, 0], [0xcc, ..]) => true,
        _ => decoded == there,
    }
}

#[cfg(test)]
mod tests {
    use super::is_same;

    #[test]
    fn the_whole_instruction_counts() {
        let lea = [0x48, 0x8d, 0x05, 1, 2, 3, 4];
        assert!(is_same(&lea, &lea));
        assert!(is_same(&lea, &[0xcc, 0x8d, 0x05, 1, 2, 3, 4]));
        assert!(!is_same(&lea, &[0x48, 0x8d, 0x05, 1, 2, 3, 5]));
        assert!(!is_same(&lea, &[0xcc, 0x8d, 0x05, 1, 2, 3, 5]));
        assert!(!is_same(&[0x55], &[0x90]));
        assert!(is_same(&[0x55], &[0xcc]));
        let nop = [0x0f, 0x1f, 0x44, 0, 0];
        assert!(is_same(&nop, &[0xe8, 1, 2, 3, 4]));
        assert!(!is_same(&nop, &[0x0f, 0x1f, 0x44, 0, 8]));
        assert!(!is_same(&lea, &[0xe8, 1, 2, 3, 4, 3, 4]));
    }
}
