//! The kinds of settings: how each is read from text and from the file, and shown. `numbers` has those of numbers.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use clap::{ValueEnum, ValueHint, builder::PossibleValue};
use toml::de::{DeInteger, DeValue};

use super::{
    process_id,
    setting::{Always, Kind, Mistake, Node, Wrong, utf8},
    units,
};
use model::text;

/// The text that a plain value of the file would be on the command line.
fn plain_text(node: &Node<'_>) -> Option<OsString> {
    let text = match node.get_ref() {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => integer(number)?.to_string(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(is_true) => is_true.to_string(),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => return None,
    };
    Some(text.into())
}

/// The number, whatever its base.
fn integer(number: &DeInteger<'_>) -> Option<i128> {
    i128::from_str_radix(number.as_str(), number.radix()).ok()
}

/// What the file has instead of what is wanted.
pub(super) fn found(node: &Node<'_>) -> &'static str {
    match node.get_ref() {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A mistake at a value.
pub(super) fn mistake(node: &Node<'_>, what: impl Into<String>) -> Mistake {
    Mistake {
        at: Some(node.span()),
        what: what.into(),
    }
}

/// Reads a plain value as the command line would.
pub(super) fn read_plain<K: Kind>(kind: &K, node: &Node<'_>) -> Result<K::Value, Mistake> {
    let Some(text) = plain_text(node) else {
        let found = found(node);
        return Err(mistake(
            node,
            format!("{} is wanted, not {found}", kind.name()),
        ));
    };
    kind.read(&text)
        .map_err(|wrong| mistake(node, wrong.to_string()))
}

/// Texts must be texts in the file: `api_key = 5` is a mistake.
fn read_text<'a>(node: &'a Node<'_>) -> Result<&'a str, Mistake> {
    match node.get_ref() {
        DeValue::String(text) => Ok(text),
        _ => Err(mistake(
            node,
            format!("a text is wanted, not {}", found(node)),
        )),
    }
}

/// On or off.
pub struct Switch {
    /// Where nothing is said.
    pub default: bool,
}

impl Kind for Switch {
    type Value = bool;

    fn read(&self, text: &OsStr) -> Result<bool, Wrong> {
        units::switch(utf8(text)?).ok_or_else(|| Wrong::wanted("true or false is wanted"))
    }

    fn read_variable(&self, text: &OsStr) -> Result<bool, Wrong> {
        let text = utf8(text)?;
        let value = units::python_bool(text);
        match units::switch(text) {
            Some(meant) if meant == value => Ok(value),
            _ => Err(Wrong::wanted("true or false is wanted")),
        }
    }

    fn unreadable_variable(&self) -> Option<bool> {
        Some(false)
    }

    fn read_node(&self, node: &Node<'_>) -> Result<bool, Mistake> {
        match node.get_ref() {
            DeValue::Integer(_) => Err(mistake(node, "true or false is wanted, not a number")),
            _ => read_plain(self, node),
        }
    }

    fn show(&self, value: &bool) -> Vec<String> {
        vec![value.to_string()]
    }

    fn default_text(&self) -> Option<String> {
        Some(self.default.to_string())
    }

    fn name(&self) -> &'static str {
        "true or false"
    }
}

impl Always for Switch {
    fn fallback(&self) -> bool {
        self.default
    }
}

/// Any text.
pub struct Text;

impl Kind for Text {
    type Value = String;

    fn read(&self, text: &OsStr) -> Result<String, Wrong> {
        utf8(text).map(str::to_owned)
    }

    fn read_node(&self, node: &Node<'_>) -> Result<String, Mistake> {
        read_text(node).map(str::to_owned)
    }

    fn show(&self, value: &String) -> Vec<String> {
        vec![text::shown(value)]
    }

    fn name(&self) -> &'static str {
        "text"
    }
}

/// A file or folder.
pub struct Place {
    /// Where nothing is said; empty for none.
    pub default: &'static str,
    /// What a shell may complete it with.
    pub hint: ValueHint,
}

impl Kind for Place {
    type Value = PathBuf;

    fn read(&self, text: &OsStr) -> Result<PathBuf, Wrong> {
        Ok(PathBuf::from(text))
    }

    fn read_node(&self, node: &Node<'_>) -> Result<PathBuf, Mistake> {
        read_text(node).map(PathBuf::from)
    }

    fn show(&self, value: &PathBuf) -> Vec<String> {
        vec![value.display().to_string()]
    }

    fn default_text(&self) -> Option<String> {
        (!self.default.is_empty()).then(|| self.default.to_owned())
    }

    fn name(&self) -> &'static str {
        "path"
    }

    fn hint(&self) -> ValueHint {
        self.hint
    }
}

impl Always for Place {
    fn fallback(&self) -> PathBuf {
        PathBuf::from(self.default)
    }
}

/// One of a few words.
pub struct Word<T> {
    /// Where nothing is said.
    pub default: T,
}

impl<T: ValueEnum + Clone + PartialEq + Send + Sync + 'static> Kind for Word<T> {
    type Value = T;

    fn read(&self, text: &OsStr) -> Result<T, Wrong> {
        T::from_str(utf8(text)?.trim(), true).map_err(|_| {
            let words: Vec<String> = self
                .words()
                .iter()
                .map(|word| word.get_name().to_owned())
                .collect();
            Wrong::wanted(format!("one of {} is wanted", words.join(", ")))
        })
    }

    fn read_node(&self, node: &Node<'_>) -> Result<T, Mistake> {
        read_plain(self, node)
    }

    fn show(&self, value: &T) -> Vec<String> {
        value
            .to_possible_value()
            .map(|word| word.get_name().to_owned())
            .into_iter()
            .collect()
    }

    fn default_text(&self) -> Option<String> {
        self.show(&self.default).pop()
    }

    fn name(&self) -> &'static str {
        "word"
    }

    fn words(&self) -> Vec<PossibleValue> {
        T::value_variants()
            .iter()
            .filter_map(T::to_possible_value)
            .collect()
    }
}

