//! The objects in a span: `metadata` and `captured_params`.

use std::{borrow::Cow, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

/// A value: string, number or boolean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// A string.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// A number; must be finite.
    Number(f64),
    /// A boolean.
    Flag(bool),
}

/// Keys and values, in order, each key once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fields(Vec<(Cow<'static, str>, Value)>);

/// What the wire takes (wire.md, "Span").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Keys.
    pub keys: usize,
    /// Characters of a key.
    pub key: usize,
    /// Characters of a string.
    pub text: usize,
}

impl Limits {
    /// For `metadata`.
    pub const METADATA: Self = Self {
        keys: 32,
        key: 128,
        text: 1024,
    };
    /// For `captured_params`.
    pub const CAPTURED: Self = Self {
        keys: 32,
        key: 128,
        text: 512,
    };
}

impl Fields {
    /// Adds a value, or replaces the key's; what the limits do not allow is left out. A key that is
    /// part of the program is not copied: the usual span has three of them.
    pub fn set(&mut self, key: impl Into<Cow<'static, str>>, mut value: Value, limits: Limits) {
        let key = key.into();
        if key.is_empty() || key.chars().nth(limits.key).is_some() {
            return;
        }
        match &mut value {
            Value::Text(text) => super::cut(text, limits.text),
            Value::Number(number) if !number.is_finite() => return,
            _ => {}
        }
        if let Some((_, present)) = self.0.iter_mut().find(|(known, _)| *known == key) {
            *present = value;
        } else if self.0.len() < limits.keys {
            self.0.push((key, value));
        }
    }

    /// Keys and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), value))
    }

    /// Keeps what `keep` says; it may change values.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &mut Value) -> bool) {
        self.0.retain_mut(|(key, value)| keep(key, value));
    }

    /// The first so many.
    #[must_use]
    pub fn first(mut self, count: usize) -> Self {
        self.0.truncate(count);
        self
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.iter()
            .find(|(known, _)| *known == key)
            .map(|(_, value)| value)
    }

    /// Takes everything away.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
