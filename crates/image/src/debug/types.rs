//! Types, one at a time: what refers to another stays a reference until it is asked for.

use gimli::{AttributeValue, UnitOffset};

use super::{
    DebugError, DebugInfo, not,
    reader::Section,
    units::{Entry, EntryRef, Unit},
};

/// A type's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TypeRef(pub(super) EntryRef);

/// A member of a structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name; empty for an unnamed structure, and for what a class inherits.
    pub name: String,
    /// Bytes from the start of the structure.
    pub offset: u64,
    /// Its type.
    pub type_ref: TypeRef,
    /// First bit and number of bits, for a bit field.
    pub bits: Option<(u8, u8)>,
}

/// One of a Rust enum's variants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Its name.
    pub name: String,
    /// The discriminant that says so; `None` for every other.
    pub value: Option<u64>,
    /// What it holds: a structure.
    pub content: Option<Member>,
}

/// A type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// A whole number.
    Integer {
        /// Bytes.
        size: u8,
        /// It can be negative.
        signed: bool,
    },
    /// True or false.
    Boolean {
        /// Bytes.
        size: u8,
    },
    /// A character: `char`, `char32_t`, Rust's `char`.
    Character {
        /// Bytes.
        size: u8,
        /// It can be negative.
        signed: bool,
    },
    /// A floating-point number.
    Float {
        /// Bytes.
        size: u8,
    },
    /// A pointer, or a reference.
    Pointer {
        /// What it points to; `None` for anything.
        to: Option<TypeRef>,
        /// The language goes through it by itself.
        is_reference: bool,
    },
    /// One of some names.
    Enumeration {
        /// Bytes.
        size: u8,
        /// It can be negative.
        signed: bool,
        /// The names.
        names: Vec<(u64, String)>,
    },
    /// Several of a kind.
    Array {
        /// What kind.
        of: TypeRef,
        /// How many, where that is known.
        count: Option<u64>,
    },
    /// A structure, a class, a union.
    Structure {
        /// Its name.
        name: String,
        /// Bytes; `None` where only its name is known.
        size: Option<u64>,
        /// Members, base classes among them.
        members: Vec<Member>,
        /// Class: it is passed by the address of a copy.
        by_reference: bool,
    },
    /// A Rust enum with content.
    Variants {
        /// Its name.
        name: String,
        /// Bytes.
        size: u64,
        /// What says which variant it is; `None` where there is but one.
        tag: Option<Member>,
        /// The variants.
        variants: Vec<Variant>,
    },
    /// Something else.
    Other(String),
}

/// Members of a type that are read.
const MAX_MEMBERS: usize = 4096;
/// `typedef`, `const`, and so on, of each other.
pub(super) const MAX_LAYERS: usize = 32;

impl DebugInfo {
    /// What a type is, without what only renames it.
    ///
    /// # Errors
    /// Where the debug information makes no sense.
    pub fn type_of(&self, TypeRef(at): TypeRef) -> Result<Type, DebugError> {
        match self.types_left.get().checked_sub(1) {
            Some(left) => self.types_left.set(left),
            None => return not("its types refer to each other in too many ways"),
        }
        let at = self.unnamed(at)?;
        let (unit, entry) = self.entry(at)?;
        if renames(entry.tag()) {
            return Ok(Type::Other("void".to_owned()));
        }
        self.read_type(&unit, at, &entry)
    }

    fn read_type(&self, unit: &Unit, at: EntryRef, entry: &Entry) -> Result<Type, DebugError> {
        let size = unsigned(entry, gimli::DW_AT_byte_size);
        let small = size.and_then(|size| u8::try_from(size).ok()).unwrap_or(0);
        let target = || {
            entry
                .attr_value(gimli::DW_AT_type)
                .and_then(|value| self.reference(at.unit, value))
                .map(TypeRef)
        };
        let name = || self.name(unit, entry).unwrap_or_default();
        Ok(match entry.tag() {
            gimli::DW_TAG_base_type => base_type(entry, small, &name()),
            gimli::DW_TAG_pointer_type
            | gimli::DW_TAG_reference_type
            | gimli::DW_TAG_rvalue_reference_type => Type::Pointer {
                to: target(),
                // Rust's references are pointers by tag, and say it in their name.
                is_reference: entry.tag() != gimli::DW_TAG_pointer_type || name().starts_with('&'),
            },
            gimli::DW_TAG_enumeration_type => self.enumeration(unit, at, small, target())?,
            gimli::DW_TAG_array_type => Type::Array {
                of: target().ok_or_else(|| DebugError::Not("an array of nothing".to_owned()))?,
                count: array_count(unit, at)?,
            },
            gimli::DW_TAG_structure_type | gimli::DW_TAG_class_type | gimli::DW_TAG_union_type => {
                self.structure(unit, at, entry, size, name())?
            }
            tag => Type::Other(match tag.static_string() {
                Some(text) => text.trim_start_matches("DW_TAG_").replace('_', " "),
                None => "unknown".to_owned(),
            }),
        })
    }

