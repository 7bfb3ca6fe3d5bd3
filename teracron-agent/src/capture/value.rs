//! Values: going through members and pointers, and what a value of each type is read as.

use teracron_common::plan::{Code, Compare, MAX_TEXT};

use super::{Key, Meaning, Names, Role, builder::Builder};
use crate::{
    debug::{
        Address, Base, DebugError, FunctionInfo, Home, Member, Piece, Type, TypeRef, Variant, not,
    },
    text,
};

type Result<T> = std::result::Result<T, DebugError>;

/// Structures within each other that are looked through for a member.
const MAX_NESTING: usize = 12;
/// Members that a message names.
const SHOWN: usize = 8;

/// A part of a variable: where it is.
#[derive(Clone, Debug)]
pub struct Value {
    place: Place,
    /// What it is.
    pub type_ref: Option<TypeRef>,
}

#[derive(Clone, Debug)]
enum Place {
    Memory(Address),
    /// In registers, from this byte on.
    Inline(Vec<Piece>, u64),
}

impl Value {
    /// A whole variable.
    ///
    /// # Errors
    /// Where it is stored only later (see [`Home::Spilled`]).
    pub fn new(home: Home, type_ref: Option<TypeRef>) -> Result<Self> {
        let place = match home {
            Home::Memory(address) => Place::Memory(address),
            Home::Pieces(pieces) => Place::Inline(pieces, 0),
            Home::Spilled(_) | Home::SpilledFrom(..) | Home::Behind(..) => {
                return not("where it is before the function stores it can't be told");
            }
            home => Place::Inline(
                vec![Piece {
                    size: 8,
                    home: Ok(home),
                }],
                0,
            ),
        };
        Ok(Self { place, type_ref })
    }

    /// The part that begins `offset` bytes further.
    fn part(&self, offset: u64, type_ref: TypeRef) -> Self {
        let place = match &self.place {
            Place::Memory(address) => Place::Memory(moved(address, offset)),
            Place::Inline(pieces, start) => {
                Place::Inline(pieces.clone(), start.saturating_add(offset))
            }
        };
        Self {
            place,
            type_ref: Some(type_ref),
        }
    }

    /// What it points to.
    fn target(&self, to: Option<TypeRef>) -> Result<Self> {
        let address = match &self.place {
            Place::Memory(address) => {
                let mut address = address.clone();
                address.loads.push(0);
                address
            }
            Place::Inline(pieces, start) => match piece(pieces, *start, 8)? {
                (Home::Register(number), 0) => Address {
                    base: Base::Register(*number),
                    offset: 0,
                    loads: Vec::new(),
                },
                (Home::Value(address), 0) => address.clone(),
                (Home::Memory(address), inside) => {
                    let mut address = moved(address, inside);
                    address.loads.push(0);
                    address
                }
                _ => return not("the pointer lies across registers"),
            },
        };
        Ok(Self {
            place: Place::Memory(address),
            type_ref: to,
        })
    }

    /// Makes the plan's value `size` bytes of it.
    pub fn scalar(&self, builder: &mut Builder, size: u8, signed: bool, key: u8) -> Result<()> {
        if !matches!(size, 1 | 2 | 4 | 8) {
            return not(format!("a number of {size} bytes"));
        }
        match &self.place {
            Place::Memory(address) => {
                builder.address(address, key);
                builder.load(size, key);
            }
            Place::Inline(pieces, start) => {
                let (home, inside) = piece(pieces, *start, size.into())?;
                match home {
                    Home::Register(number) => builder.push(Code::Place, *number, 0),
                    Home::Value(address) => builder.address(address, key),
                    Home::Memory(address) => {
                        builder.address(&moved(address, inside), key);
                        builder.load(size, key);
                    }
                    _ => return not("it is in parts that are in parts"),
                }
                if !matches!(home, Home::Memory(_)) && (size < 8 || inside > 0) {
                    let mask = mask(size);
                    builder.push(Code::Bits, (inside * 8) as u8, mask);
                }
            }
        }
        if signed && size < 8 {
            builder.push(Code::Sign, size * 8, 0);
        }
        Ok(())
    }

