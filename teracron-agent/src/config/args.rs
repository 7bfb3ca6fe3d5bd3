//! The command line's part of the settings: clap's arguments out of the table, and what was given.

use std::{collections::BTreeMap, ffi::OsString, fmt};

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches,
    builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser as _},
    parser::ValueSource,
};

use super::{
    layers::usage,
    setting::{About, Flag, Kind, Part, Row, Setting},
    table::TABLE,
};
use model::error::Result;

/// Flags that were given, by key.
#[derive(Clone, Default)]
pub struct Given(BTreeMap<&'static str, Vec<OsString>>);

/// Names alone: a value may be a key.
impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Given {
    /// What a flag says.
    ///
    /// # Errors
    /// Where it makes no sense.
    pub fn get<K: Kind>(&self, setting: &Setting<K>) -> Result<Option<K::Value>> {
        let Some(texts) = self.0.get(setting.about.key) else {
            return Ok(None);
        };
        let name = setting.about.flag_name().unwrap_or_default();
        setting
            .kind
            .read_all(texts)
            .map(Some)
            .map_err(|wrong| usage(&name, wrong))
    }

    /// Whether a flag is given.
    pub fn has<K>(&self, setting: &Setting<K>) -> bool {
        self.0.contains_key(setting.about.key)
    }

    fn collect(matches: &ArgMatches, parts: &[Part]) -> Self {
        let mut given = BTreeMap::new();
        for row in rows(parts) {
            let about = row.about();
            let key = about.key;
            if matches.value_source(key) != Some(ValueSource::CommandLine) {
                continue;
            }
            let texts = match about.flag {
                Flag::None => continue,
                Flag::Sets(_, value) => vec![OsString::from(value.to_string())],
                Flag::Value(_) => {
                    let values = matches.get_many::<OsString>(key);
                    values
                        .map(|values| values.cloned().collect())
                        .unwrap_or_default()
                }
            };
            given.insert(key, texts);
        }
        Self(given)
    }
}

/// Rows of some parts that have a flag.
fn rows(parts: &[Part]) -> impl Iterator<Item = &'static dyn Row> {
    let is_wanted = move |row: &&dyn Row| parts.contains(&row.about().part);
    let has_flag = |row: &&dyn Row| row.about().flag != Flag::None;
    TABLE.iter().copied().filter(is_wanted).filter(has_flag)
}

/// What `-h` says of a setting.
fn help(row: &dyn Row) -> String {
    let about = row.about();
    let mut help = about.help.to_owned();
    if let Flag::Sets(..) = about.flag {
        return help;
    }
    let default = row
        .default_text()
        .filter(|_| row.kind_name() != "true or false");
    // A size says it in its sentence; what has no default is told when it is wrong.
    let range = row
        .range()
        .filter(|_| default.is_some() && row.kind_name() != "bytes");
    if let Some(range) = range {
        help.push_str(&format!(", {range}"));
    }
    if let Some(default) = default {
        help.push_str(&format!(" [default: {default}]"));
    }
    help
}

/// The argument of a setting.
fn argument(row: &'static dyn Row) -> Arg {
    let about: &'static About = row.about();
    let help = help(row);
    let mut arg = Arg::new(about.key)
        .global(about.part == Part::Account)
        .hide_short_help(about.rare);
    if !about.more.is_empty() {
        arg = arg.long_help(format!("{help}.\n\n{}", about.more));
    }
    arg = arg.help(help);
    arg = match about.part {
        Part::Run => arg,
        Part::Shipping => arg.help_heading("Shipping"),
        Part::Account => arg.help_heading("Account"),
    };
    if !about.against.is_empty() {
        arg = arg.conflicts_with(about.against);
    }
    let value = match about.flag {
        Flag::None => return arg,
        Flag::Sets(name, _) => return arg.long(name).action(ArgAction::SetTrue),
        Flag::Value(value) => value,
    };
    arg = arg
        .long(about.key.replace('_', "-"))
        .value_name(value)
        .value_hint(row.hint())
        .allow_negative_numbers(true)
        .action(if row.is_list() {
            ArgAction::Append
        } else {
            ArgAction::Set
        });
    let words = row.words();
    if words.is_empty() {
        let parser = OsStringValueParser::new();
        arg.value_parser(parser.try_map(|text| row.check(&text).map(|()| text)))
    } else {
        arg.value_parser(PossibleValuesParser::new(words).map(OsString::from))
    }
}

fn augment(command: Command, parts: &[Part]) -> Command {
    command.args(rows(parts).map(argument))
}

macro_rules! flags {
    ($(#[$doc:meta])* $name:ident, $parts:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub struct $name(pub Given);

        impl Args for $name {
            fn augment_args(command: Command) -> Command {
                augment(command, &$parts)
            }

            fn augment_args_for_update(command: Command) -> Command {
                Self::augment_args(command)
            }
        }

        impl FromArgMatches for $name {
            fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
                Ok(Self(Given::collect(matches, &$parts)))
            }

            fn update_from_arg_matches(
                &mut self,
                matches: &ArgMatches,
            ) -> std::result::Result<(), clap::Error> {
                *self = Self::from_arg_matches(matches)?;
                Ok(())
            }
        }
    };
}

flags!(
    /// Whose data it is, and where it goes: flags of every command.
    AccountArgs,
    [Part::Account]
);

flags!(
    /// What is traced, how it is shown, how much is sent: flags of `run` and `config`.
    RunArgs,
    [Part::Run, Part::Shipping]
);
