//! The list of functions (`symbols`), written by the process that reads the files.

use serde::{Deserialize, Serialize};

use image::{
    DebugPlaces, Image, ImageFacts,
    debug::DebugInfo,
    symbol::{Elves, Language},
};
use model::{
    error::{Context as _, Error, Result},
    text,
};
use pipeline::output::print_line;
use planner::{
    find::{Function, Functions, Selection, of_file},
    probe::{
        Dangers, Debugs, MAX_COUNTED, ProcessFacts, Reached, decide, inlined_everywhere, missing,
        plan_each,
    },
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
    /// Only those that it means, or that have it in their names.
    pub pattern: Option<FunctionPattern>,
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
    let pattern = listing.pattern.as_ref();
    let mut selection = Selection::of(pattern);
    let (mut problem, mut notes) = (None, Vec::new());
    for (index, module) in images.iter().enumerate() {
        match elves.get(module) {
            Ok(elf) => {
                if let Some(reason) = &elf.go_table_problem {
                    problem = Some(format!("{}: {reason}", text::shown(&module.path)));
                }
                selection.add(index, of_file(module), elf);
            }
            Err(error) => problem = Some(format!("{}: {error}", text::shown(&module.path))),
        }
    }
    let mut debugs = Debugs::default();
    let listed = selection.finish();
    if listed.files.is_empty() {
        return Err(Error::NotFound(match (problem, pattern) {
            (Some(problem), _) => problem,
            (None, Some(pattern)) if listed.left_out.is_empty() => {
                let modules: Vec<&Image> = images.iter().collect();
                let why = missing(pattern, &modules, false, &mut elves, &mut debugs);
                format!("{pattern}: {why}")
            }
            (None, Some(pattern)) => format!(
                "{pattern} does not stand for {}, and nothing else matches",
                listed.left_out.sentence()
            ),
            (None, None) => "no functions: it is stripped and exports none".to_owned(),
        }));
    }
    if !listing.json {
        print_line(&format!(
            "{:<12} {:>7}  {:<5} {:<12} {:<22} {:<20} NAME",
            "ADDRESS", "SIZE", "LANG", "ENTRY", "EXIT", "MODULE"
        ))?;
    }
    for (index, matching) in &listed.files {
        let Some(module) = images.get(*index) else {
            continue;
        };
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
        let Ok(elf) = elves.get(module) else {
            continue;
        };
        let functions = Functions::of(elf);
        let plans = plan_each(listing.rules, module, elf, matching, &returns);
        let debug = (pattern.is_some() && matching.len() <= MAX_COUNTED)
            .then(|| debugs.get(module, elf).ok())
            .flatten();
        for (function, planned) in matching.iter().zip(&plans) {
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
    if !listed.left_out.is_empty() {
        notes.push(format!("not listed: {}", listed.left_out.sentence()));
    }
    // The function itself may be one that is nowhere.
    if let Some(pattern @ FunctionPattern::Name(_)) = pattern
        && listed.closest.is_none()
    {
        for module in images.iter().filter(|module| module.is_main) {
            if let Ok(elf) = elves.get(module)
                && let Some(why) = inlined_everywhere(pattern, module, elf, &mut debugs)
            {
                notes.push(format!("{pattern}: {why}"));
            }
        }
    }
    notes.extend(elves.take_notes());
    Ok(notes)
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
