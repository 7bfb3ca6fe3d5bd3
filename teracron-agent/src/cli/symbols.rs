//! `teracron-agent symbols`: what can be probed, where, and at what cost.

use super::SymbolsArgs;
use crate::planning::{self, Listing};
use image::{Image, ImageFacts};
use model::{
    error::{Context as _, Error, Result},
    notes, text,
};
use tracer::{
    kernel::Features,
    process::{Process, too_many_files, trust_root_of},
};

/// Lists functions.
///
/// # Errors
/// Where the process or file is not usable, or nothing matches.
pub(super) fn symbols(args: &SymbolsArgs, json: bool) -> Result<()> {
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
        pattern: args.pattern.clone(),
        json,
        kernel: features.kernel,
        rules: features.rules(),
    };
    for note in planning::list(&images, listing)? {
        notes::say(&note);
    }
    Ok(())
}
