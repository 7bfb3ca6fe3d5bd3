//! What one setting is: its names, its kind, what help says of it. [`super::table`] has them all.

use std::{
    any::Any,
    ffi::{OsStr, OsString},
    fmt,
    ops::Range,
};

use clap::{ValueHint, builder::PossibleValue};
use toml::{Spanned, de::DeValue};

/// How a setting is given on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// Not at all.
    None,
    /// `--key VALUE`; this stands for the value in help.
    Value(&'static str),
    /// `--name` alone, which means this value.
    Sets(&'static str, bool),
}

/// Where help lists a setting, and which commands know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What is traced, and how it is shown: of `run` and `config`.
    Run,
    /// How much is sent, and when: of `run` and `config`.
    Shipping,
    /// Whose data it is: of every command.
    Account,
}

/// What is known of a setting, whatever its kind.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Key in the file; the variable is `TERACRON_` and it in upper case.
    pub key: &'static str,
    /// One sentence, without bounds, default and full stop: these are added.
    pub help: &'static str,
    /// Paragraphs that only `--help` shows.
    pub more: &'static str,
    /// On the command line.
    pub flag: Flag,
    /// Its part of help.
    pub part: Part,
    /// The environment may have it.
    pub variable: bool,
    /// The file may have it.
    pub file: bool,
    /// It may change while the agent runs (SIGHUP).
    pub reloadable: bool,
    /// `-h` leaves it out.
    pub rare: bool,
    /// Its value is never shown.
    pub secret: bool,
    /// The default in words, where it depends on something.
    pub default: &'static str,
    /// The key of a setting that can't be given beside it on the command line.
    pub against: &'static str,
}

impl About {
    /// A setting of the file and of a variable, without a flag.
    pub const fn new(part: Part, key: &'static str, help: &'static str) -> Self {
        Self {
            key,
            help,
            more: "",
            flag: Flag::None,
            part,
            variable: true,
            file: true,
            reloadable: false,
            rare: false,
            secret: false,
            default: "",
            against: "",
        }
    }

    /// `--key VALUE`.
    pub const fn flag(mut self, value: &'static str) -> Self {
        self.flag = Flag::Value(value);
        self
    }

    /// `--name`, which means `value`.
    pub const fn sets(mut self, name: &'static str, value: bool) -> Self {
        self.flag = Flag::Sets(name, value);
        self
    }

    /// Paragraphs that only `--help` shows.
    pub const fn more(mut self, more: &'static str) -> Self {
        self.more = more;
        self
    }

    /// The environment has no word in it.
    pub const fn no_variable(mut self) -> Self {
        self.variable = false;
        self
    }

    /// Neither the environment nor the file has a word in it.
    pub const fn flag_only(mut self) -> Self {
        (self.variable, self.file) = (false, false);
        self
    }

    /// It may change while the agent runs.
    pub const fn reloadable(mut self) -> Self {
        self.reloadable = true;
        self
    }

    /// `-h` leaves it out.
    pub const fn rare(mut self) -> Self {
        self.rare = true;
        self
    }

    /// Its value is never shown.
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// A default that depends on something, in words.
    pub const fn default(mut self, words: &'static str) -> Self {
        self.default = words;
        self
    }

    /// Not beside this one on the command line.
    pub const fn against(mut self, key: &'static str) -> Self {
        self.against = key;
        self
    }

    /// Name of the variable.
    pub fn variable_name(&self) -> String {
        format!("TERACRON_{}", self.key.to_uppercase())
    }

    /// The flag as it is typed; `None` where there is none.
    pub fn flag_name(&self) -> Option<String> {
        match self.flag {
            Flag::None => None,
            Flag::Value(_) => Some(format!("--{}", self.key.replace('_', "-"))),
            Flag::Sets(name, _) => Some(format!("--{name}")),
        }
    }
}

/// Why a value can't be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is not what is wanted.
    Unreadable(String),
    /// It is a number out of this range.
    OutOfRange(String),
}

impl Wrong {
    /// What is wanted instead.
    pub(super) fn wanted(what: impl Into<String>) -> Self {
        Self::Unreadable(what.into())
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(wanted) => f.write_str(wanted),
            Self::OutOfRange(range) => write!(f, "out of range: {range}"),
        }
    }
}

impl std::error::Error for Wrong {}

/// A mistake in the file, and where.
#[derive(Debug)]
pub struct Mistake {
    /// Bytes of the file, where they are known.
    pub at: Option<Range<usize>>,
    /// What is wrong there.
    pub what: String,
}

/// A value of the file, with its place.
pub(super) type Node<'a> = Spanned<DeValue<'a>>;

