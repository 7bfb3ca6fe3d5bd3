//! One setting out of flag, environment and file, and where it came from.

use std::fmt::Display;

use serde::Serialize;

use super::{
    ConfigFile, Environment, Given,
    setting::{Always, Kind, Setting, Wrong},
};
use model::{
    error::{Error, Result},
    text,
};

/// A setting as `teracron-agent config` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Name, as in the file.
    pub name: &'static str,
    /// Value; keys are masked.
    pub value: String,
    /// Flag, variable, file or `default`.
    pub source: String,
}

/// A value and where it came from.
pub(super) struct Picked<T> {
    /// The value.
    pub value: T,
    /// Where it came from.
    pub source: String,
}

impl<T> Picked<T> {
    /// Nobody has said anything.
    pub(super) fn default(value: T) -> Self {
        Self {
            value,
            source: "default".to_owned(),
        }
    }
}

/// The layers, and what was found on the way.
pub(super) struct Layers<'a> {
    /// Flags of the account.
    pub account: &'a Given,
    /// Flags of the run.
    pub run: &'a Given,
    /// The environment.
    pub environment: &'a Environment,
    /// The file.
    pub file: &'a ConfigFile,
    /// What is in force.
    pub shown: Vec<Shown>,
    /// What was changed or passed over.
    pub warnings: Vec<String>,
}

impl Layers<'_> {
    /// What a flag says.
    ///
    /// # Errors
    /// Where it makes no sense.
    pub(super) fn flag<K: Kind>(&self, setting: &Setting<K>) -> Result<Option<K::Value>> {
        for given in [self.account, self.run] {
            if let Some(value) = given.get(setting)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// A setting; nothing where no layer has it.
    ///
    /// # Errors
    /// Where a flag makes no sense.
    pub(super) fn pick<K: Kind>(
        &mut self,
        setting: &Setting<K>,
    ) -> Result<Option<Picked<K::Value>>> {
        let about = &setting.about;
        if let Some(value) = self.flag(setting)? {
            let source = about.flag_name().unwrap_or_default();
            return Ok(Some(Picked { value, source }));
        }
        if about.variable {
            let name = about.variable_name();
            if let Some(given) = self.environment.get(&name) {
                return Ok(match setting.kind.read_variable(given) {
                    Ok(value) => Some(self.bounded(setting, value, name)),
                    Err(wrong) => {
                        let shown = if about.secret {
                            "****".into()
                        } else {
                            given.to_string_lossy()
                        };
                        self.unreadable(setting, &shown, &name, &wrong)
                    }
                });
            }
        }
        match self.file.get(setting) {
            Some(value) => {
                let source = self.file.name.clone();
                Ok(Some(self.bounded(setting, value, source)))
            }
            None => Ok(None),
        }
    }

    /// What can't be read is passed over with a warning, as the reference client does: the default is used then,
    /// whatever else is configured.
    fn unreadable<K: Kind>(
        &mut self,
        setting: &Setting<K>,
        given: &str,
        name: &str,
        wrong: &Wrong,
    ) -> Option<Picked<K::Value>> {
        let instead = setting.kind.unreadable_variable();
        let used = match &instead {
            Some(value) => setting.kind.show(value).join(" "),
            None => "the default".to_owned(),
        };
        self.warnings.push(format!(
            "{name} is {}, which can't be read ({wrong}): {used} is used",
            text::escape(given, 40)
        ));
        instead.map(|value| Picked {
            value,
            source: name.to_owned(),
        })
    }

    /// The nearest value that is allowed.
    fn bounded<K: Kind>(
        &mut self,
        setting: &Setting<K>,
        value: K::Value,
        source: String,
    ) -> Picked<K::Value> {
        let nearest = setting.kind.nearest(&value);
        if nearest != value {
            let show = |value| setting.kind.show(value).join(" ");
            self.warnings.push(format!(
                "{} is {} ({}), out of range ({}): {} is used",
                setting.about.key,
                show(&value),
                text::shown(&source),
                setting.kind.range().unwrap_or_default(),
                show(&nearest)
            ));
        }
        Picked {
            value: nearest,
            source,
        }
    }

    /// A setting, shown in `config`, where any layer has it.
    ///
    /// # Errors
    /// As for [`pick`](Self::pick).
    pub(super) fn optional<K: Kind>(&mut self, setting: &Setting<K>) -> Result<Option<K::Value>> {
        let picked = self.pick(setting)?;
        Ok(picked.map(|picked| self.take_picked(setting, picked)))
    }

    /// A setting that always has a value, shown in `config`.
    ///
    /// # Errors
    /// As for [`pick`](Self::pick).
    pub(super) fn take<K: Always>(&mut self, setting: &Setting<K>) -> Result<K::Value> {
        let picked = self.pick(setting)?;
        let picked = picked.unwrap_or_else(|| Picked::default(setting.kind.fallback()));
        Ok(self.take_picked(setting, picked))
    }

    /// A setting whose default depends on something, shown in `config`.
    ///
    /// # Errors
    /// As for [`pick`](Self::pick).
    pub(super) fn take_or<K: Kind>(
        &mut self,
        setting: &Setting<K>,
        default: K::Value,
    ) -> Result<K::Value> {
        let picked = self.pick(setting)?;
        let picked = picked.unwrap_or_else(|| Picked::default(default));
        Ok(self.take_picked(setting, picked))
    }

    /// Notes what is in force.
    pub(super) fn take_picked<K: Kind>(
        &mut self,
        setting: &Setting<K>,
        picked: Picked<K::Value>,
    ) -> K::Value {
        let lines = if setting.about.secret {
            vec!["****".to_owned()]
        } else {
            setting.kind.show(&picked.value)
        };
        for line in lines {
            self.show(setting, line, &picked.source);
        }
        picked.value
    }

    /// Notes what is in force, in other words.
    pub(super) fn show<K>(&mut self, setting: &Setting<K>, value: impl Display, source: &str) {
        self.shown.push(Shown {
            name: setting.about.key,
            value: value.to_string(),
            source: source.to_owned(),
        });
    }
}

/// A mistake in what has a source: a flag, a variable, a file.
pub(super) fn usage(source: &str, error: impl Display) -> Error {
    Error::Usage(format!("{}: {error}", text::shown(source)))
}