    /// The name of a type; without its modules, which are not near it.
    pub fn name_of(&self, TypeRef(at): TypeRef) -> String {
        let named = |at| -> Option<String> {
            let (unit, entry) = self.entry(at).ok()?;
            // What stands for a type with a unit of its own may have none.
            self.name(&unit, &entry).or_else(|| {
                let signature = entry.attr_value(gimli::DW_AT_signature)?;
                let (unit, entry) = self.entry(self.reference(at.unit, signature)?).ok()?;
                self.name(&unit, &entry)
            })
        };
        named(at).unwrap_or_default()
    }

    /// The entry behind what only renames it.
    pub(super) fn unnamed(&self, mut at: EntryRef) -> Result<EntryRef, DebugError> {
        for _ in 0..MAX_LAYERS {
            let (_, entry) = self.entry(at)?;
            // A type with a unit of its own is named by its signature.
            let next = match entry.attr_value(gimli::DW_AT_signature) {
                None if !renames(entry.tag()) => return Ok(at),
                None => entry.attr_value(gimli::DW_AT_type),
                signature => signature,
            };
            match next.and_then(|value| self.reference(at.unit, value)) {
                Some(next) => at = next,
                None => return Ok(at),
            }
        }
        not("its type is a chain of names without end")
    }

    fn enumeration(
        &self,
        unit: &Unit,
        at: EntryRef,
        size: u8,
        of: Option<TypeRef>,
    ) -> Result<Type, DebugError> {
        let mut signed = of.is_none();
        if let Some(of) = of
            && let Type::Integer { signed: says, .. } | Type::Character { signed: says, .. } =
                self.type_of(of)?
        {
            signed = says;
        }
        let mut names = Vec::new();
        let mut tree = unit.entries_tree(Some(UnitOffset(at.offset)))?;
        let mut children = tree.root()?.children();
        while let Some(child) = children.next()? {
            let entry = child.entry();
            if let Some(value) = constant(entry, gimli::DW_AT_const_value)
                && let Some(name) = self.name(unit, entry)
                && names.len() < MAX_MEMBERS
            {
                names.push((value, name));
            }
        }
        Ok(Type::Enumeration {
            size,
            signed,
            names,
        })
    }

    fn structure(
        &self,
        unit: &Unit,
        at: EntryRef,
        entry: &Entry,
        size: Option<u64>,
        name: String,
    ) -> Result<Type, DebugError> {
        let mut members = Vec::new();
        let mut tree = unit.entries_tree(Some(UnitOffset(at.offset)))?;
        let mut children = tree.root()?.children();
        while let Some(child) = children.next()? {
            let tag = child.entry().tag();
            if tag == gimli::DW_TAG_variant_part {
                let (tag, variants) = self.variants(unit, at.unit, child)?;
                return Ok(Type::Variants {
                    name,
                    size: size.unwrap_or(0),
                    tag,
                    variants,
                });
            }
            if !matches!(tag, gimli::DW_TAG_member | gimli::DW_TAG_inheritance)
                || members.len() >= MAX_MEMBERS
            {
                continue;
            }
            members.extend(self.member(unit, at.unit, child.entry()));
        }
        Ok(Type::Structure {
            name,
            size,
            members,
            by_reference: entry
                .attr_value(gimli::DW_AT_calling_convention)
                .is_some_and(|value| {
                    matches!(
                        value,
                        AttributeValue::CallingConvention(gimli::DW_CC_pass_by_reference)
                    )
                }),
        })
    }

    /// A member; `None` for a static one, and where its place is not a constant (virtual bases).
    fn member(&self, unit: &Unit, place: usize, entry: &Entry) -> Option<Member> {
        let type_ref = entry
            .attr_value(gimli::DW_AT_type)
            .and_then(|value| self.reference(place, value))
            .map(TypeRef)?;
        if entry.has_attr(gimli::DW_AT_external) || entry.has_attr(gimli::DW_AT_const_value) {
            return None;
        }
        let mut offset = match entry.attr_value(gimli::DW_AT_data_member_location) {
            Some(value) => value.udata_value()?,
            None => 0,
        };
        let mut bits = None;
        if let Some(count) = unsigned(entry, gimli::DW_AT_bit_size) {
            // DWARF 5 counts from the start of the structure; before, compilers count from the other end of a
            // number of the type's size (DWARF 4, section 5.5.6), which on this processor is the high one.
            let first = match unsigned(entry, gimli::DW_AT_data_bit_offset) {
                Some(first) => first,
                None => {
                    let size = unsigned(entry, gimli::DW_AT_byte_size)?;
                    let above = unsigned(entry, gimli::DW_AT_bit_offset)?.checked_add(count)?;
                    let inside = size.checked_mul(8)?.checked_sub(above)?;
                    offset.checked_mul(8)?.checked_add(inside)?
                }
            };
            offset = first / 8;
            bits = Some(((first % 8) as u8, u8::try_from(count).ok()?));
        }
        let name = if entry.tag() == gimli::DW_TAG_inheritance {
            String::new()
        } else {
            self.name(unit, entry).unwrap_or_default()
        };
        Some(Member {
            name,
            offset,
            type_ref,
            bits,
        })
    }

