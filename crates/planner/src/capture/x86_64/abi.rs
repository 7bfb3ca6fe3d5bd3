//! Calling conventions: which registers carry arguments and results.
//!
//! C and C++: the System V psABI for x86-64, section 3.2.3. Go: ABIInternal (cmd/compile/abi-internal.md).
//! Rust has no stable convention; what is done here is what rustc has done with results since 1.86
//! (scalars and pairs of scalars in registers, other small values as whole registers), and what can't
//! be told is refused.

use crate::capture::reader::Reader;
use image::{
    debug::{Address, Base, DebugError, Home, Piece, Type, TypeRef, not},
    symbol::Language,
};

type Result<T> = std::result::Result<T, DebugError>;

/// DWARF numbers of the registers of System V arguments.
const C_ARGUMENTS: [u8; 6] = [5, 4, 1, 2, 8, 9];
/// The place of a register among those of System V arguments.
pub(crate) fn rank(number: u8) -> Option<usize> {
    C_ARGUMENTS.iter().position(|it| *it == number)
}

/// Of Go's arguments and results: rax, rbx, rcx, rdi, rsi, r8, r9, r10, r11.
const GO_REGISTERS: [u8; 9] = [0, 3, 2, 5, 4, 8, 9, 10, 11];
/// Of System V results.
const C_RESULTS: [u8; 2] = [0, 1];
/// Classes of the standard library that have destructors, however small they are.
const BY_ADDRESS: [&str; 5] = [
    "basic_string<",
    "unique_ptr<",
    "shared_ptr<",
    "weak_ptr<",
    "vector<",
];
/// Registers for floating-point numbers that Go has.
const GO_VECTORS: usize = 15;
/// What is in a vector register.
const VECTOR: &str = "it is in a vector register, which is not read";
/// The oldest rustc whose results are known.
const OLDEST_RUSTC: u32 = 86;
/// Structures within each other that are looked through.
const MAX_DEPTH: usize = 24;
/// Parts of a value that are looked at.
const MAX_PARTS: usize = 64;

/// Of the first argument.
pub(crate) const FIRST_ARGUMENT: u8 = C_ARGUMENTS[0];

/// Memory that the argument with this index points to, at a distance.
pub(crate) fn behind_argument(index: usize, offset: u64) -> Home {
    Home::Memory(Address {
        base: Base::Register(C_ARGUMENTS[index]),
        offset: offset as i64,
        loads: Vec::new(),
    })
}

/// Whether a class of the standard library is passed and returned by its address, however small it is.
pub(crate) fn is_by_address(class: &str) -> bool {
    BY_ADDRESS.iter().any(|known| class.starts_with(known))
}

/// Whether a value of a type takes one general register.
pub(crate) fn is_number(found: &Type) -> bool {
    match found {
        Type::Integer { size, .. } | Type::Enumeration { size, .. } => *size <= 8,
        Type::Boolean { .. } | Type::Character { .. } | Type::Pointer { .. } => true,
        _ => false,
    }
}

/// Whether a parameter begins in the register of the second argument.
pub(crate) fn begins_with_second(home: &Home) -> bool {
    let second = C_ARGUMENTS[1];
    match home {
        Home::Register(number) => *number == second,
        Home::Memory(address) => address.base == Base::Register(second) && address.loads.is_empty(),
        Home::Pieces(pieces) => match pieces.first() {
            Some(piece) => piece.home.as_ref().is_ok_and(begins_with_second),
            None => false,
        },
        _ => false,
    }
}

/// The registers, bit by bit, that can carry a result.
pub(crate) fn results(language: Language) -> u16 {
    let registers: &[u8] = match language {
        Language::Go => &GO_REGISTERS,
        _ => &C_RESULTS,
    };
    registers.iter().fold(0, |bits, number| bits | 1 << number)
}