    /// Makes the plan's value its address.
    fn address(&self, builder: &mut Builder, key: u8) -> Result<()> {
        match &self.place {
            Place::Memory(address) => {
                builder.address(address, key);
                Ok(())
            }
            Place::Inline(..) => not("it is in registers"),
        }
    }
}

/// All bits of a number of so many bytes.
fn mask(size: u8) -> u64 {
    u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)))
}

fn moved(address: &Address, by: u64) -> Address {
    let mut address = address.clone();
    let last = address.loads.last_mut().unwrap_or(&mut address.offset);
    *last = last.wrapping_add(by as i64);
    address
}

/// The piece that has all of `size` bytes from `start` on, and where in it they begin.
fn piece(pieces: &[Piece], start: u64, size: u64) -> Result<(&Home, u64)> {
    let mut from = 0;
    for piece in pieces {
        let end = from + piece.size;
        if start >= from && start + size <= end {
            return match &piece.home {
                Ok(home) => Ok((home, start - from)),
                Err(reason) => not(*reason),
            };
        }
        from = end;
    }
    not("it lies across registers")
}

/// Reads types of one function's unit, and values of them.
pub struct Reader<'a> {
    info: &'a FunctionInfo<'a>,
}

impl<'a> Reader<'a> {
    /// For a function.
    pub fn new(info: &'a FunctionInfo<'a>) -> Self {
        Self { info }
    }

    /// The type of a value.
    pub fn type_of(&self, value: &Value) -> Result<Type> {
        match value.type_ref {
            Some(type_ref) => self.info.type_of(type_ref),
            None => not("it has no type (void)"),
        }
    }

    /// What a type is.
    pub fn type_of_ref(&self, type_ref: TypeRef) -> Result<Type> {
        self.info.type_of(type_ref)
    }

    /// Whether a structure, with all in it, has no constructor or destructor.
    pub fn is_plain(&self, type_ref: TypeRef) -> Result<bool> {
        self.info.is_plain(type_ref)
    }

    /// Reads a value where it is text.
    pub fn text_leaf(&self, builder: &mut Builder, value: &Value, role: Role) -> Result<()> {
        let (value, found) = self.seen_through(value.clone(), false)?;
        match self.sequence(&value, &found)? {
            Some(sequence @ Sequence::Text { .. }) => self.text(builder, &value, sequence, role),
            _ => Ok(()),
        }
    }

    /// Goes through references, and with `pointers` also through one pointer to a structure.
    fn seen_through(&self, mut value: Value, pointers: bool) -> Result<(Value, Type)> {
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
    pub fn member(&self, value: &Value, name: &str) -> Result<Value> {
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
            if member.bits.is_some() {
                return not(format!("{name} is a bit field"));
            }
            return Ok(value.part(offset, member.type_ref));
        }
        if size.is_none() {
            return not(format!(
                "{} is only declared in this part of the program",
                text::shown(structure)
            ));
        }
        let names: Vec<&str> = members
            .iter()
            .map(|member| member.name.as_str())
            .filter(|name| !name.is_empty())
            .take(SHOWN)
            .collect();
        not(format!(
            "{} has no member {name}; it has {}",
            text::shown(structure),
            names.join(", ")
        ))
    }

    /// A member by name, also of unnamed structures and base classes.
    fn find(&self, members: &[Member], name: &str, depth: usize) -> Result<Option<(u64, Member)>> {
        if let Some(found) = members.iter().find(|member| member.name == name) {
            return Ok(Some((found.offset, found.clone())));
        }
        if depth < MAX_NESTING {
            for unnamed in members.iter().filter(|member| member.name.is_empty()) {
                if let Type::Structure { members, .. } = self.info.type_of(unnamed.type_ref)?
                    && let Some((offset, found)) = self.find(&members, name, depth + 1)?
                {
                    return Ok(Some((unnamed.offset + offset, found)));
                }
            }
        }
        Ok(None)
    }

    /// Members one after the other.
    fn inner(&self, value: &Value, names: &[&str]) -> Result<Value> {
        names
            .iter()
            .try_fold(value.clone(), |value, name| self.member(&value, name))
    }

