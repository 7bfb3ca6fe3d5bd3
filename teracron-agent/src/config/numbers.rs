//! Kinds of numbers: times, shares, counts, sizes.

use std::ffi::OsStr;

use super::{
    kinds::read_plain,
    setting::{Always, Kind, Mistake, Node, Wrong, utf8},
    units,
};

fn clamp(value: f64, low: f64, high: f64) -> f64 {
    // What is no number at all becomes the lowest, as in the reference client.
    if value.is_nan() {
        low
    } else {
        value.clamp(low, high)
    }
}

/// A time in seconds or milliseconds.
pub struct Time {
    /// Where nothing is said.
    pub default: f64,
    /// Least.
    pub low: f64,
    /// Most.
    pub high: f64,
    /// Seconds that a plain number counts: 1, or 0.001.
    pub unit: f64,
}

impl Time {
    /// In seconds.
    pub const fn seconds(default: f64, low: f64, high: f64) -> Self {
        Self {
            default,
            low,
            high,
            unit: 1.0,
        }
    }

    /// In milliseconds.
    pub const fn milliseconds(default: f64, low: f64, high: f64) -> Self {
        Self {
            default,
            low,
            high,
            unit: 0.001,
        }
    }
}

impl Kind for Time {
    type Value = f64;

    fn read(&self, text: &OsStr) -> Result<f64, Wrong> {
        let unit = if self.unit == 1.0 {
            "seconds"
        } else {
            "milliseconds"
        };
        units::duration(utf8(text)?, self.unit)
            .map(|seconds| seconds / self.unit)
            .ok_or_else(|| {
                Wrong::wanted(format!(
                    "a number of {unit}, or one with a unit like 5s, 2m or 500ms, is wanted"
                ))
            })
    }

    fn read_node(&self, node: &Node<'_>) -> Result<f64, Mistake> {
        read_plain(self, node)
    }

    fn show(&self, value: &f64) -> Vec<String> {
        vec![value.to_string()]
    }

    fn nearest(&self, value: &f64) -> f64 {
        clamp(*value, self.low, self.high)
    }

    fn default_text(&self) -> Option<String> {
        Some(self.default.to_string())
    }

    fn range(&self) -> Option<String> {
        Some(format!("{} to {}", self.low, self.high))
    }

    fn name(&self) -> &'static str {
        if self.unit == 1.0 {
            "seconds"
        } else {
            "milliseconds"
        }
    }
}

impl Always for Time {
    fn fallback(&self) -> f64 {
        self.default
    }
}

/// A share of a whole, 0 to 1.
pub struct Share {
    /// Where nothing is said.
    pub default: f64,
}

impl Kind for Share {
    type Value = f64;

    fn read(&self, text: &OsStr) -> Result<f64, Wrong> {
        units::share(utf8(text)?).ok_or_else(|| {
            Wrong::wanted("a number from 0 to 1, or a percentage like 10%, is wanted")
        })
    }

    fn read_node(&self, node: &Node<'_>) -> Result<f64, Mistake> {
        read_plain(self, node)
    }

    fn show(&self, value: &f64) -> Vec<String> {
        vec![value.to_string()]
    }

    fn nearest(&self, value: &f64) -> f64 {
        clamp(*value, 0.0, 1.0)
    }

    fn default_text(&self) -> Option<String> {
        Some(self.default.to_string())
    }

    fn range(&self) -> Option<String> {
        Some("0 to 1".to_owned())
    }

    fn name(&self) -> &'static str {
        "share"
    }
}

impl Always for Share {
    fn fallback(&self) -> f64 {
        self.default
    }
}

/// A whole number.
pub struct Count {
    /// Where nothing is said.
    pub default: i64,
    /// Least.
    pub low: i64,
    /// Most.
    pub high: i64,
}

impl Kind for Count {
    type Value = i64;

    fn read(&self, text: &OsStr) -> Result<i64, Wrong> {
        units::whole(utf8(text)?).ok_or_else(|| Wrong::wanted("a whole number is wanted"))
    }

    fn read_node(&self, node: &Node<'_>) -> Result<i64, Mistake> {
        read_plain(self, node)
    }

    fn show(&self, value: &i64) -> Vec<String> {
        vec![value.to_string()]
    }

    fn nearest(&self, value: &i64) -> i64 {
        *value.clamp(&self.low, &self.high)
    }

    fn default_text(&self) -> Option<String> {
        Some(self.default.to_string())
    }

    fn range(&self) -> Option<String> {
        Some(format!("{} to {}", self.low, self.high))
    }

    fn name(&self) -> &'static str {
        "number"
    }
}

impl Always for Count {
    fn fallback(&self) -> i64 {
        self.default
    }
}

/// A number of bytes.
pub struct Size {
    /// Least.
    pub low: u64,
}

impl Kind for Size {
    type Value = u64;

    fn read(&self, text: &OsStr) -> Result<u64, Wrong> {
        units::bytes(utf8(text)?)
            .ok_or_else(|| Wrong::wanted("a number of bytes is wanted, like 256MiB"))
    }

    fn read_node(&self, node: &Node<'_>) -> Result<u64, Mistake> {
        read_plain(self, node)
    }

    fn show(&self, value: &u64) -> Vec<String> {
        vec![value.to_string()]
    }

    fn nearest(&self, value: &u64) -> u64 {
        (*value).max(self.low)
    }

    fn range(&self) -> Option<String> {
        Some(format!("{}KiB or more", self.low >> 10))
    }

    fn name(&self) -> &'static str {
        "bytes"
    }
}
