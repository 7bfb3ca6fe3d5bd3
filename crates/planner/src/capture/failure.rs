//! When a call has failed: the user's rule, and what Rust and Go return as errors.

use std::sync::Arc;

use teracron_common::plan::{Code, Compare, MAX_TEXT};

use super::{
    Key, Meaning, Role,
    builder::Builder,
    locate::{certain, go_result_types, known, result_type, result_value},
    plan::Subject,
    reader::Reader,
    x86_64::abi,
};
use crate::probe_spec::{Comparison, Condition, Literal};
use image::{
    debug::{DebugError, Type, not},
    symbol::Language,
};

/// The call has failed where the condition holds.
pub(super) fn rule(
    builder: &mut Builder,
    subject: &Subject<'_>,
    condition: &Condition,
) -> Result<(), DebugError> {
    let key = builder.key(Key {
        role: Role::Condition,
        meaning: Meaning::Unsigned,
    });
    let from = builder.mark();
    let over = match condition {
        Condition::Nothing => {
            let nothing = match result_value(subject, 0) {
                Ok((reader, value)) => match reader.type_of(&value)? {
                    found @ Type::Variants { .. } => {
                        Some(reader.variant_jump(builder, &value, &found, "None", key)?)
                    }
                    Type::Pointer { .. } => {
                        value.scalar(builder, 8, false, key)?;
                        None
                    }
                    _ => return not("the function returns neither a pointer nor an option"),
                },
                // A null pointer is zero without debug information, too.
                Err(_) if subject.info.is_err() => {
                    certain(abi::number_result(), subject, None)?;
                    builder.push(Code::Place, 0, 0);
                    None
                }
                Err(error) => return Err(error),
            };
            match nothing {
                Some(nothing) => {
                    let over = builder.skip();
                    builder.land(nothing);
                    over
                }
                None => builder.jump(Compare::NotEqual, 0),
            }
        }
        Condition::Compare { path, how, with } => {
            let (signed, names) = match result_value(subject, 0) {
                Ok((reader, mut value)) => {
                    for member in &path.members {
                        value = reader.member(&value, member)?;
                    }
                    reader.number(builder, &value, key)?
                }
                Err(error) => return Err(error),
            };
            let with = match with {
                Literal::Number(number) => *number as u64,
                Literal::Name(name) => {
                    let last = name.rsplit("::").next().unwrap_or(name);
                    match names.iter().find(|(_, known)| known == last) {
                        Some((value, _)) => *value,
                        None => return not(format!("{name} is none of its values")),
                    }
                }
            };
            builder.jump(opposite(*how, signed), with)
        }
    };
    builder.push(Code::Fail, 0, 0);
    if subject.language != Language::Rust && subject.language != Language::Go && subject.errno {
        let key = builder.key(Key {
            role: Role::ErrorMessage,
            meaning: Meaning::Errno,
        });
        builder.item(Code::Errno, 0, key, 0);
        builder.load(4, key);
        builder.item(Code::Item, 0, key, 0);
    }
    builder.land(over);
    builder.close(from);
    Ok(())
}

fn opposite(how: Comparison, signed: bool) -> Compare {
    match (how, signed) {
        (Comparison::Equal, _) => Compare::NotEqual,
        (Comparison::NotEqual, _) => Compare::Equal,
        (Comparison::Less, true) => Compare::GreaterEqual,
        (Comparison::Less, false) => Compare::AboveEqual,
        (Comparison::LessEqual, true) => Compare::Greater,
        (Comparison::LessEqual, false) => Compare::Above,
        (Comparison::Greater, true) => Compare::LessEqual,
        (Comparison::Greater, false) => Compare::BelowEqual,
        (Comparison::GreaterEqual, true) => Compare::Less,
        (Comparison::GreaterEqual, false) => Compare::Below,
    }
}

/// A Rust `Result` that is an error fails the call; answers the name of the error's type, `None` where
/// the function returns something else.
pub(super) fn errors_of_result(
    builder: &mut Builder,
    subject: &Subject<'_>,
    reader: &Reader<'_>,
) -> Result<Option<Arc<str>>, DebugError> {
    let info = known(subject)?;
    let Some(type_ref) = result_type(subject, reader)? else {
        return Ok(None);
    };
    let found = reader.type_of_ref(type_ref)?;
    let Type::Variants { name, variants, .. } = &found else {
        return Ok(None);
    };
    if !name.starts_with("Result<") || variants.len() != 2 {
        return Ok(None);
    }
    let (_, value) = result_value(subject, 0)?;
    let key = builder.key(Key {
        role: Role::Condition,
        meaning: Meaning::Unsigned,
    });
    let from = builder.mark();
    let failed = reader.variant_jump(builder, &value, &found, "Err", key)?;
    let over = builder.skip();
    builder.land(failed);
    builder.push(Code::Fail, 0, 0);
    // What the error is, as far as it can be read.
    let mut type_name: Arc<str> = "Err".into();
    if let Ok(error) = reader.variant_content(&value, &found, "Err") {
        if let Some(type_ref) = error.type_ref {
            type_name = info.name_of(type_ref).as_str().into();
        }
        let before = builder.mark();
        let described = match reader.type_of(&error)? {
            Type::Variants { .. } | Type::Enumeration { .. } => {
                reader.leaf(builder, &error, Role::ErrorType)
            }
            Type::Structure { .. } | Type::Pointer { .. } => {
                reader.text_leaf(builder, &error, Role::ErrorMessage)
            }
            _ => Ok(()),
        };
        if described.is_err() {
            builder.rewind(before);
        }
    }
    builder.land(over);
    builder.close(from);
    Ok(Some(type_name))
}

/// An error among a Go function's results fails the call, with its type and, where it is known where
/// that lies, its text.
pub(super) fn go_error(builder: &mut Builder, subject: &Subject<'_>) -> Result<bool, DebugError> {
    let info = known(subject)?;
    let types = go_result_types(info);
    let Some(number) = types
        .iter()
        .rposition(|type_ref| info.name_of(*type_ref) == "error")
    else {
        return Ok(false);
    };
    let (reader, error) = result_value(subject, number)?;
    let (table, data) = (
        reader.member(&error, "tab")?,
        reader.member(&error, "data")?,
    );
    let kind = builder.key(Key {
        role: Role::ErrorType,
        meaning: Meaning::GoType,
    });
    let message = builder.key(Key {
        role: Role::ErrorMessage,
        meaning: Meaning::Text,
    });
    let (first, second) = (Builder::place(0), Builder::place(1));
    let from = builder.mark();
    table.scalar(builder, 8, false, kind)?;
    let is_nil = builder.jump(Compare::Equal, 0);
    builder.push(Code::Fail, 0, 0);
    // `runtime.itab`: the interface, then the type.
    builder.add(8);
    builder.load(8, kind);
    builder.item(Code::Item, 0, kind, 0);
    let unknown = builder.step(Code::GoText);
    builder.push(Code::Keep, first, 0);
    data.scalar(builder, 8, false, message)?;
    builder.push(Code::AddPlace, first, 0);
    builder.push(Code::Keep, second, 0);
    builder.add(8);
    builder.load(8, message);
    builder.push(Code::Keep, first, 0);
    builder.push(Code::Place, second, 0);
    builder.load(8, message);
    builder.item(Code::Text, first, message, MAX_TEXT as u64);
    builder.land(unknown);
    builder.land(is_nil);
    builder.close(from);
    Ok(true)
}