/// Where the argument with this number (from 1) is at entry, if all before it are numbers or pointers.
pub(crate) fn argument(language: Language, number: u8) -> Home {
    let registers: &[u8] = match language {
        Language::Go => &GO_REGISTERS,
        _ => &C_ARGUMENTS,
    };
    let index = usize::from(number.saturating_sub(1));
    match registers.get(index) {
        Some(register) => Home::Register(*register),
        None => Home::Memory(Address {
            base: Base::Frame,
            offset: (index - registers.len()) as i64 * 8,
            loads: Vec::new(),
        }),
    }
}

/// Where a result that is a number is.
pub(crate) fn number_result() -> Home {
    Home::Register(0)
}

/// A number within a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    offset: u64,
    size: u64,
    float: bool,
}

/// Where a result of a type is.
///
/// # Errors
/// Where that is not known.
pub(crate) fn result(
    reader: &Reader<'_>,
    language: Language,
    rustc: Option<u32>,
    type_ref: TypeRef,
) -> Result<Home> {
    let found = reader.type_of_ref(type_ref)?;
    match &found {
        Type::Integer { size, .. } | Type::Enumeration { size, .. } if *size <= 8 => {
            return Ok(Home::Register(0));
        }
        Type::Boolean { .. } | Type::Character { .. } | Type::Pointer { .. } => {
            return Ok(Home::Register(0));
        }
        Type::Float { .. } => return not(VECTOR),
        Type::Structure { .. } | Type::Variants { .. } => {}
        _ => return not("how such a result is returned is not known"),
    }
    let Some(size) = reader.size_of(type_ref)? else {
        return not("its type is only declared in this part of the program");
    };
    match language {
        Language::Rust => rust_result(reader, rustc, type_ref, &found, size),
        Language::Go => not("how such a result is returned is not known"),
        Language::C | Language::Cpp => {
            if let Type::Structure {
                by_reference: true, ..
            } = found
            {
                return Ok(in_memory());
            }
            if size > 16 {
                return Ok(in_memory());
            }
            if let Type::Structure { name, .. } = &found
                && is_by_address(name)
            {
                return Ok(in_memory());
            }
            if language == Language::Cpp && !reader.is_plain(type_ref)? {
                return not("whether such a class is returned in registers can't be told");
            }
            let parts = parts(reader, type_ref)?;
            Ok(Home::Pieces(eightbytes(&parts, size)))
        }
    }
}

/// Where the results of a Go function are.
///
/// # Errors
/// Where the types make no sense. A result that is not in registers has a reason instead.
pub(crate) fn go_results(
    reader: &Reader<'_>,
    types: &[TypeRef],
) -> Result<Vec<std::result::Result<Home, &'static str>>> {
    let (mut integers, mut vectors) = (0, 0);
    let mut homes = Vec::new();
    for type_ref in types {
        let (mut whole, mut float) = (integers, vectors);
        let mut pieces = Vec::new();
        let fits = go_assign(
            reader,
            *type_ref,
            0,
            &mut (&mut whole, &mut float),
            &mut pieces,
            0,
        )?;
        if fits {
            (integers, vectors) = (whole, float);
            homes.push(Ok(Home::Pieces(pieces)));
        } else {
            homes.push(Err("it is returned on the stack"));
        }
    }
    Ok(homes)
}

