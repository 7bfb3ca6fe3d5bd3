//! Reading values by their types: through members and pointers, down to what a value is read as.

use teracron_common::plan::{Code, Compare, MAX_TEXT};

use super::{
    Key, Meaning, Names, Role,
    builder::{Builder, Jump},
    sequence::{Sequence, c_string},
    value::{Value, mask},
};
use image::debug::{DebugError, FunctionInfo, Member, Type, TypeRef, Variant, not};
use model::text;

type Result<T> = std::result::Result<T, DebugError>;

/// Structures within each other that are looked through for a member.
const MAX_NESTING: usize = 12;
/// Members that a message names.
const SHOWN: usize = 8;

/// Reads types of one function's unit, and values of them.
pub(super) struct Reader<'a> {
    info: &'a FunctionInfo<'a>,
}

impl<'a> Reader<'a> {
    /// For a function.
    pub(super) fn new(info: &'a FunctionInfo<'a>) -> Self {
        Self { info }
    }

    /// The type of a value.
    pub(super) fn type_of(&self, value: &Value) -> Result<Type> {
        match value.type_ref {
            Some(type_ref) => self.info.type_of(type_ref),
            None => not("it has no type (void)"),
        }
    }

    /// What a type is.
    pub(super) fn type_of_ref(&self, type_ref: TypeRef) -> Result<Type> {
        self.info.type_of(type_ref)
    }

    /// Whether a structure, with all in it, has no constructor or destructor.
    pub(super) fn is_plain(&self, type_ref: TypeRef) -> Result<bool> {
        self.info.is_plain(type_ref)
    }

    /// Goes through references, and with `pointers` also through one pointer to a structure.
    pub(super) fn seen_through(&self, mut value: Value, pointers: bool) -> Result<(Value, Type)> {
        for _ in 0..MAX_NESTING {
            let found = self.type_of(&value)?;
            match found {
                Type::Pointer { to, is_reference } if is_reference || pointers => {
                    value = value.target(to)?;
                }
                other => return Ok((value, other)),
            }
        }
        not("it is a pointer to a pointer to a pointer, and so on")
    }

