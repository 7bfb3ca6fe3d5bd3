//! What a probe reads of a call: `(order_id, cart->total, ret)` and `fails ret < 0`.

use std::fmt;

use model::text;
use serde::{Deserialize, Serialize};

/// Captures of a probe: as many as the wire takes (wire.md, `captured_params`).
pub(crate) const MAX_CAPTURES: usize = 32;
/// Longest key, in characters (wire.md).
const MAX_KEY: usize = 128;
/// Members that a path goes through.
const MAX_STEPS: usize = 16;

/// One thing to read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Capture {
    /// Its name in the span.
    pub key: String,
    /// Where it comes from.
    pub source: Source,
}

/// Where a captured value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Source {
    /// By name, as the debug information has it.
    Path(Path),
    /// By place in the calling convention.
    Position(Position, Kind),
}

/// A place in the calling convention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Position {
    /// An argument, counted from 1.
    Argument(u8),
    /// The result.
    Result,
}

/// What a value by position is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A whole number of so many bits.
    Integer {
        /// 8, 16, 32 or 64.
        bits: u8,
        /// It can be negative.
        signed: bool,
    },
    /// True or false, in a byte.
    Boolean,
    /// A character, in a byte.
    Character,
    /// A pointer.
    Pointer,
    /// A pointer to a string that ends with a NUL.
    Text,
}

const KINDS: [(&str, Kind); 13] = [
    (
        "i8",
        Kind::Integer {
            bits: 8,
            signed: true,
        },
    ),
    (
        "i16",
        Kind::Integer {
            bits: 16,
            signed: true,
        },
    ),
    (
        "i32",
        Kind::Integer {
            bits: 32,
            signed: true,
        },
    ),
    (
        "i64",
        Kind::Integer {
            bits: 64,
            signed: true,
        },
    ),
    (
        "u8",
        Kind::Integer {
            bits: 8,
            signed: false,
        },
    ),
    (
        "u16",
        Kind::Integer {
            bits: 16,
            signed: false,
        },
    ),
    (
        "u32",
        Kind::Integer {
            bits: 32,
            signed: false,
        },
    ),
    (
        "u64",
        Kind::Integer {
            bits: 64,
            signed: false,
        },
    ),
    ("bool", Kind::Boolean),
    ("char", Kind::Character),
    ("ptr", Kind::Pointer),
    ("str", Kind::Text),
    (
        "int",
        Kind::Integer {
            bits: 32,
            signed: true,
        },
    ),
];

/// A variable, and members of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Path {
    /// A parameter's name, or `ret`.
    pub root: String,
    /// Members, from the outside in.
    pub members: Vec<String>,
    text: String,
}

/// When a call has failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Condition {
    /// It returned a null pointer, or nothing (`None`).
    Nothing,
    /// The comparison holds.
    Compare {
        /// `ret`, or something in it.
        path: Path,
        /// How.
        how: Comparison,
        /// With what.
        with: Literal,
    },
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Comparison {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterEqual,
}

const COMPARISONS: [(&str, Comparison); 6] = [
    // Two characters before one.
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::LessEqual),
    (">=", Comparison::GreaterEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

/// What a value is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Literal {
    /// A number; `null` and `false` are 0, `true` is 1.
    Number(i128),
    /// The name of one of an enum's values.
    Name(String),
}

/// Why a list of captures, or a condition, is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// Two words where one name should be.
    #[error("`{0}`: a comma is missing, or a type is too many: only names are listed, `f(n, ret)`")]
    Words(String),
    /// No name.
    #[error(
        "`{0}` is no parameter: write a name, a path (`order.id`, `cart->total`), `ret`, or `KEY=arg1:i64`"
    )]
    Path(String),
    /// Not a place and kind.
    #[error(
        "`{0}` is no argument: write arg1:i64, arg2:str or ret:i32; the kinds are i8 to i64, u8 to u64, bool, char, ptr, str"
    )]
    Position(String),
    /// Too many.
    #[error("more than {MAX_CAPTURES} captures")]
    TooMany,
    /// Twice the same.
    #[error("`{0}` is captured twice")]
    Twice(String),
    /// `=` for `==`.
    #[error("`fails {0}` compares nothing: equal is written `==`")]
    Assigns(String),
    /// Not a condition.
    #[error(
        "`fails {0}` is no condition: write `fails ret < 0`, `fails ret.code != 0`, `fails null` or `fails none`"
    )]
    Condition(String),
}

