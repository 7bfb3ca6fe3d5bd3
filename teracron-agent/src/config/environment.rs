//! The variables of the process that are ours.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
};

use image::symbol::nearest;
use model::text;

use super::table::TABLE;

/// What ours begin with.
const PREFIX: &str = "TERACRON_";

/// Variables, as they are at one instant: `TERACRON_…` and `HOME`.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// The process's own.
    pub fn of_process() -> Self {
        let ours = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            (name == "HOME" || name.starts_with(PREFIX)).then_some((name, value))
        });
        Self(ours.collect())
    }

    /// A variable that is set to something.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        let value = self.0.get(name).map(OsString::as_os_str);
        value.filter(|value| !value.is_empty())
    }

    /// The same, where it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.to_str()
    }

    /// A line for each variable that looks like ours and is none.
    pub(super) fn strangers(&self) -> Vec<String> {
        let known: Vec<String> = TABLE
            .iter()
            .filter(|row| row.about().variable)
            .map(|row| row.about().variable_name())
            .collect();
        let is_strange = |name: &&String| name.starts_with(PREFIX) && !known.contains(name);
        self.0
            .keys()
            .filter(is_strange)
            .map(|name| stranger(name, &known))
            .collect()
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(variables: [(&str, &str); N]) -> Self {
        Self::from(&variables[..])
    }
}

impl From<&[(&str, &str)]> for Environment {
    fn from(variables: &[(&str, &str)]) -> Self {
        let owned = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).into()));
        Self(owned.collect())
    }
}

fn stranger(name: &str, known: &[String]) -> String {
    let shown = text::escape(name, 60);
    // Some settings have a flag or a key, and no variable.
    let without = TABLE.iter().find(|row| row.about().variable_name() == name);
    if let Some(row) = without {
        let about = row.about();
        let flag = about.flag_name().into_iter();
        let key = about.file.then(|| format!("`{}` in the file", about.key));
        let ways: Vec<String> = flag.chain(key).collect();
        return format!("{shown} means nothing: there is {}", ways.join(", or "));
    }
    match nearest(name, known.iter().map(String::as_str)).first() {
        Some(near) => format!("{shown} is no variable of this agent; did you mean {near}?"),
        None => format!("{shown} is no variable of this agent (docs/settings.md has them all)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strange_variables_are_told_with_the_nearest_one() {
        let given = Environment::from([
            ("TERACRON_INTERVALL", "1"),
            ("TERACRON_PROBE", "a:b"),
            ("TERACRON_SPOOOL_DIR", "/x"),
            ("TERACRON_XYZZY", "1"),
            ("TERACRON_INTERVAL", "7"),
            ("HOME", "/root"),
        ]);
        assert_eq!(
            given.strangers(),
            [
                "TERACRON_INTERVALL is no variable of this agent; did you mean TERACRON_INTERVAL?",
                "TERACRON_PROBE means nothing: there is --probe, or `probe` in the file",
                "TERACRON_SPOOOL_DIR is no variable of this agent; did you mean TERACRON_SPOOL_DIR?",
                "TERACRON_XYZZY is no variable of this agent (docs/settings.md has them all)",
            ]
        );
    }
}
