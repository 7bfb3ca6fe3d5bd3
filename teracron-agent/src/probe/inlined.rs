//! Places where functions were inlined, as sites at which calls are counted.

use std::collections::BTreeMap;

use teracron_common::{CfaBase, EnterCookie};

use super::{Debugs, ProbeTable, Program, Site, plan::decode};
use crate::{
    debug::InlinedPlace,
    site::{Code, Flow, is_nop5},
    spec::ProbeSpec,
    symbol::{Elf, Functions, plain_names_of},
    target::{FileKey, Module},
};

/// Calls of one function that are counted where it was inlined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedCalls {
    /// The file.
    pub key: FileKey,
    /// Plain name of the function.
    pub function: String,
    /// Where.
    pub sites: Vec<Site>,
    /// Places at which a count would be wrong or not safe.
    pub passed_over: usize,
}

/// Finds where the functions of a specification were inlined in a module.
///
/// # Errors
/// With the reason where the debug information is missing or can't be read.
pub fn find(
    spec: &ProbeSpec,
    module: &Module,
    elf: &Elf,
    debugs: &mut Debugs,
    table: &mut ProbeTable,
) -> Result<Vec<CountedCalls>, String> {
    let plain_name = plain_names_of(&spec.function, elf.go.is_some());
    let found = debugs
        .get(module, elf)?
        .inlined_functions(|symbol| plain_name(symbol).is_some())
        .map_err(|error| error.to_string())?;
    // Instances and clones of a function count together, like their spans.
    let mut by_name: BTreeMap<String, Vec<InlinedPlace>> = BTreeMap::new();
    for function in found {
        let name = plain_name(&function.symbol).unwrap_or_default();
        by_name.entry(name).or_default().extend(function.places);
    }
    let functions = Functions::of(elf);
    let mut decoded = Decoded::default();
    let mut counted = Vec::new();
    for (name, mut places) in by_name {
        places.sort_unstable();
        places.dedup_by_key(|place| place.entry);
        // What the linker threw away is at no place of the file.
        places.retain(|place| elf.file_offset(place.entry).is_some());
        if places.is_empty() {
            continue;
        }
        let probe = table.count_inlined(&spec.workflow, &name);
        let cookie = EnterCookie {
            probe,
            base: CfaBase::Rsp,
            cfa_offset: 0,
            block: false,
            part: false,
            tail_calls: false,
            generation: 0,
            reads: false,
            goid: 0,
        };
        let all = places.len();
        let sites: Vec<Site> = places
            .iter()
            .filter(|place| decoded.can_count(place, module, elf, &functions))
            .filter_map(|place| elf.file_offset(place.entry))
            .map(|offset| Site {
                program: Program::InlineCount,
                offset,
                cookie: cookie.pack(),
            })
            .collect();
        counted.push(CountedCalls {
            key: module.key,
            function: name,
            passed_over: all - sites.len(),
            sites,
        });
    }
    Ok(counted)
}

/// Functions that were decoded, by address: one may have many places.
#[derive(Default)]
struct Decoded(BTreeMap<u64, Option<(Code, Flow)>>);

impl Decoded {
    /// Whether a place begins with an instruction that is passed once per call: debug information says where
    /// it begins, the code says whether that is true.
    fn can_count(
        &mut self,
        place: &InlinedPlace,
        module: &Module,
        elf: &Elf,
        functions: &Functions<'_>,
    ) -> bool {
        let Some(within) = functions.containing(place.entry) else {
            return false;
        };
        let understood = self.0.entry(within.address).or_insert_with(|| {
            let code = decode(elf, module, &within).ok()?;
            let read = |address: u64, len: usize| elf.bytes(&module.file, address, len);
            let flow = Flow::analyse(&code, &read).ok()?;
            Some((code, flow))
        });
        let Some((code, flow)) = understood else {
            return false;
        };
        let Some(start) = code.at(place.entry) else {
            return false;
        };
        let inside = |address: u64| {
            place
                .ranges
                .iter()
                .any(|(from, to)| (*from..*to).contains(&address))
        };
        // A loop that comes back to the first instruction would be counted in every turn.
        let comes_back = code
            .instructions()
            .iter()
            .enumerate()
            .filter(|(index, instruction)| *index != start && inside(instruction.ip()))
            .any(|(index, _)| {
                flow.successors(code, index)
                    .is_ok_and(|next| next.contains(&start))
            });
        // Newer kernels make a call of a long nop, which writes below the stack pointer.
        !comes_back && !is_nop5(code.bytes(start))
    }
}