/// Gives registers to a value at an offset; `false` where there are not enough, or it has an array.
fn go_assign(
    reader: &Reader<'_>,
    type_ref: TypeRef,
    offset: u64,
    used: &mut (&mut usize, &mut usize),
    pieces: &mut Vec<Piece>,
    depth: usize,
) -> Result<bool> {
    if pieces.len() > MAX_PARTS || depth > MAX_DEPTH {
        return Ok(false);
    }
    let mut push = |size: u64, home| {
        let end = pieces
            .iter()
            .fold(0u64, |end, piece| end.saturating_add(piece.size));
        if offset > end {
            pieces.push(Piece {
                size: offset - end,
                home: Err("it is padding"),
            });
        }
        pieces.push(Piece { size, home });
    };
    match reader.type_of_ref(type_ref)? {
        Type::Structure { members, .. } => {
            for member in members {
                if !go_assign(
                    reader,
                    member.type_ref,
                    offset.saturating_add(member.offset),
                    used,
                    pieces,
                    depth + 1,
                )? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Type::Array { count: Some(0), .. } => Ok(true),
        Type::Array { of, count: Some(1) } => {
            go_assign(reader, of, offset, used, pieces, depth + 1)
        }
        Type::Array { .. } | Type::Variants { .. } => Ok(false),
        Type::Float { size } => {
            *used.1 += 1;
            push(size.into(), Err(VECTOR));
            Ok(*used.1 <= GO_VECTORS)
        }
        _ => {
            let size = reader.size_of(type_ref)?.unwrap_or(8);
            let Some(register) = GO_REGISTERS.get(*used.0) else {
                return Ok(false);
            };
            *used.0 += 1;
            push(size, Ok(Home::Register(*register)));
            Ok(size <= 8)
        }
    }
}

/// The caller has given the address of a place for it, which is also returned.
fn in_memory() -> Home {
    Home::Memory(Address {
        base: Base::Register(0),
        offset: 0,
        loads: Vec::new(),
    })
}

fn eightbytes(parts: &[Part], size: u64) -> Vec<Piece> {
    let mut registers = C_RESULTS.into_iter();
    (0..size.div_ceil(8))
        .map(|number| {
            let (from, to) = (number * 8, (number + 1) * 8);
            let whole = parts.iter().any(|part| {
                !part.float && part.offset < to && part.offset.saturating_add(part.size) > from
            });
            Piece {
                size: 8.min(size - from),
                home: if whole {
                    registers
                        .next()
                        .map(Home::Register)
                        .ok_or("no register is left for it")
                } else {
                    Err(VECTOR)
                },
            }
        })
        .collect()
}

fn rust_result(
    reader: &Reader<'_>,
    rustc: Option<u32>,
    type_ref: TypeRef,
    found: &Type,
    size: u64,
) -> Result<Home> {
    if rustc.is_none_or(|minor| minor < OLDEST_RUSTC) {
        return not(format!(
            "how this version of rustc returns it is not known (1.{OLDEST_RUSTC} and newer are)"
        ));
    }
    if size <= 16
        && let Some(pair) = scalars(reader, type_ref, found)?
    {
        let mut pieces = Vec::new();
        let mut at = 0;
        for (part, register) in pair.iter().zip(C_RESULTS) {
            if part.offset > at {
                pieces.push(Piece {
                    size: part.offset - at,
                    home: Err("it is padding"),
                });
            }
            pieces.push(Piece {
                size: part.size,
                home: if part.float {
                    Err(VECTOR)
                } else {
                    Ok(Home::Register(register))
                },
            });
            at = part.offset.saturating_add(part.size);
        }
        return Ok(Home::Pieces(pieces));
    }
    if size > 8 {
        // Functions that rustc calls with a convention of their own do not return the address.
        return Ok(Home::Memory(Address {
            base: Base::Kept,
            offset: 0,
            loads: Vec::new(),
        }));
    }
    // As if it were a whole number.
    Ok(Home::Register(0))
}

/// One or two numbers that a Rust value is made of, where it is.
fn scalars(reader: &Reader<'_>, type_ref: TypeRef, found: &Type) -> Result<Option<Vec<Part>>> {
    if keeps_to_memory(reader, type_ref, 0)? {
        return Ok(None);
    }
    let Type::Variants { tag, variants, .. } = found else {
        let parts = parts(reader, type_ref)?;
        return Ok((1..=2).contains(&parts.len()).then_some(parts));
    };
    let Some(tag) = tag else {
        return Ok(None);
    };
    let Some(tag_size) = reader.size_of(tag.type_ref)? else {
        return Ok(None);
    };
    let tag = Part {
        offset: tag.offset,
        size: tag_size,
        float: false,
    };
    let mut held: Vec<Vec<Part>> = Vec::new();
    for variant in variants {
        if let Some(content) = &variant.content {
            let mut parts = parts(reader, content.type_ref)?;
            for part in &mut parts {
                part.offset = part.offset.saturating_add(content.offset);
            }
            if !parts.is_empty() {
                held.push(parts);
            }
        }
    }
    // The tag lies in what one variant holds: then that one decides.
    if let [only] = held.as_slice()
        && only.iter().any(|part| {
            part.offset <= tag.offset
                && tag.offset.saturating_add(tag.size) <= part.offset.saturating_add(part.size)
        })
    {
        return Ok((only.len() <= 2).then(|| only.clone()));
    }
    let Some(first) = held.first() else {
        return Ok(Some(vec![tag]));
    };
    let [payload] = first.as_slice() else {
        return Ok(None);
    };
    let alike = held.iter().all(|parts| match parts.as_slice() {
        [part] => {
            part.offset == payload.offset
                && part.size == payload.size
                && part.float == payload.float
        }
        _ => false,
    });
    Ok((alike && tag.offset < payload.offset).then(|| vec![tag, *payload]))
}

/// The numbers that a value is made of.
fn parts(reader: &Reader<'_>, type_ref: TypeRef) -> Result<Vec<Part>> {
    let mut found = Vec::new();
    collect(reader, type_ref, 0, &mut found, 0)?;
    found.sort_by_key(|part| (part.offset, part.size));
    found.dedup();
    Ok(found)
}

/// Whether there is something in a type that is never in registers: an array, an enum that is neither one
/// number nor two.
fn keeps_to_memory(reader: &Reader<'_>, type_ref: TypeRef, depth: usize) -> Result<bool> {
    if depth > MAX_DEPTH {
        return not("it is too deep");
    }
    let inner: Vec<TypeRef> = match reader.type_of_ref(type_ref)? {
        Type::Array { .. } => return Ok(true),
        Type::Structure { members, .. } => members.iter().map(|member| member.type_ref).collect(),
        Type::Variants { variants, .. } => variants
            .iter()
            .filter_map(|variant| Some(variant.content.as_ref()?.type_ref))
            .collect(),
        _ => return Ok(false),
    };
    for type_ref in inner {
        if reader.size_of(type_ref)? == Some(0) {
            continue;
        }
        if keeps_to_memory(reader, type_ref, depth + 1)? {
            return Ok(true);
        }
        // What is no pair by itself is none within another.
        let found = reader.type_of_ref(type_ref)?;
        if matches!(found, Type::Variants { .. }) && scalars(reader, type_ref, &found)?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn collect(
    reader: &Reader<'_>,
    type_ref: TypeRef,
    offset: u64,
    found: &mut Vec<Part>,
    depth: usize,
) -> Result<()> {
    if found.len() > MAX_PARTS || depth > MAX_DEPTH {
        return not("it has too many parts");
    }
    let size = reader.size_of(type_ref)?.unwrap_or(0);
    if size == 0 {
        return Ok(());
    }
    match reader.type_of_ref(type_ref)? {
        Type::Structure { members, .. } => {
            for member in members {
                collect(
                    reader,
                    member.type_ref,
                    offset.saturating_add(member.offset),
                    found,
                    depth + 1,
                )?;
            }
        }
        Type::Array { of, count } => {
            let each = reader.size_of(of)?.unwrap_or(0);
            for index in 0..count.unwrap_or(0).min(MAX_PARTS as u64) {
                collect(
                    reader,
                    of,
                    offset.saturating_add(index.saturating_mul(each)),
                    found,
                    depth + 1,
                )?;
            }
        }
        Type::Variants { tag, variants, .. } => {
            if let Some(tag) = tag {
                collect(
                    reader,
                    tag.type_ref,
                    offset.saturating_add(tag.offset),
                    found,
                    depth + 1,
                )?;
            }
            for content in variants.into_iter().filter_map(|variant| variant.content) {
                collect(
                    reader,
                    content.type_ref,
                    offset.saturating_add(content.offset),
                    found,
                    depth + 1,
                )?;
            }
        }
        Type::Float { .. } => found.push(Part {
            offset,
            size,
            float: true,
        }),
        _ => found.push(Part {
            offset,
            size,
            float: false,
        }),
    }
    Ok(())
}
