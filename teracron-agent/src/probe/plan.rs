//! Sites for a module's functions, together: a jump from one probed function to another needs no
//! exit site, so whether a function is probed matters to the others.

use std::collections::HashSet;

use super::{ProbeTable, Site, policy, policy::ReturnProbeMode, sites_of};
use crate::{
    site::{self, Code, Context, KernelRules, SitePlan},
    symbol::{Elf, Function, Language},
    target::Module,
};

/// A function that can't be probed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its plain name.
    pub function: String,
    /// The reason.
    pub reason: String,
    /// It was refused because the user asked for something unsafe.
    pub unsafe_request: bool,
}

/// What is to be attached in one file.
#[derive(Debug)]
pub struct ModulePlan {
    /// The file.
    pub module: Module,
    /// All sites, in the order of attachment.
    pub sites: Vec<Site>,
    /// The functions with their plans.
    pub functions: Vec<(Function, SitePlan)>,
}

/// Plans sites.
pub struct Planner<'a> {
    /// What the kernel emulates.
    pub rules: KernelRules,
    /// What the user wants.
    pub mode: ReturnProbeMode,
    /// `--allow-unsafe-return-probes`.
    pub allow_unsafe: bool,
    /// Names of probes.
    pub table: &'a mut ProbeTable,
}

/// Rounds after which a set of functions that depend on each other must be settled.
const MAX_ROUNDS: usize = 8;

impl Planner<'_> {
    /// Plans the given functions of a module: (probe index, function).
    pub fn plan(
        &mut self,
        module: &Module,
        elf: &Elf,
        functions: Vec<(u32, Function)>,
        returns: &Result<(), String>,
        refused: &mut Vec<Refused>,
    ) -> ModulePlan {
        let mut addresses: HashSet<u64> = functions
            .iter()
            .map(|(_, function)| function.address)
            .collect();
        let mut candidates: Vec<(u32, Function, Code)> = Vec::new();
        for (probe, function) in functions {
            match decode(elf, module, &function) {
                Ok(code) => candidates.push((probe, function, code)),
                Err(reason) => {
                    addresses.remove(&function.address);
                    self.table.release(module.key, function.address);
                    refused.push(Refused {
                        function: function.plain,
                        reason,
                        unsafe_request: false,
                    });
                }
            }
        }
        let mut plan = ModulePlan {
            module: module.clone(),
            sites: Vec::new(),
            functions: Vec::new(),
        };
        // A refused function changes what the others may assume, so all are planned again.
        for _ in 0..MAX_ROUNDS {
            plan.sites.clear();
            plan.functions.clear();
            let mut dropped = Vec::new();
            for (place, (probe, function, code)) in candidates.iter().enumerate() {
                let result = policy::for_function(
                    self.mode,
                    self.allow_unsafe,
                    function.language,
                    returns,
                )
                .map_err(|reason| (format!("a return probe could kill the target: {reason}; --return-probe ret is safe"), true))
                .and_then(|return_probe| {
                    let context = Context {
                        rules: self.rules,
                        read_data: &|address, len| elf.bytes(&module.file, address, len),
                        is_probed: &|address| addresses.contains(&address),
                        return_probe,
                    };
                    site::plan(code, &context)
                        .map_err(|refusal| (refusal.to_string(), false))
                })
                .and_then(|sites| {
                    sites_of(&sites, *probe, function.is_part, |address| {
                        elf.file_offset(address)
                    })
                    .map(|places| (sites, places))
                    .ok_or_else(|| ("its code is not in the file".to_owned(), false))
                });
                match result {
                    Ok((sites, places)) => {
                        plan.sites.extend(places);
                        plan.functions.push((function.clone(), sites));
                    }
                    Err((reason, unsafe_request)) => dropped.push((place, reason, unsafe_request)),
                }
            }
            if dropped.is_empty() {
                break;
            }
            for (place, reason, unsafe_request) in dropped.into_iter().rev() {
                let (_, function, _) = candidates.remove(place);
                addresses.remove(&function.address);
                self.table.release(module.key, function.address);
                refused.push(Refused {
                    function: function.plain,
                    reason,
                    unsafe_request,
                });
            }
        }
        plan.sites.sort_unstable();
        plan.sites.dedup();
        plan
    }
}

/// Plans functions one by one, for a list: by place, the plan or the reason against it.
pub fn each(
    rules: KernelRules,
    module: &Module,
    elf: &Elf,
    functions: &[Function],
    returns: &Result<(), String>,
) -> Vec<Result<SitePlan, String>> {
    functions
        .iter()
        .map(|function| {
            let code = decode(elf, module, function)?;
            let return_probe =
                policy::for_function(ReturnProbeMode::Auto, false, function.language, returns)?;
            let context = Context {
                rules,
                read_data: &|address, len| elf.bytes(&module.file, address, len),
                is_probed: &|_| false,
                return_probe,
            };
            site::plan(&code, &context).map_err(|refusal| refusal.to_string())
        })
        .collect()
}

/// The function's instructions, or why it can't be probed.
pub fn decode(elf: &Elf, module: &Module, function: &Function) -> Result<Code, String> {
    if function.is_indirect {
        return Err("it chooses one of several functions when the program starts (ifunc); probe the one it chose".to_owned());
    }
    if function.language == Language::Go {
        return Err("Go functions can't be probed yet: goroutines move between threads".to_owned());
    }
    if function.size == 0 {
        return Err("its size is not known".to_owned());
    }
    function
        .code(elf, &module.file)
        .and_then(|parts| Code::decode(&parts))
        .map_err(|refusal| refusal.to_string())
}