/// Reads what stands between the parentheses.
///
/// # Errors
/// Where it is no list of captures.
pub(super) fn list(inner: &str) -> Result<Vec<Capture>, CaptureError> {
    let mut captures: Vec<Capture> = Vec::new();
    if inner.trim().is_empty() {
        return Ok(captures);
    }
    for part in inner.split(',') {
        let capture = one(part.trim())?;
        if captures.iter().any(|other| other.key == capture.key) {
            return Err(CaptureError::Twice(text::shown(&capture.key)));
        }
        captures.push(capture);
        if captures.len() > MAX_CAPTURES {
            return Err(CaptureError::TooMany);
        }
    }
    Ok(captures)
}

/// Reads one capture.
///
/// # Errors
/// Where it is none.
pub(super) fn one(text: &str) -> Result<Capture, CaptureError> {
    if let Some((key, place)) = text.split_once('=') {
        let (key, place) = (key.trim(), place.trim());
        let bad = || CaptureError::Position(text::shown(place));
        if !is_name(key) || key.chars().count() > MAX_KEY {
            return Err(CaptureError::Path(text::shown(key)));
        }
        let source = match place.split_once(':') {
            Some((position, kind)) => Source::Position(
                position_of(position.trim()).ok_or_else(bad)?,
                KINDS
                    .iter()
                    .find(|(name, _)| *name == kind.trim())
                    .map(|(_, kind)| *kind)
                    .ok_or_else(bad)?,
            ),
            // Another name for a path.
            None => Source::Path(path(place)?),
        };
        return Ok(Capture {
            key: key.to_owned(),
            source,
        });
    }
    let path = path(text)?;
    Ok(Capture {
        key: path.text.clone(),
        source: Source::Path(path),
    })
}

/// Reads `arg1`, or `ret`.
pub(crate) fn position_of(text: &str) -> Option<Position> {
    if text == "ret" {
        return Some(Position::Result);
    }
    let number: u8 = text.strip_prefix("arg")?.parse().ok()?;
    (1..=32)
        .contains(&number)
        .then_some(Position::Argument(number))
}

fn is_name(text: &str) -> bool {
    let mut characters = text.chars();
    characters
        .next()
        .is_some_and(|first| first.is_alphabetic() || matches!(first, '_' | '~'))
        && characters.all(|character| character.is_alphanumeric() || character == '_')
}

/// Reads a path.
fn path(text: &str) -> Result<Path, CaptureError> {
    let bad = || CaptureError::Path(text::shown(text));
    let plain: String = text.split_whitespace().collect();
    if plain.chars().count() > MAX_KEY {
        return Err(bad());
    }
    let steps = text.replace("->", ".");
    if steps
        .split('.')
        .any(|step| step.split_whitespace().nth(1).is_some())
    {
        return Err(CaptureError::Words(text::shown(text.trim())));
    }
    let mut names = Vec::new();
    for part in plain.replace("->", ".").split('.') {
        // The fields of a Rust tuple are called 0, 1, and so on.
        let number = !names.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !(is_name(part) || number && !part.is_empty()) {
            return Err(bad());
        }
        names.push(part.to_owned());
    }
    if names.len() > MAX_STEPS {
        return Err(bad());
    }
    let mut names = names.into_iter();
    Ok(Path {
        root: names.next().ok_or_else(bad)?,
        members: names.collect(),
        text: plain,
    })
}