    /// A member of a structure, or of what a pointer to one points to.
    pub(super) fn member(&self, value: &Value, name: &str) -> Result<Value> {
        let (value, found) = self.seen_through(value.clone(), true)?;
        let Type::Structure {
            name: structure,
            size,
            members,
            ..
        } = &found
        else {
            return not(format!("{} has no members", describe(&found)));
        };
        // Rust writes `pair.0`, its debug information `__0`.
        let field = format!("__{name}");
        let found = match self.find(members, name, 0)? {
            None if name.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.find(members, &field, 0)?
            }
            found => found,
        };
        if let Some((offset, member)) = found {
            if let Some(bits) = member.bits {
                let size = self.size_of(member.type_ref)?.unwrap_or(0);
                return value.bit_field(offset, bits, member.type_ref, size);
            }
            return Ok(value.part(offset, member.type_ref));
        }
        if size.is_none() {
            return not(format!(
                "{} is only declared in this part of the program",
                text::shown(structure)
            ));
        }
        not(format!(
            "{} has no member {name}; it has {}",
            text::shown(structure),
            names_of(members)
        ))
    }

    /// A member by name, also of unnamed structures and base classes.
    pub(super) fn find(
        &self,
        members: &[Member],
        name: &str,
        depth: usize,
    ) -> Result<Option<(u64, Member)>> {
        if let Some(found) = members.iter().find(|member| member.name == name) {
            return Ok(Some((found.offset, found.clone())));
        }
        if depth < MAX_NESTING {
            for unnamed in members.iter().filter(|member| member.name.is_empty()) {
                if let Type::Structure { members, .. } = self.info.type_of(unnamed.type_ref)?
                    && let Some((offset, found)) = self.find(&members, name, depth + 1)?
                {
                    return Ok(Some((unnamed.offset.saturating_add(offset), found)));
                }
            }
        }
        Ok(None)
    }

    /// Members one after the other.
    pub(super) fn inner(&self, value: &Value, names: &[&str]) -> Result<Value> {
        names
            .iter()
            .try_fold(value.clone(), |value, name| self.member(&value, name))
    }

    /// The first member below `value` that a check accepts, in depth.
    pub(super) fn search(
        &self,
        value: &Value,
        depth: usize,
        accept: &dyn Fn(&Member, &Type) -> bool,
    ) -> Result<Option<Value>> {
        let Type::Structure { members, .. } = self.type_of(value)? else {
            return Ok(None);
        };
        for member in &members {
            let part = value.part(member.offset, member.type_ref);
            if accept(member, &self.info.type_of(member.type_ref)?) {
                return Ok(Some(part));
            }
            if depth < MAX_NESTING
                && let Some(found) = self.search(&part, depth + 1, accept)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Reads a value as its type is read.
    pub(super) fn leaf(&self, builder: &mut Builder, value: &Value, role: Role) -> Result<()> {
        let (value, found) = self.seen_through(value.clone(), false)?;
        let number = |builder: &mut Builder, size: u8, signed: bool, meaning: Meaning| {
            let key = builder.key(Key {
                role: role.clone(),
                meaning,
            });
            let from = builder.mark();
            value.scalar(builder, size, signed, key)?;
            builder.item(Code::Item, 0, key, 0);
            builder.close(from);
            Ok(())
        };
        match &found {
            Type::Integer { size, signed } => number(
                builder,
                *size,
                *signed,
                if *signed {
                    Meaning::Signed
                } else {
                    Meaning::Unsigned
                },
            ),
            Type::Boolean { size } => number(builder, *size, false, Meaning::Boolean),
            Type::Character { size, .. } => number(builder, *size, false, Meaning::Character),
            Type::Float {
                size: size @ (4 | 8),
            } => number(builder, *size, false, Meaning::Float(*size)),
            Type::Enumeration {
                size,
                signed,
                names,
            } => number(
                builder,
                *size,
                *signed,
                Meaning::Enumeration(
                    Names {
                        known: names.clone(),
                        other: None,
                    }
                    .into(),
                ),
            ),
            Type::Pointer { to, .. } => {
                if let Some(to) = to
                    && matches!(self.info.type_of(*to)?, Type::Character { size: 1, .. })
                {
                    return c_string(builder, &value, role);
                }
                number(builder, 8, false, Meaning::Pointer)
            }
            Type::Array { of, count }
                if matches!(self.info.type_of(*of)?, Type::Character { size: 1, .. }) =>
            {
                let limit = count.unwrap_or(0).saturating_sub(1).min(MAX_TEXT as u64);
                if limit == 0 {
                    return not("an array of unknown length");
                }
                let key = builder.key(Key {
                    role,
                    meaning: Meaning::Text,
                });
                let from = builder.mark();
                value.address(builder, key)?;
                builder.item(Code::CString, 0, key, limit);
                builder.close(from);
                Ok(())
            }
            Type::Variants { name, .. }
                if name.starts_with("Option<") || name.contains("::Option<") =>
            {
                self.option(builder, &value, &found, role)
            }
            Type::Variants {
                tag: Some(tag),
                variants,
                ..
            } => {
                let part = value.part(tag.offset, tag.type_ref);
                let (size, _) = self.number_of(tag.type_ref)?;
                let names = Names {
                    known: variants
                        .iter()
                        .filter_map(|variant| {
                            Some((variant.value? & mask(size), variant.name.clone()))
                        })
                        .collect(),
                    other: variants
                        .iter()
                        .find(|variant| variant.value.is_none())
                        .map(|variant| variant.name.clone()),
                };
                let key = builder.key(Key {
                    role,
                    meaning: Meaning::Enumeration(names.into()),
                });
                let from = builder.mark();
                part.scalar(builder, size, false, key)?;
                builder.item(Code::Item, 0, key, 0);
                builder.close(from);
                Ok(())
            }
            _ => match self.sequence(&value, &found)? {
                Some(
                    sequence @ (Sequence::Text { .. }
                    | Sequence::OldText { .. }
                    | Sequence::ShortText),
                ) => self.text(builder, &value, sequence, role),
                Some(_) => self.length(builder, &value, role),
                None => not(self.advice(&found)),
            },
        }
    }

    fn advice(&self, found: &Type) -> String {
        let Type::Structure { members, size, .. } = found else {
            return format!("{}, which is not read", describe(found));
        };
        if size.is_none() {
            return format!(
                "{}, which is only declared in this part of the program",
                describe(found)
            );
        }
        format!(
            "{}: name a member of it ({})",
            describe(found),
            names_of(members)
        )
    }

    /// Bytes and sign of a number.
    fn number_of(&self, type_ref: TypeRef) -> Result<(u8, bool)> {
        match self.info.type_of(type_ref)? {
            Type::Integer { size, signed }
            | Type::Character { size, signed }
            | Type::Enumeration { size, signed, .. } => Ok((size, signed)),
            Type::Boolean { size } => Ok((size, false)),
            Type::Pointer { .. } => Ok((8, false)),
            other => not(format!("{} is no number", describe(&other))),
        }
    }

    /// Makes the plan's value a number to compare with; answers whether it is signed, and the names of its
    /// values.
    pub(super) fn number(
        &self,
        builder: &mut Builder,
        value: &Value,
        key: u8,
    ) -> Result<(bool, Vec<(u64, String)>)> {
        let (value, found) = self.seen_through(value.clone(), false)?;
        let names = match &found {
            Type::Enumeration { names, .. } => names.clone(),
            _ => Vec::new(),
        };
        let (size, signed) = match value.type_ref {
            Some(type_ref) => self.number_of(type_ref)?,
            None => return not("it has no type (void)"),
        };
        value.scalar(builder, size, signed, key)?;
        Ok((signed, names))
    }

    /// `Some` of a Rust option, or nothing.
    fn option(&self, builder: &mut Builder, value: &Value, found: &Type, role: Role) -> Result<()> {
        let key = builder.key(Key {
            role: role.clone(),
            meaning: Meaning::Text,
        });
        let from = builder.mark();
        let is_none = self.variant_jump(builder, value, found, "None", key)?;
        let some = self.variant_content(value, found, "Some")?;
        self.leaf(builder, &some, role)?;
        let over = builder.skip();
        builder.land(is_none);
        builder.item(Code::Null, 0, key, 0);
        builder.land(over);
        builder.close(from);
        Ok(())
    }

    /// Adds a jump that is taken where `value` is the variant called `name`.
    pub(super) fn variant_jump(
        &self,
        builder: &mut Builder,
        value: &Value,
        found: &Type,
        name: &str,
        key: u8,
    ) -> Result<Jump> {
        let Type::Variants {
            tag: Some(tag),
            variants,
            ..
        } = found
        else {
            return not("it has no variants");
        };
        let part = value.part(tag.offset, tag.type_ref);
        let (size, _) = self.number_of(tag.type_ref)?;
        part.scalar(builder, size, false, key)?;
        let mask = mask(size);
        let wanted = variant(variants, name)?;
        match (wanted.value, variants.as_slice()) {
            (Some(tag), _) => Ok(builder.jump(Compare::Equal, tag & mask)),
            // Of two, the one without a number is what the other is not.
            (None, [a, b]) => match a.value.or(b.value) {
                Some(other) => Ok(builder.jump(Compare::NotEqual, other & mask)),
                None => not("its variants have no numbers"),
            },
            (None, _) => not("which variant it is can't be told from one number"),
        }
    }

    /// What a variant with one field holds.
    pub(super) fn variant_content(&self, value: &Value, found: &Type, name: &str) -> Result<Value> {
        let Type::Variants { variants, .. } = found else {
            return not("it has no variants");
        };
        let Some(content) = &variant(variants, name)?.content else {
            return not(format!("{name} holds nothing"));
        };
        self.member(&value.part(content.offset, content.type_ref), "__0")
    }

    /// Bytes of a type, where that is known.
    pub(super) fn size_of(&self, type_ref: TypeRef) -> Result<Option<u64>> {
        self.size_within(type_ref, 0)
    }

    fn size_within(&self, type_ref: TypeRef, depth: usize) -> Result<Option<u64>> {
        if depth > MAX_NESTING {
            return not("it is an array of arrays of arrays, and so on");
        }
        Ok(match self.info.type_of(type_ref)? {
            Type::Integer { size, .. }
            | Type::Boolean { size }
            | Type::Character { size, .. }
            | Type::Float { size }
            | Type::Enumeration { size, .. } => Some(size.into()),
            Type::Pointer { .. } => Some(8),
            Type::Array { of, count } => match (self.size_within(of, depth + 1)?, count) {
                (Some(size), Some(count)) => size.checked_mul(count),
                _ => None,
            },
            Type::Structure { size, .. } => size,
            Type::Variants { size, .. } => Some(size),
            Type::Other(_) => None,
        })
    }
}

/// Names of members, for a message.
fn names_of(members: &[Member]) -> String {
    let names: Vec<&str> = members
        .iter()
        .map(|member| member.name.as_str())
        .filter(|name| !name.is_empty())
        .take(SHOWN)
        .collect();
    names.join(", ")
}

fn variant<'a>(variants: &'a [Variant], name: &str) -> Result<&'a Variant> {
    match variants.iter().find(|variant| variant.name == name) {
        Some(found) => Ok(found),
        None => not(format!("it has no variant {name}")),
    }
}

pub(super) fn describe(found: &Type) -> String {
    match found {
        Type::Integer { .. } => "a number".to_owned(),
        Type::Boolean { .. } => "a boolean".to_owned(),
        Type::Character { .. } => "a character".to_owned(),
        Type::Float { size } => format!("a floating-point number of {size} bytes"),
        Type::Pointer { .. } => "a pointer".to_owned(),
        Type::Enumeration { .. } => "an enum".to_owned(),
        Type::Array { .. } => "an array".to_owned(),
        Type::Structure { name, .. } | Type::Variants { name, .. } => {
            format!("a structure, {}", text::shown(name))
        }
        Type::Other(what) => text::shown(what),
    }
}