    fn variants(
        &self,
        unit: &Unit,
        place: usize,
        part: gimli::EntriesTreeNode<'_, '_, Section>,
    ) -> Result<(Option<Member>, Vec<Variant>), DebugError> {
        let tag_at = part
            .entry()
            .attr_value(gimli::DW_AT_discr)
            .and_then(|value| self.reference(place, value));
        let tag = match tag_at {
            Some(at) => {
                let (unit, entry) = self.entry(at)?;
                self.member(&unit, at.unit, &entry)
            }
            None => None,
        };
        let mut variants = Vec::new();
        let mut children = part.children();
        while let Some(child) = children.next()? {
            if child.entry().tag() != gimli::DW_TAG_variant || variants.len() >= MAX_MEMBERS {
                continue;
            }
            let value = constant(child.entry(), gimli::DW_AT_discr_value);
            let mut content = None;
            let mut inner = child.children();
            while let Some(member) = inner.next()? {
                if member.entry().tag() == gimli::DW_TAG_member {
                    content = self.member(unit, place, member.entry());
                    break;
                }
            }
            variants.push(Variant {
                name: content
                    .as_ref()
                    .map_or_else(String::new, |content| content.name.clone()),
                value,
                content,
            });
        }
        Ok((tag, variants))
    }
}

/// Whether a type only gives another one a name or a property.
fn renames(tag: gimli::DwTag) -> bool {
    matches!(
        tag,
        gimli::DW_TAG_typedef
            | gimli::DW_TAG_const_type
            | gimli::DW_TAG_volatile_type
            | gimli::DW_TAG_restrict_type
            | gimli::DW_TAG_atomic_type
    )
}

fn base_type(entry: &Entry, size: u8, name: &str) -> Type {
    let encoding = match entry.attr_value(gimli::DW_AT_encoding) {
        Some(AttributeValue::Encoding(encoding)) => encoding,
        _ => gimli::DwAte(0),
    };
    match encoding {
        gimli::DW_ATE_boolean => Type::Boolean { size },
        gimli::DW_ATE_float => Type::Float { size },
        gimli::DW_ATE_UTF | gimli::DW_ATE_ASCII | gimli::DW_ATE_UCS => Type::Character {
            size,
            signed: false,
        },
        // `char` is a letter, `signed char` and `unsigned char` are small numbers (int8_t, uint8_t).
        gimli::DW_ATE_signed_char | gimli::DW_ATE_unsigned_char if name == "char" => {
            Type::Character {
                size,
                signed: encoding == gimli::DW_ATE_signed_char,
            }
        }
        gimli::DW_ATE_signed | gimli::DW_ATE_signed_char => Type::Integer { size, signed: true },
        gimli::DW_ATE_unsigned | gimli::DW_ATE_unsigned_char => Type::Integer {
            size,
            signed: false,
        },
        gimli::DW_ATE_address => Type::Pointer {
            to: None,
            is_reference: false,
        },
        _ => Type::Other(name.to_owned()),
    }
}

pub(super) fn unsigned(entry: &Entry, name: gimli::DwAt) -> Option<u64> {
    entry.attr_value(name)?.udata_value()
}

/// A constant, whatever form it was written in, as 64 bits with its sign.
fn constant(entry: &Entry, name: gimli::DwAt) -> Option<u64> {
    let value = entry.attr_value(name)?;
    match value {
        AttributeValue::Sdata(value) => Some(value as u64),
        AttributeValue::Udata(value) => Some(value),
        AttributeValue::Data1(value) => Some(value.into()),
        AttributeValue::Data2(value) => Some(value.into()),
        AttributeValue::Data4(value) => Some(value.into()),
        AttributeValue::Data8(value) => Some(value),
        other => other.udata_value(),
    }
}

fn array_count(unit: &Unit, at: EntryRef) -> Result<Option<u64>, DebugError> {
    let mut tree = unit.entries_tree(Some(UnitOffset(at.offset)))?;
    let mut children = tree.root()?.children();
    let mut count = None;
    while let Some(child) = children.next()? {
        let entry = child.entry();
        if entry.tag() != gimli::DW_TAG_subrange_type {
            continue;
        }
        if count.is_some() {
            return Ok(None); // of several dimensions
        }
        count = unsigned(entry, gimli::DW_AT_count).or_else(|| {
            unsigned(entry, gimli::DW_AT_upper_bound).and_then(|last| last.checked_add(1))
        });
    }
    Ok(count)
}