/// Reads what stands behind `fails`.
///
/// # Errors
/// Where it is no condition.
pub(super) fn condition(text: &str) -> Result<Condition, CaptureError> {
    let text = text.trim();
    let bad = || CaptureError::Condition(text::shown(text));
    if matches!(text, "null" | "none" | "nil") {
        return Ok(Condition::Nothing);
    }
    // The arrow of a path is no comparison.
    let plain = text.replace("->", ".");
    let (place, sign, how) = COMPARISONS
        .iter()
        .filter_map(|(sign, how)| plain.find(sign).map(|place| (place, *sign, *how)))
        .min_by_key(|(place, sign, _)| (*place, 2 - sign.len()))
        .ok_or_else(|| match plain.contains('=') {
            true => CaptureError::Assigns(text::shown(text)),
            false => bad(),
        })?;
    let (left, right) = plain.split_at(place);
    let path = path(left.trim()).map_err(|_| bad())?;
    if path.root != "ret" {
        return Err(bad());
    }
    Ok(Condition::Compare {
        path,
        how,
        with: literal(right.strip_prefix(sign).unwrap_or(right).trim()).ok_or_else(bad)?,
    })
}

fn literal(text: &str) -> Option<Literal> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let number = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok().map(i128::from),
        None => digits.parse::<u64>().ok().map(i128::from),
    };
    match (number, text) {
        (Some(number), _) => Some(Literal::Number(if negative { -number } else { number })),
        (None, "null" | "false" | "nil") => Some(Literal::Number(0)),
        (None, "true") => Some(Literal::Number(1)),
        (None, name) if name.split("::").all(is_name) => Some(Literal::Name(name.to_owned())),
        _ => None,
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Path(path) if path.text == self.key => write!(f, "{path}"),
            Source::Path(path) => write!(f, "{}={path}", self.key),
            Source::Position(position, kind) => {
                let kind = KINDS
                    .iter()
                    .find(|(_, other)| other == kind)
                    .map_or("", |(name, _)| name);
                match position {
                    Position::Argument(number) => write!(f, "{}=arg{number}:{kind}", self.key),
                    Position::Result => write!(f, "{}=ret:{kind}", self.key),
                }
            }
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("null"),
            Self::Compare { path, how, with } => {
                let sign = COMPARISONS
                    .iter()
                    .find(|(_, other)| other == how)
                    .map_or("", |(sign, _)| sign);
                match with {
                    Literal::Number(number) => write!(f, "{path} {sign} {number}"),
                    Literal::Name(name) => write!(f, "{path} {sign} {name}"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn captures_of_the_manual() {
        let captures = list(
            "order_id, cart -> total, order.customer->id, ret, n=arg1:i64, s = arg2:str, c=cart.0",
        )
        .unwrap();
        let shown: Vec<String> = captures.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "order_id",
                "cart->total",
                "order.customer->id",
                "ret",
                "n=arg1:i64",
                "s=arg2:str",
                "c=cart.0"
            ]
        );
        assert_eq!(
            captures[2].source,
            Source::Path(Path {
                root: "order".into(),
                members: vec!["customer".into(), "id".into()],
                text: "order.customer->id".into()
            })
        );
        for bad in [
            "a,,b",
            "1a",
            "a-b",
            "a->",
            "x=arg0:i64",
            "x=arg1:f64",
            "a, a",
            "int*",
            "a b.c()",
        ] {
            assert!(list(bad).is_err(), "{bad}");
        }
        assert!(list(&vec!["x"; 40].join(",")).is_err());
    }

    #[test]
    fn conditions_of_the_manual() {
        assert!(matches!(list("n ret"), Err(CaptureError::Words(_))));
        for (text, shown) in [
            ("ret < 0", "ret < 0"),
            ("ret<=-1", "ret <= -1"),
            ("ret->code != 0x10", "ret.code != 16"),
            ("ret == null", "ret == 0"),
            ("ret != Status::Ok", "ret != Status::Ok"),
            (" none ", "null"),
            ("null", "null"),
        ] {
            assert_eq!(condition(text).unwrap().to_string(), shown, "{text}");
        }
        for bad in ["", "ret", "order < 0", "ret < ", "ret << 1", "ret < 1.5"] {
            assert!(condition(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            let _ = list(&text);
            let _ = condition(&text);
        }
    }
}
