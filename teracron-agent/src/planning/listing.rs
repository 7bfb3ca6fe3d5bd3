//! The list of functions (`symbols`), written by the process that reads the files.

use serde::{Deserialize, Serialize};

use image::{
    DebugPlaces, Image, ImageFacts,
    debug::DebugInfo,
    symbol::{Elves, Language},
};
use model::{
    error::{Context as _, Error, Result},
    text::{self, glob},
};
use pipeline::output::print_line;
use planner::{
    find::{Function, Functions},
    probe::{Dangers, Debugs, MAX_COUNTED, ProcessFacts, Reached, decide, plan_each},
    probe_spec::FunctionPattern,
    whole::{Files, list as some_of},
};
use sites::{ExitPlan, KernelRules, SitePlan};

/// What is to be listed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Listing {
    /// Functions of these files.
    pub images: Vec<ImageFacts>,
    /// Of this process.
    pub process: Option<ProcessFacts>,
    /// Only those that match.
    pub pattern: Option<String>,
    /// As JSON.
    pub json: bool,
    /// Version of the kernel: major, minor.
    pub kernel: (u32, u32),
    /// What it emulates.
    pub rules: KernelRules,
}

/// One line of the list.
#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    plain_name: &'a str,
    symbol: &'a str,
    module: &'a str,
    address: u64,
    size: u64,
    language: Language,
    probeable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    return_method: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<&'a SitePlan>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    inlined: &'a [Inlined],
}

/// Where a function was inlined: calls there are not seen.
#[derive(Serialize)]
struct Inlined {
    address: u64,
    /// The function that it was inlined into.
    within: Option<String>,
    /// Bytes from that function's beginning.
    offset: u64,
}

/// Writes the list; answers what there is to say of files.
///
/// # Errors
/// Where nothing matches.
pub(super) fn list(listing: &Listing, files: &Files) -> Result<Vec<String>> {
    let (mut elves, mut dangers) = (Elves::default(), Dangers::default());
    let images: Vec<Image> = listing
        .images
        .iter()
        .filter_map(|facts| {
            let file = files.get(&facts.key)?.clone();
            Some(facts.image(file, DebugPlaces::decided(facts.debug)))
        })
        .collect();
    let everything = FunctionPattern::Glob("*".to_owned());
    let mut debugs = Debugs::default();
    let mut listed = 0usize;
    let mut problem = None;
    if !listing.json {
        print_line(&format!(
            "{:<12} {:>7}  {:<5} {:<12} {:<22} {:<20} NAME",
            "ADDRESS", "SIZE", "LANG", "ENTRY", "EXIT", "MODULE"
        ))?;
    }
    for module in &images {
        let returns = if listing.process.is_some() {
            let reached = [Reached {
                process: listing.process.as_ref(),
                images: images.iter().collect(),
            }];
            decide(
                module,
                &reached,
                true,
                listing.kernel,
                &mut dangers,
                &mut elves,
            )
        } else {
            Err("the process is not known".to_owned())
        };
        let elf = match elves.get(module) {
            Ok(elf) => elf,
            Err(error) => {
                problem = Some(format!("{}: {error}", text::shown(&module.path)));
                continue;
            }
        };
        if let Some(reason) = &elf.go_table_problem {
            problem = Some(format!("{}: {reason}", text::shown(&module.path)));
        }
        let functions = Functions::of(elf);
        let matching: Vec<Function> = functions
            .matching(&everything)
            .into_iter()
            .filter(|function| wanted(listing.pattern.as_deref(), function))
            .collect();
        let plans = plan_each(listing.rules, module, elf, &matching, &returns);
        let debug = (listing.pattern.is_some() && matching.len() <= MAX_COUNTED)
            .then(|| debugs.get(module, elf).ok())
            .flatten();
        for (function, planned) in matching.iter().zip(&plans) {
            listed += 1;
            let inlined = debug.map_or_else(Vec::new, |debug| inlined(function, &functions, debug));
            let sites = planned.as_ref().ok();
            let reason = planned.as_ref().err().map(String::as_str);
            let line = if listing.json {
                let row = json_row(module, function, sites, reason, &inlined)?;
                text::json(&row).into_owned()
            } else {
                text_row(module, function, sites, reason, &inlined)
            };
            print_line(&line)?;
        }
    }
    if listed == 0 {
        return Err(Error::NotFound(match (problem, &listing.pattern) {
            (Some(problem), _) => problem,
            (None, Some(pattern)) => format!("no function matches {}", text::shown(pattern)),
            (None, None) => "no functions: it is stripped and exports none".to_owned(),
        }));
    }
    Ok(elves.take_notes())
}

fn inlined(function: &Function, functions: &Functions<'_>, debug: &DebugInfo) -> Vec<Inlined> {
    debug
        .inlined_places(function.address)
        .unwrap_or_default()
        .into_iter()
        .map(|address| {
            let within = functions.containing(address);
            Inlined {
                address,
                offset: within.as_ref().map_or(0, |within| address - within.address),
                within: within.map(|within| within.plain),
            }
        })
        .collect()
}

fn wanted(pattern: Option<&str>, function: &Function) -> bool {
    let Some(pattern) = pattern else {
        return true;
    };
    [&function.plain, &function.full, &function.symbol]
        .into_iter()
        .any(|name| glob(pattern.as_bytes(), name.as_bytes()))
}

fn return_method(plan: &SitePlan) -> &'static str {
    match plan.exit {
        ExitPlan::ReturnProbe => "uretprobe",
        ExitPlan::Sites(_) => "ret",
    }
}

fn json_row(
    module: &Image,
    function: &Function,
    plan: Option<&SitePlan>,
    reason: Option<&str>,
    inlined: &[Inlined],
) -> Result<String> {
    serde_json::to_string(&Row {
        name: &function.full,
        plain_name: &function.plain,
        symbol: &function.symbol,
        module: &module.path,
        address: function.address,
        size: function.size,
        language: function.language,
        probeable: plan.is_some(),
        reason,
        return_method: plan.map(return_method),
        plan,
        inlined,
    })
    .failed(|| "cannot write JSON".to_owned())
}

fn text_row(
    module: &Image,
    function: &Function,
    plan: Option<&SitePlan>,
    reason: Option<&str>,
    inlined: &[Inlined],
) -> String {
    let (entry, exit) = match plan {
        Some(plan) => (
            plan.entry.cost.name().to_owned(),
            match &plan.exit {
                ExitPlan::ReturnProbe => "return probe".to_owned(),
                ExitPlan::Sites(sites) => {
                    format!("{} × {}", sites.len(), plan.exit_cost().name())
                }
            },
        ),
        None => ("-".to_owned(), "-".to_owned()),
    };
    let mut line = format!(
        "{:<12} {:>7}  {:<5} {entry:<12} {exit:<22} {:<20} {}",
        format!("{:#x}", function.address),
        function.size,
        function.language.name(),
        text::escape(module.name(), 40),
        text::shown(&function.full)
    );
    if let Some(reason) = reason {
        line.push_str(&format!("  (not probed: {})", text::shown(reason)));
    }
    if !inlined.is_empty() {
        let places: Vec<String> = inlined
            .iter()
            .map(|place| match &place.within {
                Some(name) => format!("{name}+{:#x}", place.offset),
                None => format!("{:#x}", place.address),
            })
            .collect();
        line.push_str(&format!("  (inlined in {})", some_of(&places)));
    }
    line
}
