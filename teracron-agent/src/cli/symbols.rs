//! `teracron-agent symbols`: what can be probed, where, and at what cost.

use super::SymbolsArgs;
use crate::planning::{self, Listing};
use image::{Image, ImageFacts};
use model::{
    error::{Context as _, Error, Result},
    notes, text,
};
use planner::probe_spec::FunctionPattern;
use tracer::{
    kernel::Features,
    process::{Process, comm_of, descendants, too_many_files, trust_root_of},
};

/// Lists functions.
///
/// # Errors
/// Where the process or file is not usable, or nothing matches.
pub(super) fn symbols(args: &SymbolsArgs, json: bool) -> Result<()> {
    let pattern = args.pattern.as_deref().map(pattern).transpose()?;
    let features = Features::detect();
    let (process, images): (_, Vec<Image>) = match (&args.pid, &args.file) {
        (Some(pid), _) => {
            let process = Process::find(*pid)?;
            let mut modules = process.modules()?;
            // Nothing is attached.
            trust_root_of(*pid, &mut modules);
            if let Some(note) = too_many_files(*pid, &modules) {
                notes::say(&note);
            }
            let facts = process.facts(&modules);
            let images = modules.into_iter().map(|module| module.image).collect();
            (Some(facts), images)
        }
        (None, Some(path)) => {
            let shown = text::shown(&path.to_string_lossy());
            (None, vec![Image::open(path, true).not_found(|| shown)?])
        }
        (None, None) => return Err(Error::Usage("give --pid or --file".to_owned())),
    };
    let listing = Listing {
        images: images.iter().map(ImageFacts::from).collect(),
        process,
        pattern,
        json,
        kernel: features.kernel,
        rules: features.rules(),
    };
    let listed = planning::list(&images, listing).map_err(|error| match (error, args.pid) {
        (Error::NotFound(why), Some(pid)) => Error::NotFound(format!("{why}{}", launched(pid))),
        (error, _) => error,
    });
    for note in listed? {
        notes::say(&note);
    }
    Ok(())
}

/// What a shell or another launcher runs, as the rest of a sentence: its functions may have been meant.
fn launched(pid: u32) -> String {
    const MOST: usize = 8;
    let others = descendants(&[pid]).others;
    let names: Vec<String> = others
        .iter()
        .take(MOST)
        .map(|pid| format!("{pid} ({})", comm_of(*pid)))
        .collect();
    match names.as_slice() {
        [] => String::new(),
        _ => format!("; it has started other programs: {}", names.join(", ")),
    }
}

/// What is to be listed: as `--probe` reads it.
fn pattern(written: &str) -> Result<FunctionPattern> {
    FunctionPattern::parse(written).ok_or_else(|| {
        let written = text::shown(written);
        Error::Usage(format!("`{written}` is not an address: write it as 0x1234"))
    })
}