impl<T: ValueEnum + Clone + PartialEq + Send + Sync + 'static> Always for Word<T> {
    fn fallback(&self) -> T {
        self.default.clone()
    }
}

/// The id of a process.
pub struct ProcessId;

impl Kind for ProcessId {
    type Value = u32;

    fn read(&self, text: &OsStr) -> Result<u32, Wrong> {
        process_id::read(utf8(text)?)
    }

    fn read_node(&self, node: &Node<'_>) -> Result<u32, Mistake> {
        read_plain(self, node)
    }

    fn show(&self, value: &u32) -> Vec<String> {
        vec![value.to_string()]
    }

    fn name(&self) -> &'static str {
        "process id"
    }
}

/// Several of a kind; one alone is a list, too.
pub struct Many<K>(pub K);

impl<K: Kind> Kind for Many<K> {
    type Value = Vec<K::Value>;

    fn read(&self, text: &OsStr) -> Result<Self::Value, Wrong> {
        Ok(vec![self.0.read(text)?])
    }

    fn read_all(&self, texts: &[OsString]) -> Result<Self::Value, Wrong> {
        texts.iter().map(|text| self.0.read(text)).collect()
    }

    fn read_node(&self, node: &Node<'_>) -> Result<Self::Value, Mistake> {
        match node.get_ref() {
            DeValue::Array(list) => list.iter().map(|node| self.0.read_node(node)).collect(),
            _ => Ok(vec![self.0.read_node(node)?]),
        }
    }

    fn show(&self, value: &Self::Value) -> Vec<String> {
        value.iter().flat_map(|value| self.0.show(value)).collect()
    }

    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn is_list(&self) -> bool {
        true
    }

    fn is_checked_later(&self) -> bool {
        self.0.is_checked_later()
    }

    fn hint(&self) -> ValueHint {
        self.0.hint()
    }
}

/// A kind without a default.
pub struct Optional<K>(pub K);

impl<K: Kind> Kind for Optional<K> {
    type Value = K::Value;

    fn read(&self, text: &OsStr) -> Result<K::Value, Wrong> {
        self.0.read(text)
    }

    fn read_node(&self, node: &Node<'_>) -> Result<K::Value, Mistake> {
        self.0.read_node(node)
    }

    fn show(&self, value: &K::Value) -> Vec<String> {
        self.0.show(value)
    }

    fn nearest(&self, value: &K::Value) -> K::Value {
        self.0.nearest(value)
    }

    fn range(&self) -> Option<String> {
        self.0.range()
    }

    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn words(&self) -> Vec<PossibleValue> {
        self.0.words()
    }

    fn hint(&self) -> ValueHint {
        self.0.hint()
    }
}
