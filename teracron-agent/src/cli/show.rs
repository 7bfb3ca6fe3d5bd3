//! `teracron-agent config`: what is in force, and where it came from.

use crate::config::{Environment, Flags, Settings};
use model::{error::Result, notes, text};
use pipeline::output::print_line;

/// Shows the settings of a run.
///
/// # Errors
/// Where something can't be read at all: as `run` would say.
pub(super) fn config(flags: &Flags<'_>, environment: &Environment) -> Result<()> {
    let settings = Settings::resolve(flags, environment)?;
    for warning in &settings.warnings {
        notes::say(&text::shown(warning));
    }
    if flags.json {
        let shown =
            serde_json::to_string_pretty(&settings.shown).unwrap_or_else(|_| "[]".to_owned());
        return print_line(&text::json(&shown));
    }
    let width = |column: fn(&crate::config::Shown) -> &str| {
        settings
            .shown
            .iter()
            .map(|shown| text::shown(column(shown)).chars().count())
            .max()
            .unwrap_or(0)
    };
    let (names, values) = (width(|shown| shown.name), width(|shown| &shown.value));
    for shown in &settings.shown {
        let line = format!(
            "{:<names$}  {:<values$}  {}",
            shown.name,
            text::shown(&shown.value),
            text::shown(&shown.source),
            values = values.min(60)
        );
        print_line(line.trim_end())?;
    }
    Ok(())
}
