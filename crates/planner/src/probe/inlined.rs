//! Places where functions were inlined, as sites at which calls are counted.

use std::collections::{BTreeMap, HashMap};

use teracron_common::EnterCookie;

use super::{Debugs, ProbeTable, Program, Site, plan::decode};
use crate::{
    capture::InlinedPlaces,
    find::{Function, Functions, Reading, plain_names_of},
    probe_spec::ProbeSpec,
};
use image::{
    FileKey, Image,
    debug::{DebugInfo, InlinedPlace},
    symbol::{Elf, Place, Proven, Starts},
};
use sites::{Cost, Flow, KernelRules, Nop5, is_nop5, is_taken};

/// How far the site may move from where the code begins, in instructions.
const MAX_MOVE: usize = 16;
/// What every kernel emulates.
const OLDEST: KernelRules = KernelRules {
    nop5: Nop5::Stepped,
    whole: false,
};

/// Calls of one function that are counted where it was inlined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CountedCalls {
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
pub(crate) fn find(
    spec: &ProbeSpec,
    workflow: &str,
    module: &Image,
    elf: &Elf,
    debugs: &mut Debugs,
    table: &mut ProbeTable,
) -> Result<Vec<CountedCalls>, String> {
    let names = plain_names_of(&spec.function, elf.go.is_some());
    let plain_name = |symbol: &str| {
        names(symbol)
            .filter(|(reading, _)| *reading <= Reading::Pattern)
            .map(|(_, name)| name)
    };
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
    let starts = Starts::of(elf, &module.file);
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
        let probe = table.count_inlined(workflow, &name);
        let cookie = EnterCookie::of(probe.at_site());
        let all = places.len();
        let sites: Vec<Site> = places
            .iter()
            .filter_map(|place| decoded.site(place, &starts, &functions))
            .map(|place| Site::new(Program::InlineCount, place, cookie.pack()))
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
struct Decoded(BTreeMap<u64, Option<(Proven, Flow)>>);

impl Decoded {
    /// The address at which calls at a place are counted: an instruction that is passed once per call. Debug
    /// information says where the code begins, the code itself whether that is true.
    fn site(
        &mut self,
        place: &InlinedPlace,
        starts: &Starts<'_>,
        functions: &Functions<'_>,
    ) -> Option<Place> {
        if place.is_repeated {
            return None;
        }
        let within = functions.containing(place.entry)?;
        let read = |address: u64, len: usize| starts.elf().bytes(starts.file(), address, len);
        let understood = self.0.entry(within.address).or_insert_with(|| {
            let code = decode(starts, &within).ok()?;
            let flow = Flow::analyse(&code, &read).ok()?;
            Some((code, flow))
        });
        let (code, flow) = understood.as_ref()?;
        let start = code.at(place.entry)?;
        let inside = |address: u64| {
            place
                .ranges
                .iter()
                .any(|(from, to)| (*from..*to).contains(&address))
        };
        // Padding before a loop belongs to what is in the loop.
        let start = (start..start.saturating_add(MAX_MOVE).min(code.len()))
            .find(|index| !code.is_nop(*index))?;
        let is_inside = |index: usize| code.address(index).is_some_and(inside);
        // A loop within that comes back to the first instruction would be counted in every turn, and one
        // around the call may jump past it. What only runs on into it was put between its parts.
        let is_passed_otherwise = |from: usize| {
            let next = flow.successors(code, from).unwrap_or_default();
            next.into_iter().any(|to| {
                if is_inside(from) {
                    to == start
                } else {
                    to != from + 1 && to != start && is_inside(to)
                }
            })
        };
        let comes_back = (0..code.len()).any(is_passed_otherwise);
        if comes_back || !is_inside(start) {
            return None;
        }
        // From there straight on: the first that is cheap, else the first that can be probed at all.
        let mut next_best = None;
        for index in start..start.saturating_add(MAX_MOVE) {
            let address = code.address(index)?;
            if index != start && (flow.is_target(address) || !inside(address)) {
                break;
            }
            let bytes = code.bytes(index);
            // Newer kernels make a call of a long nop, which writes below the stack pointer.
            if is_taken(bytes) && !is_nop5(bytes) {
                if sites::cost(bytes, OLDEST) <= Cost::Emulated {
                    return code.place(address, &read);
                }
                next_best.get_or_insert(address);
            }
            if !code.goes_straight_on(index) || code.ends_part(index) {
                break;
            }
        }
        code.place(next_best?, &read)
    }
}

/// Debug information up to this size is read as a whole to say how often a function was inlined, in bytes; it
/// takes a fifth of a second.
const MAX_READ: usize = 4 << 20;

/// At how many places functions were inlined, by address.
#[derive(Default)]
pub(super) struct InlinedCounts(HashMap<u64, InlinedPlaces>);

impl InlinedCounts {
    /// Counts the places.
    pub(super) fn of(functions: &[&Function], debug: &DebugInfo) -> Self {
        let mut counts: HashMap<u64, InlinedPlaces> = HashMap::new();
        if debug.size() > MAX_READ {
            for function in functions {
                let places = debug.inlined_places(function.address);
                let places = InlinedPlaces {
                    count: places.map_or(0, |places| places.len()),
                    is_all: false,
                };
                counts.insert(function.address, places);
            }
            return Self(counts);
        }
        // What has no symbol has its qualified name.
        let is_of = |function: &Function, symbol: &str| {
            symbol == function.symbol || symbol == function.plain
        };
        let found = debug
            .inlined_functions(|symbol| functions.iter().any(|function| is_of(function, symbol)))
            .unwrap_or_default();
        for function in functions {
            let of_function = found.iter().filter(|other| is_of(function, &other.symbol));
            let places = InlinedPlaces {
                count: of_function.map(|other| other.places.len()).sum(),
                is_all: true,
            };
            counts.insert(function.address, places);
        }
        Self(counts)
    }

    /// Of a function.
    pub(super) fn places(&self, function: &Function) -> InlinedPlaces {
        self.0.get(&function.address).copied().unwrap_or_default()
    }
}
