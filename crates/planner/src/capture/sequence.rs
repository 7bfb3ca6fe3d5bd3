//! Strings, slices and vectors: how each language's are laid out.

use teracron_common::plan::{Code, Compare, MAX_TEXT};

use super::{
    Key, Meaning, Role,
    builder::{Builder, Jump},
    reader::{Reader, describe},
    value::Value,
};
use image::debug::{DebugError, Type, not};

type Result<T> = std::result::Result<T, DebugError>;

/// The length of a string of libc++ that is short, from its first byte.
fn short_length(builder: &mut Builder) {
    builder.push(Code::Place, Builder::place(0), 0);
    builder.push(Code::Bits, 1, 0x7f);
}

/// How a sequence is laid out.
pub(super) enum Sequence {
    /// Bytes and their number.
    Text { data: Value, len: Value },
    /// libstdc++ before the C++11 ABI: the length lies before the text.
    OldText { data: Value },
    /// libc++: short texts lie in the string itself.
    ShortText,
    /// Its length is a number.
    Counted { len: Value },
    /// From here to there, elements of this size.
    Ends {
        first: Value,
        last: Value,
        size: u64,
    },
}

impl Reader<'_> {
    /// Reads a value where it is text.
    pub(super) fn text_leaf(&self, builder: &mut Builder, value: &Value, role: Role) -> Result<()> {
        let (value, found) = self.seen_through(value.clone(), false)?;
        match self.sequence(&value, &found)? {
            Some(sequence @ Sequence::Text { .. }) => self.text(builder, &value, sequence, role),
            _ => Ok(()),
        }
    }

    /// The length of a string, slice or vector.
    pub(super) fn length(&self, builder: &mut Builder, value: &Value, role: Role) -> Result<()> {
        let (value, found) = self.seen_through(value.clone(), true)?;
        let Some(sequence) = self.sequence(&value, &found)? else {
            return not(format!("{} has no length", describe(&found)));
        };
        let key = builder.key(Key {
            role,
            meaning: Meaning::Unsigned,
        });
        let from = builder.mark();
        match sequence {
            Sequence::Text { len, .. } | Sequence::Counted { len } => {
                len.scalar(builder, 8, false, key)?;
            }
            Sequence::Ends { first, last, size } => {
                first.scalar(builder, 8, false, key)?;
                builder.push(Code::Keep, Builder::place(0), 0);
                last.scalar(builder, 8, false, key)?;
                builder.push(Code::Subtract, Builder::place(0), 0);
                builder.push(Code::Divide, 0, size);
            }
            Sequence::OldText { data } => {
                data.target(None)?
                    .part_at(-24)
                    .scalar(builder, 8, false, key)?;
            }
            Sequence::ShortText => {
                let is_short = self.short_text(builder, &value, key)?;
                value.part_at(8).scalar(builder, 8, false, key)?;
                let over = builder.skip();
                builder.land(is_short);
                short_length(builder);
                builder.land(over);
            }
        }
        builder.item(Code::Item, 0, key, 0);
        builder.close(from);
        Ok(())
    }

    pub(super) fn text(
        &self,
        builder: &mut Builder,
        value: &Value,
        sequence: Sequence,
        role: Role,
    ) -> Result<()> {
        let key = builder.key(Key {
            role,
            meaning: Meaning::Text,
        });
        let from = builder.mark();
        let kept = Builder::place(0);
        match sequence {
            Sequence::Text { data, len } => {
                len.scalar(builder, 8, false, key)?;
                builder.push(Code::Keep, kept, 0);
                data.scalar(builder, 8, false, key)?;
                builder.item(Code::Text, kept, key, MAX_TEXT as u64);
            }
            Sequence::OldText { data } => {
                data.target(None)?
                    .part_at(-24)
                    .scalar(builder, 8, false, key)?;
                builder.push(Code::Keep, kept, 0);
                data.scalar(builder, 8, false, key)?;
                builder.item(Code::Text, kept, key, MAX_TEXT as u64);
            }
            Sequence::ShortText => {
                let is_short = self.short_text(builder, value, key)?;
                value.part_at(8).scalar(builder, 8, false, key)?;
                builder.push(Code::Keep, kept, 0);
                value.part_at(16).scalar(builder, 8, false, key)?;
                builder.item(Code::Text, kept, key, MAX_TEXT as u64);
                let over = builder.skip();
                builder.land(is_short);
                short_length(builder);
                builder.push(Code::Keep, kept, 0);
                value.part_at(1).address(builder, key)?;
                builder.item(Code::Text, kept, key, 22);
                builder.land(over);
            }
            Sequence::Counted { .. } | Sequence::Ends { .. } => return not("it is no text"),
        }
        builder.close(from);
        Ok(())
    }

    /// Where a string of libc++ is short, the plan goes on at what is answered. Bit 0 says that the text is
    /// elsewhere; else the length is above it, and the text follows (`basic_string::__rep`, the layout of
    /// little-endian machines).
    fn short_text(&self, builder: &mut Builder, value: &Value, key: u8) -> Result<Jump> {
        value.part_at(0).scalar(builder, 1, false, key)?;
        builder.push(Code::Keep, Builder::place(0), 0);
        builder.push(Code::Bits, 0, 1);
        Ok(builder.jump(Compare::Equal, 0))
    }

    /// How a string, slice or vector is laid out; `None` for other types.
    pub(super) fn sequence(&self, value: &Value, found: &Type) -> Result<Option<Sequence>> {
        let Type::Structure {
            name,
            members,
            size,
            ..
        } = found
        else {
            return Ok(None);
        };
        let has = |wanted: &str| members.iter().any(|member| member.name == wanted);
        if has("data_ptr") && has("length") {
            // Rust: `&str`, `&[T]`, `Box<str>`.
            let (data, len) = (
                self.inner(value, &["data_ptr"])?,
                self.inner(value, &["length"])?,
            );
            return Ok(Some(
                if name.ends_with("str") || name.ends_with("str>") || name.contains("<str,") {
                    Sequence::Text { data, len }
                } else {
                    Sequence::Counted { len }
                },
            ));
        }
        if name == "String" && has("vec") {
            let vec = self.inner(value, &["vec"])?;
            let data = self.search(&vec, 0, &|_, found| matches!(found, Type::Pointer { .. }))?;
            let len = self.inner(&vec, &["len"])?;
            return Ok(data.map(|data| Sequence::Text { data, len }));
        }
        if name.starts_with("Vec<") && has("len") && has("buf") {
            return Ok(Some(Sequence::Counted {
                len: self.inner(value, &["len"])?,
            }));
        }
        if name == "string" && has("str") && has("len") {
            // Go.
            return Ok(Some(Sequence::Text {
                data: self.inner(value, &["str"])?,
                len: self.inner(value, &["len"])?,
            }));
        }
        if name.starts_with("[]") && has("array") && has("len") {
            return Ok(Some(Sequence::Counted {
                len: self.inner(value, &["len"])?,
            }));
        }
        let is_char = name.contains("<char");
        if name.starts_with("basic_string_view<char") {
            // libstdc++; libc++ before and since version 15.
            let layouts = [
                ("_M_str", "_M_len"),
                ("__data", "__size"),
                ("__data_", "__size_"),
            ];
            let Some((data, len)) = layouts.into_iter().find(|(data, _)| has(data)) else {
                return Ok(None);
            };
            return Ok(Some(Sequence::Text {
                data: self.inner(value, &[data])?,
                len: self.inner(value, &[len])?,
            }));
        }
        if name.starts_with("basic_string<") && is_char {
            if has("_M_string_length") {
                return Ok(Some(Sequence::Text {
                    data: self.inner(value, &["_M_dataplus", "_M_p"])?,
                    len: self.inner(value, &["_M_string_length"])?,
                }));
            }
            if has("_M_dataplus") {
                return Ok(Some(Sequence::OldText {
                    data: self.inner(value, &["_M_dataplus", "_M_p"])?,
                }));
            }
            return Ok((*size == Some(24)).then_some(Sequence::ShortText));
        }
        if name.starts_with("vector<") && !name.starts_with("vector<bool") {
            let pair = if has("_M_impl") || self.find(members, "_M_impl", 0)?.is_some() {
                Some((vec!["_M_impl", "_M_start"], vec!["_M_impl", "_M_finish"]))
            } else if has("__begin_") {
                Some((vec!["__begin_"], vec!["__end_"]))
            } else {
                None
            };
            if let Some((first, last)) = pair {
                let (first, last) = (self.inner(value, &first)?, self.inner(value, &last)?);
                let size = match self.type_of(&first)? {
                    Type::Pointer { to: Some(to), .. } => self.size_of(to)?,
                    _ => None,
                };
                return Ok(size.filter(|size| *size > 0).map(|size| Sequence::Ends {
                    first,
                    last,
                    size,
                }));
            }
        }
        Ok(None)
    }
}

/// A string that ends with a NUL, behind a pointer.
pub(super) fn c_string(builder: &mut Builder, value: &Value, role: Role) -> Result<()> {
    let key = builder.key(Key {
        role,
        meaning: Meaning::Text,
    });
    let from = builder.mark();
    value.scalar(builder, 8, false, key)?;
    let is_null = builder.jump(Compare::Equal, 0);
    builder.item(Code::CString, 0, key, MAX_TEXT as u64);
    let over = builder.skip();
    builder.land(is_null);
    builder.item(Code::Null, 0, key, 0);
    builder.land(over);
    builder.close(from);
    Ok(())
}
