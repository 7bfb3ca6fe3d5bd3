//! The configuration file: TOML, every key known, every mistake with its key and line.

use std::{
    any::Any,
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::de::DeTable;
use zeroize::Zeroizing;

use super::{
    setting::{Kind, Mistake, Setting},
    table::{SCRUBBER, SCRUBBER_ENV, TABLE},
};
use image::symbol::nearest;
use model::{
    error::{Error, Result},
    text,
};
use pipeline::own_files;

/// Where it is looked for unless `--config` says.
pub(super) const DEFAULT: &str = "/etc/teracron/agent.toml";
/// A file larger than this is none of ours.
const MAX_BYTES: u64 = 4 << 20;
/// Characters of a mistake that are shown.
const MAX_MESSAGE: usize = 1000;

/// Contents of the file: settings by key, as their kinds read them.
#[derive(Default)]
pub struct ConfigFile {
    /// Its name; empty where there is none.
    pub name: String,
    values: BTreeMap<&'static str, Box<dyn Any>>,
}

impl ConfigFile {
    /// Reads the file that is meant: this one, or the usual one where it exists. Answers what is to be said of it, too.
    ///
    /// # Errors
    /// Where it can't be read, others can write to it, or something in it makes no sense; the message names the key and
    /// the line.
    pub fn read(given: Option<PathBuf>) -> Result<(Self, Option<String>)> {
        let path = match given {
            Some(path) => path,
            None if Path::new(DEFAULT).exists() => PathBuf::from(DEFAULT),
            None => return Ok((Self::default(), None)),
        };
        let shown = text::shown(&path.to_string_lossy());
        let unreadable = |error: &dyn std::fmt::Display| {
            Error::Usage(format!("cannot read the configuration: {error}"))
        };
        let content = own_files::read(&path, MAX_BYTES).map_err(|error| unreadable(&error))?;
        let text = Zeroizing::new(content.bytes);
        let text = std::str::from_utf8(&text).map_err(|error| unreadable(&error))?;
        let file = Self::parse(text, &shown)?;
        let secret = TABLE
            .iter()
            .map(|row| row.about())
            .find(|about| about.secret && file.values.contains_key(about.key));
        let warning = secret.filter(|_| content.others_read).map(|about| {
            format!(
                "{shown} has {} and can be read by others: chmod go-r {shown}",
                about.key
            )
        });
        Ok((file, warning))
    }

    /// Parses what a file called `name` holds.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn parse(content: &str, name: &str) -> Result<Self> {
        let at = |span: Option<Range<usize>>, what: &str| {
            let before = span.and_then(|span| content.get(..span.start));
            let line = before.map_or(1, |before| before.matches('\n').count() + 1);
            // The parser writes some mistakes on two lines, and quotes what it has found.
            let what = text::escape(&what.replace('\n', " "), MAX_MESSAGE);
            Error::Usage(format!("{name}, line {line}: {what}"))
        };
        // The parser's message alone: its picture of the line could show a key.
        let table = DeTable::parse(content).map_err(|error| at(error.span(), error.message()))?;
        let mut file = Self {
            name: name.to_owned(),
            values: BTreeMap::new(),
        };
        for (key, value) in table.into_inner() {
            let row = TABLE
                .iter()
                .find(|row| row.about().file && row.about().key == *key.get_ref());
            let Some(row) = row else {
                let known: Vec<&str> = TABLE
                    .iter()
                    .filter(|row| row.about().file)
                    .map(|row| row.about().key)
                    .collect();
                return Err(at(
                    Some(key.span()),
                    &unknown(key.get_ref(), &known, "the file"),
                ));
            };
            let wrong = |Mistake { at: span, what }: Mistake| {
                at(
                    span.or(Some(value.span())),
                    &format!("{}: {what}", row.about().key),
                )
            };
            let read = row.read_any(&value).map_err(wrong)?;
            file.values.insert(row.about().key, read);
            check(&file, row.about().key).map_err(|what| {
                wrong(Mistake {
                    at: None,
                    what: what.to_owned(),
                })
            })?;
        }
        Ok(file)
    }

    /// What it says of a setting.
    pub fn get<K: Kind>(&self, setting: &Setting<K>) -> Option<K::Value> {
        self.values.get(setting.about.key)?.downcast_ref().cloned()
    }
}

/// What a kind can't know.
fn check(file: &ConfigFile, key: &str) -> std::result::Result<(), &'static str> {
    if key == SCRUBBER.about.key && file.get(&SCRUBBER).is_none_or(|list| list.is_empty()) {
        return Err("the program is missing");
    }
    if key == SCRUBBER_ENV.about.key {
        for name in file.get(&SCRUBBER_ENV).unwrap_or_default() {
            if name == "TERACRON_SCRUB_HASH_KEY" {
                return Err("no program gets the hash key");
            }
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err("names of variables are wanted");
            }
        }
    }
    Ok(())
}

/// What to say of a key that nobody knows.
pub(super) fn unknown(key: &str, known: &[&str], of: &str) -> String {
    let shown = text::escape(key, 60);
    // `trace-sample-rate` is the flag's spelling.
    let spelled = key.trim_start_matches('-').replace('-', "_").to_lowercase();
    match nearest(&spelled, known.iter().copied()).first() {
        Some(near) => format!("{shown} is no key of {of}; did you mean {near}?"),
        None if known.len() > 10 => {
            format!("{shown} is no key of {of} (docs/settings.md has them all)")
        }
        None => format!("{shown} is no key of {of}: it has {}", known.join(", ")),
    }
}
