//! One setting out of flag, environment and file, and where it came from.

use std::{fmt::Display, path::PathBuf};

use clap::ValueEnum;
use serde::Serialize;

use model::text;

/// Reads an environment variable.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

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
pub struct Picked<T> {
    /// The value.
    pub value: T,
    /// Where it came from.
    pub source: String,
}

/// The layers, and what was found on the way.
pub struct Layers<'a> {
    /// The environment.
    pub environment: &'a Environment<'a>,
    /// Name of the file.
    pub file: String,
    /// What is in force.
    pub shown: Vec<Shown>,
    /// What was changed or passed over.
    pub warnings: Vec<String>,
}

impl Layers<'_> {
    fn variable(&self, name: &str) -> (String, Option<String>) {
        let variable = format!("TERACRON_{}", name.to_uppercase());
        let value = (self.environment)(&variable).filter(|value| !value.is_empty());
        (variable, value)
    }

    fn flag(name: &str) -> String {
        format!("--{}", name.replace('_', "-"))
    }

    /// A setting of any kind; `read` reads what the environment has. What it can't read is passed
    /// over with a warning, as the reference does.
    pub fn pick<T>(
        &mut self,
        name: &'static str,
        flag: Option<T>,
        read: impl Fn(&str) -> Option<T>,
        file: Option<T>,
    ) -> Option<Picked<T>> {
        if let Some(value) = flag {
            let source = Self::flag(name);
            return Some(Picked { value, source });
        }
        let (variable, value) = self.variable(name);
        if let Some(given) = value {
            match read(&given) {
                Some(value) => {
                    return Some(Picked {
                        value,
                        source: variable,
                    });
                }
                None => {
                    // The reference takes the default then, whatever else is configured.
                    self.warnings.push(format!(
                        "{variable} is {}, which can't be read: the default is used",
                        text::escape(&given, 40)
                    ));
                    return None;
                }
            }
        }
        file.map(|value| Picked {
            value,
            source: self.file.clone(),
        })
    }

    /// Notes what is in force.
    pub fn show(&mut self, name: &'static str, value: impl Display, source: &str) {
        self.shown.push(Shown {
            name,
            value: value.to_string(),
            source: source.to_owned(),
        });
    }

    /// A number within a range.
    pub fn number(
        &mut self,
        name: &'static str,
        flag: Option<f64>,
        file: Option<f64>,
        default: f64,
        (low, high): (f64, f64),
    ) -> f64 {
        let picked = self.pick(name, flag, python_float, file).unwrap_or(Picked {
            value: default,
            source: "default".to_owned(),
        });
        // What is no number at all becomes the lowest, as the reference does.
        let value = if picked.value.is_nan() {
            low
        } else {
            picked.value.clamp(low, high)
        };
        self.clamped(name, &picked, value);
        self.show(name, value, &picked.source);
        value
    }

    /// A whole number within a range.
    pub fn whole(
        &mut self,
        name: &'static str,
        flag: Option<i64>,
        file: Option<i64>,
        default: i64,
        (low, high): (i64, i64),
    ) -> usize {
        let picked = self.pick(name, flag, python_int, file).unwrap_or(Picked {
            value: default,
            source: "default".to_owned(),
        });
        let value = picked.value.clamp(low, high);
        self.clamped(name, &picked, value);
        self.show(name, value, &picked.source);
        usize::try_from(value).unwrap_or(usize::MAX)
    }

    fn clamped<T: Display + PartialOrd>(&mut self, name: &str, picked: &Picked<T>, value: T) {
        if picked.value != value {
            self.warnings.push(format!(
                "{name} is {} ({}), out of range: {value} is used",
                picked.value, picked.source
            ));
        }
    }

    /// One of a few words.
    pub fn choice<T: ValueEnum>(
        &mut self,
        name: &'static str,
        flag: Option<T>,
        file: Option<T>,
        default: T,
    ) -> T {
        let read = |text: &str| T::from_str(text, true).ok();
        let picked = self.pick(name, flag, read, file).unwrap_or(Picked {
            value: default,
            source: "default".to_owned(),
        });
        let word = picked.value.to_possible_value();
        self.show(
            name,
            word.as_ref().map_or("", |word| word.get_name()),
            &picked.source,
        );
        picked.value
    }

    /// A file or folder.
    pub fn path(
        &mut self,
        name: &'static str,
        flag: Option<PathBuf>,
        file: Option<PathBuf>,
        default: &str,
    ) -> PathBuf {
        let read = |text: &str| Some(PathBuf::from(text));
        let picked = self.pick(name, flag, read, file).unwrap_or(Picked {
            value: PathBuf::from(default),
            source: "default".to_owned(),
        });
        self.show(name, picked.value.display(), &picked.source);
        picked.value
    }

    /// A switch.
    pub fn switch(
        &mut self,
        name: &'static str,
        flag: Option<bool>,
        file: Option<bool>,
        default: bool,
    ) -> bool {
        let picked = self.pick(name, flag, python_bool, file).unwrap_or(Picked {
            value: default,
            source: "default".to_owned(),
        });
        self.show(name, picked.value, &picked.source);
        picked.value
    }
}

/// As the reference reads a switch.
pub fn python_bool(text: &str) -> Option<bool> {
    Some(matches!(
        text.trim().to_lowercase().as_str(),
        "1" | "true" | "yes"
    ))
}

/// Digits may be grouped by single underscores.
fn ungrouped(text: &str) -> Option<String> {
    let text = text.trim();
    let bytes = text.as_bytes();
    let digit = |place: Option<usize>| {
        place
            .and_then(|place| bytes.get(place))
            .is_some_and(u8::is_ascii_digit)
    };
    let fine = bytes.iter().enumerate().all(|(place, byte)| {
        *byte != b'_' || (digit(place.checked_sub(1)) && digit(Some(place + 1)))
    });
    fine.then(|| text.replace('_', ""))
}

fn python_float(text: &str) -> Option<f64> {
    ungrouped(text)?.parse().ok()
}

fn python_int(text: &str) -> Option<i64> {
    let text = ungrouped(text)?;
    let value: i128 = text.parse().ok()?;
    Some(value.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
}
