//! Many names in one line.

use model::text;

/// Names that are printed where a pattern matches many.
pub const NAMES_SHOWN: usize = 8;

/// Some names, and how many more there are.
pub fn list(names: &[String]) -> String {
    let mut shown: Vec<String> = names
        .iter()
        .take(NAMES_SHOWN)
        .map(|name| text::shown(name))
        .collect();
    if names.len() > NAMES_SHOWN {
        shown.push(format!("and {} more", names.len() - NAMES_SHOWN));
    }
    shown.join("; ")
}