/// What a setting can be.
pub trait Kind: Sync + 'static {
    /// A value.
    type Value: Clone + PartialEq + Send + 'static;

    /// Reads what a flag or variable has.
    ///
    /// # Errors
    /// What is wanted instead.
    fn read(&self, text: &OsStr) -> Result<Self::Value, Wrong>;

    /// Reads what an environment variable has: the reference client's reading where it differs.
    ///
    /// # Errors
    /// What is wanted instead.
    fn read_variable(&self, text: &OsStr) -> Result<Self::Value, Wrong> {
        self.read(text)
    }

    /// What counts where a variable can't be read; `None`: the default, whatever the file has. As in the reference
    /// client.
    fn unreadable_variable(&self) -> Option<Self::Value> {
        None
    }

    /// Reads a flag that is given several times.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    fn read_all(&self, texts: &[OsString]) -> Result<Self::Value, Wrong> {
        self.read(texts.last().map(OsString::as_os_str).unwrap_or_default())
    }

    /// Reads what the file has.
    ///
    /// # Errors
    /// What is wrong, and where.
    fn read_node(&self, node: &Node<'_>) -> Result<Self::Value, Mistake>;

    /// How a value is shown, one line each.
    fn show(&self, value: &Self::Value) -> Vec<String>;

    /// The nearest value that is allowed.
    fn nearest(&self, value: &Self::Value) -> Self::Value {
        value.clone()
    }

    /// What holds where nothing is said, as it is shown.
    fn default_text(&self) -> Option<String> {
        None
    }

    /// What it has to be within: `5 to 300`, `64KiB or more`.
    fn range(&self) -> Option<String> {
        None
    }

    /// What it is, in a word or two.
    fn name(&self) -> &'static str;

    /// The words that it can be.
    fn words(&self) -> Vec<PossibleValue> {
        Vec::new()
    }

    /// It may be given several times.
    fn is_list(&self) -> bool {
        false
    }

    /// Mistakes are told when everything is read, not with the line's own.
    fn is_checked_later(&self) -> bool {
        false
    }

    /// What a shell may complete it with.
    fn hint(&self) -> ValueHint {
        ValueHint::Other
    }
}

/// A kind of which there always is a value.
pub(super) trait Always: Kind {
    /// The value where nothing is said.
    fn fallback(&self) -> Self::Value;
}

/// One setting.
pub struct Setting<K> {
    /// What is known of it.
    pub about: About,
    /// What it can be.
    pub kind: K,
}

/// A setting of any kind: a row of the table.
pub trait Row: Sync {
    /// What is known of it.
    fn about(&self) -> &About;
    /// Whether a flag may have this value.
    ///
    /// # Errors
    /// What is wanted, or the range that it is out of.
    fn check(&self, text: &OsStr) -> Result<(), Wrong>;
    /// Reads what the file has.
    ///
    /// # Errors
    /// What is wrong, and where.
    fn read_any(&self, node: &Node<'_>) -> Result<Box<dyn Any>, Mistake>;
    /// See `Kind::default_text`; in words where it depends on something.
    fn default_text(&self) -> Option<String>;
    /// See `Kind::range`.
    fn range(&self) -> Option<String>;
    /// See `Kind::name`.
    fn kind_name(&self) -> &'static str;
    /// See `Kind::words`.
    fn words(&self) -> Vec<PossibleValue>;
    /// See `Kind::is_list`.
    fn is_list(&self) -> bool;
    /// See `Kind::hint`.
    fn hint(&self) -> ValueHint;
}

impl<K: Kind> Row for Setting<K> {
    fn about(&self) -> &About {
        &self.about
    }

    fn check(&self, text: &OsStr) -> Result<(), Wrong> {
        if self.kind.is_checked_later() {
            return Ok(());
        }
        let value = self.kind.read(text)?;
        if self.kind.nearest(&value) == value {
            return Ok(());
        }
        Err(Wrong::OutOfRange(self.range().unwrap_or_default()))
    }

    fn read_any(&self, node: &Node<'_>) -> Result<Box<dyn Any>, Mistake> {
        Ok(Box::new(self.kind.read_node(node)?))
    }

    fn default_text(&self) -> Option<String> {
        match self.about.default {
            "" => self.kind.default_text(),
            words => Some(words.to_owned()),
        }
    }

    fn range(&self) -> Option<String> {
        self.kind.range()
    }

    fn kind_name(&self) -> &'static str {
        self.kind.name()
    }

    fn words(&self) -> Vec<PossibleValue> {
        self.kind.words()
    }

    fn is_list(&self) -> bool {
        self.kind.is_list()
    }

    fn hint(&self) -> ValueHint {
        self.kind.hint()
    }
}

/// Names of files can be anything; a setting's value is text.
pub(super) fn utf8(text: &OsStr) -> Result<&str, Wrong> {
    text.to_str()
        .ok_or_else(|| Wrong::wanted("it is not UTF-8"))
}
