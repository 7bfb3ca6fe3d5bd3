//! Items of a kernel record as values of a span.

use std::sync::Arc;

use model::Polls;
use teracron_common::plan::{ItemHead, ItemKind, MAX_TEXT};
use wire::{Fields, Limits, Value};

use super::{CapturePlan, Meaning, Role, errno_text};

/// What a plan's record says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Captured {
    /// Parameters.
    pub parameters: Fields,
    /// How many of these it was given, where what it gave back was read, too.
    pub given: Option<usize>,
    /// What the span's error is.
    pub error_type: Option<String>,
    /// Its text.
    pub error_message: Option<String>,
    /// Address of the Go type of the error.
    pub go_type: Option<u64>,
    /// How a future was polled.
    pub polls: Option<Polls>,
    /// What a failed call is said to be, where nothing says it better.
    pub failure: Option<Arc<str>>,
}

/// One item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A number.
    Value(u64),
    /// Text, and whether it is not all.
    Text(&'a [u8], bool),
    /// Nothing.
    Null,
    /// Not known.
    Missing,
}

/// The items in a record.
pub struct Items<'a>(pub &'a [u8]);

impl<'a> Iterator for Items<'a> {
    type Item = (u8, Item<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.0.split_at_checked(size_of::<ItemHead>())?;
        let &[key, kind, low, high, a, b, c, d] = head else {
            return None;
        };
        let (len, full) = (
            usize::from(u16::from_le_bytes([low, high])),
            u32::from_le_bytes([a, b, c, d]),
        );
        let known = |wanted: ItemKind| kind == wanted as u8;
        let (item, taken) = if known(ItemKind::Value) {
            let bytes = rest.first_chunk::<8>()?;
            (Item::Value(u64::from_le_bytes(*bytes)), 8)
        } else if known(ItemKind::Text) && len <= MAX_TEXT {
            (
                Item::Text(rest.get(..len)?, full as usize > len),
                len.next_multiple_of(8),
            )
        } else if known(ItemKind::Null) {
            (Item::Null, 0)
        } else if known(ItemKind::Unreadable) || known(ItemKind::NoRoom) {
            (Item::Missing, 0)
        } else {
            return None;
        };
        self.0 = rest.get(taken..)?;
        Some((key, item))
    }
}

/// Reads a record's items, as the plan says, into `captured`.
pub fn read(plan: &CapturePlan, items: &[u8], captured: &mut Captured) {
    for (number, item) in Items(items) {
        let Some(key) = plan.keys.get(usize::from(number)) else {
            continue;
        };
        if let (Meaning::GoType, Item::Value(address)) = (&key.meaning, item) {
            captured.go_type = Some(address);
            continue;
        }
        let Some(value) = value(&key.meaning, item) else {
            continue;
        };
        match &key.role {
            Role::Parameter(name) => {
                captured
                    .parameters
                    .set(name.to_string(), value, Limits::CAPTURED);
            }
            Role::ErrorType => {
                if let Value::Text(variant) = value {
                    captured.error_type = Some(match &plan.failure {
                        Some(name) => format!("{name}::{variant}"),
                        None => variant,
                    });
                }
            }
            Role::ErrorMessage => {
                if let Value::Text(text) = value {
                    captured.error_message = Some(text);
                }
            }
            Role::Condition => {}
        }
    }
}

/// The wire has no null: what is nothing is a text that says so, which no value can be mistaken for.
const NOTHING: &str = "null";

fn value(meaning: &Meaning, item: Item<'_>) -> Option<Value> {
    let number = match item {
        Item::Missing => return None,
        Item::Null => return Some(Value::Text(NOTHING.to_owned())),
        Item::Text(bytes, _) => {
            let mut text = String::from_utf8_lossy(bytes).into_owned();
            // A character that was cut in two is none.
            if bytes.len() == MAX_TEXT && text.ends_with('\u{fffd}') {
                text.pop();
            }
            return Some(Value::Text(text));
        }
        Item::Value(number) => number,
    };
    Some(match meaning {
        Meaning::Signed => Value::Whole(number as i64),
        Meaning::Unsigned => match i64::try_from(number) {
            Ok(number) => Value::Whole(number),
            // The wire's numbers end there; as text nothing of it is lost.
            Err(_) => Value::Text(number.to_string()),
        },
        Meaning::Boolean => Value::Flag(number != 0),
        Meaning::Character => Value::Text(
            u32::try_from(number)
                .ok()
                .and_then(char::from_u32)
                .unwrap_or('\u{fffd}')
                .to_string(),
        ),
        Meaning::Float(4) => Value::Number(f32::from_bits(number as u32).into()),
        Meaning::Float(_) => Value::Number(f64::from_bits(number)),
        Meaning::Pointer => Value::Text(format!("{number:#x}")),
        Meaning::Enumeration(names) => {
            let known = names.known.iter().find(|(value, _)| *value == number);
            match known.map(|(_, name)| name).or(names.other.as_ref()) {
                Some(name) => Value::Text(name.clone()),
                None => Value::Whole(number as i64),
            }
        }
        Meaning::Errno => Value::Text(errno_text(number as i32 as i64)?),
        Meaning::Text | Meaning::GoType => return None,
    })
}