    /// The first member below `value` that a check accepts, in depth.
    fn search(
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

    /// The length of a string, slice or vector.
    pub fn length(&self, builder: &mut Builder, value: &Value, role: Role) -> Result<()> {
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
            Sequence::ShortText => return not("its length is kept in two ways"),
        }
        builder.item(Code::Item, 0, key, 0);
        builder.close(from);
        Ok(())
    }

    /// Reads a value as its type is read.
    pub fn leaf(&self, builder: &mut Builder, value: &Value, role: Role) -> Result<()> {
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
        let names: Vec<&str> = members
            .iter()
            .map(|member| member.name.as_str())
            .filter(|name| !name.is_empty())
            .take(SHOWN)
            .collect();
        format!(
            "{}: name a member of it ({})",
            describe(found),
            names.join(", ")
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
    pub fn number(
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

    fn text(
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
                // libc++: bit 0 says that the text is elsewhere; else the length is above it, and the
                // text follows (`basic_string::__rep`, the layout of little-endian machines).
                value.part_at(0).scalar(builder, 1, false, key)?;
                builder.push(Code::Keep, kept, 0);
                builder.push(Code::Bits, 0, 1);
                let is_short = builder.jump(Compare::Equal, 0);
                value.part_at(8).scalar(builder, 8, false, key)?;
                builder.push(Code::Keep, kept, 0);
                value.part_at(16).scalar(builder, 8, false, key)?;
                builder.item(Code::Text, kept, key, MAX_TEXT as u64);
                let over = builder.skip();
                builder.land(is_short);
                builder.push(Code::Place, kept, 0);
                builder.push(Code::Bits, 1, 0x7f);
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
    pub fn variant_jump(
        &self,
        builder: &mut Builder,
        value: &Value,
        found: &Type,
        name: &str,
        key: u8,
    ) -> Result<super::builder::Jump> {
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
    pub fn variant_content(&self, value: &Value, found: &Type, name: &str) -> Result<Value> {
        let Type::Variants { variants, .. } = found else {
            return not("it has no variants");
        };
        let Some(content) = &variant(variants, name)?.content else {
            return not(format!("{name} holds nothing"));
        };
        self.member(&value.part(content.offset, content.type_ref), "__0")
    }

    /// How a string, slice or vector is laid out; `None` for other types.
    fn sequence(&self, value: &Value, found: &Type) -> Result<Option<Sequence>> {
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
            let (data, len) = if has("_M_str") {
                ("_M_str", "_M_len")
            } else {
                ("__data_", "__size_")
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

    /// Bytes of a type, where that is known.
    pub fn size_of(&self, type_ref: TypeRef) -> Result<Option<u64>> {
        Ok(match self.info.type_of(type_ref)? {
            Type::Integer { size, .. }
            | Type::Boolean { size }
            | Type::Character { size, .. }
            | Type::Float { size }
            | Type::Enumeration { size, .. } => Some(size.into()),
            Type::Pointer { .. } => Some(8),
            Type::Array { of, count } => match (self.size_of(of)?, count) {
                (Some(size), Some(count)) => size.checked_mul(count),
                _ => None,
            },
            Type::Structure { size, .. } => size,
            Type::Variants { size, .. } => Some(size),
            Type::Other(_) => None,
        })
    }
}

impl Value {
    /// Bytes at a distance, of no type.
    fn part_at(&self, offset: i64) -> Self {
        let place = match &self.place {
            Place::Memory(address) => Place::Memory(moved(address, offset as u64)),
            Place::Inline(pieces, start) => {
                Place::Inline(pieces.clone(), start.wrapping_add(offset as u64))
            }
        };
        Self {
            place,
            type_ref: None,
        }
    }
}

fn variant<'a>(variants: &'a [Variant], name: &str) -> Result<&'a Variant> {
    match variants.iter().find(|variant| variant.name == name) {
        Some(found) => Ok(found),
        None => not(format!("it has no variant {name}")),
    }
}

/// How a sequence is laid out.
enum Sequence {
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

fn describe(found: &Type) -> String {
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

/// A string that ends with a NUL, behind a pointer.
pub fn c_string(builder: &mut Builder, value: &Value, role: Role) -> Result<()> {
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
