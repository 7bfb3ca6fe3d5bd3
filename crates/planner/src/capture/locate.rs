//! Where arguments and results are.

use super::{
    plan::Subject,
    reader::Reader,
    value::Value,
    x86_64::{abi, registers},
};
use image::{
    debug::{Address, Base, DebugError, FunctionInfo, Home, Piece, Type, TypeRef, not},
    symbol::Language,
};
use sites::{Origin, Reads};

/// The debug information, or why there is none.
pub(super) fn known<'a>(subject: &Subject<'a>) -> Result<&'a FunctionInfo<'a>, DebugError> {
    match &subject.info {
        Ok(info) => Ok(info),
        Err(reason) => not(reason.clone()),
    }
}

/// Where a variable of `size` bytes is before the prologue stores it where `home` says.
pub(super) fn before_stored(
    home: Home,
    size: Option<u64>,
    subject: &Subject<'_>,
) -> Result<Home, DebugError> {
    let at = match home {
        Home::Spilled(at) => Some(at),
        Home::SpilledFrom(register, at) => registers::after_prologue(register, subject.prologue)
            .and_then(|base| base.checked_add(at)),
        home => return Ok(home),
    };
    match at {
        // Above the return address the caller has put it.
        Some(at) if at >= 0 => return Ok(in_frame(at)),
        Some(at) => {
            if let Some(spills) = size.and_then(|size| subject.prologue.stored(at, size))
                && !spills.is_empty()
            {
                return Ok(Home::Pieces(
                    spills
                        .into_iter()
                        .map(|spill| Piece {
                            size: spill.size.into(),
                            home: Ok(match spill.origin {
                                Origin::Register(number) => Home::Register(number),
                                Origin::Caller(at) => in_frame(at),
                            }),
                        })
                        .collect(),
                ));
            }
        }
        None => return not("where its frame will be can't be told"),
    }
    not("where it is before the function stores it can't be told")
}

fn in_frame(offset: i64) -> Home {
    Home::Memory(Address {
        base: Base::Frame,
        offset,
        loads: Vec::new(),
    })
}

/// Where an object is of which `home` says where it is passed: LLVM says of one that is passed by its address, on the
/// stack, only where that address lies. In C++ that is what may not be copied as bytes (psABI, 3.2.3); in Rust what
/// is larger than two registers, for which no caller makes room among its arguments.
pub(super) fn passed(
    mut home: Home,
    type_ref: Option<TypeRef>,
    reader: &Reader<'_>,
    subject: &Subject<'_>,
) -> Result<Home, DebugError> {
    let (Home::Memory(address), Some(type_ref)) = (&mut home, type_ref) else {
        return Ok(home);
    };
    let is_on_stack = address.base == Base::Frame && address.loads.is_empty();
    if !is_on_stack || address.offset < 0 || known(subject)?.is_gcc {
        return Ok(home);
    }
    let found = reader.type_of_ref(type_ref)?;
    let is_by_address = match (subject.language, &found) {
        (
            Language::Cpp,
            Type::Structure {
                name, by_reference, ..
            },
        ) => *by_reference || abi::is_by_address(name),
        (Language::Rust, Type::Structure { .. } | Type::Variants { .. } | Type::Array { .. }) => {
            match reader.size_of(type_ref)? {
                Some(0..=8) => false,
                Some(17..) => true,
                _ => {
                    return not(
                        "whether it is passed on the stack or by its address can't be told",
                    );
                }
            }
        }
        _ => false,
    };
    if is_by_address {
        address.loads.push(0);
    }
    Ok(home)
}

/// What an argument that is never looked at is said to be.
const UNREAD: &str = "the function's code does not look at it: the compiler passes nothing to a function that does not use it";

/// Whether a function looks at what lies there when it is called.
pub(super) fn looked_at(
    home: &Home,
    size: Option<u64>,
    subject: &Subject<'_>,
) -> Result<(), DebugError> {
    let Some(reads) = subject.reads else {
        return Ok(());
    };
    let size = size.and_then(|size| i64::try_from(size).ok()).unwrap_or(8);
    let is_read = is_read(home, size, reads);
    if is_read { Ok(()) } else { not(UNREAD) }
}

fn is_read(home: &Home, size: i64, reads: &Reads) -> bool {
    match home {
        Home::Register(number) => reads.registers >> number & 1 == 1,
        Home::Memory(address) | Home::Value(address) => match address.base {
            Base::Register(number) => reads.registers >> number & 1 == 1,
            Base::Frame if address.offset >= 0 => {
                let size = if address.loads.is_empty() { size } else { 8 };
                reads.is_stack_read(address.offset, size)
            }
            _ => true,
        },
        Home::Pieces(pieces) => pieces
            .iter()
            .filter_map(|piece| Some((piece.size, piece.home.as_ref().ok()?)))
            .all(|(size, home)| is_read(home, i64::try_from(size).unwrap_or(8), reads)),
        _ => true,
    }
}

/// Where the argument with this number (from 1) is by the calling convention, as far as the debug information does not
/// say otherwise.
pub(super) fn argument(subject: &Subject<'_>, number: u8) -> Result<Home, DebugError> {
    let home = abi::argument(subject.language, number);
    let Ok(info) = &subject.info else {
        return Ok(home);
    };
    if subject.language == Language::Go || subject.future.is_some() || info.is_variadic {
        return Ok(home);
    }
    let reader = Reader::new(info);
    let has_room = info.result.is_some_and(|type_ref| {
        let result = abi::result(&reader, subject.language, info.rustc, type_ref);
        !matches!(result, Ok(Home::Register(_) | Home::Pieces(_)))
    });
    let mut places = u64::from(has_room);
    let mut is_plain = !has_room;
    for parameter in &info.parameters {
        let size = match parameter.type_ref {
            Some(type_ref) => reader.size_of(type_ref)?.unwrap_or(8),
            None => 8,
        };
        is_plain &= match parameter.type_ref {
            Some(type_ref) => abi::is_number(&reader.type_of_ref(type_ref)?),
            None => false,
        };
        places = places.saturating_add(size.div_ceil(8).max(1));
        if !is_plain || places != u64::from(number) {
            continue;
        }
        // This one: every argument before it is a number, too.
        let found = info
            .home_at_entry(parameter, subject.address, subject.address)
            .and_then(|home| before_stored(home, Some(size), subject));
        let moved = match (&found, &home) {
            (Ok(Home::Register(found)), Home::Register(wanted)) => found != wanted,
            (Ok(_), _) => false,
            // Who knows all callers need not pass it.
            (Err(_), _) => subject.certainty != Certainty::Whole,
        };
        if moved {
            return not(
                "the compiler passes this function other arguments than the source says, or elsewhere; by its name it is read where it is",
            );
        }
    }
    if u64::from(number) > places {
        return not(match info.parameters.len() {
            0 => "the function has no parameters".to_owned(),
            1 => "the function has 1 parameter".to_owned(),
            more => format!("the function has {more} parameters"),
        });
    }
    Ok(home)
}

/// Memory that a pointer points to.
pub(super) fn behind(pointer: Home, loads: Vec<i64>) -> Result<Home, DebugError> {
    let mut address = match pointer {
        Home::Memory(mut address) => {
            address.loads.push(0);
            address
        }
        Home::Pieces(pieces) => match pieces.as_slice() {
            [
                Piece {
                    home: Ok(Home::Register(number)),
                    size: 8,
                },
            ] => Address {
                base: Base::Register(*number),
                offset: 0,
                loads: Vec::new(),
            },
            _ => return not("its address lies across registers"),
        },
        _ => return not("where its address is can't be told"),
    };
    let mut loads = loads.into_iter();
    address.offset = address.offset.wrapping_add(loads.next().unwrap_or(0));
    address.loads.extend(loads);
    Ok(Home::Memory(address))
}

/// The result: of a Go function the one that `path` names, or the first.
pub(super) fn result_value<'a>(
    subject: &Subject<'a>,
    number: usize,
) -> Result<(Reader<'a>, Value), DebugError> {
    let info = known(subject)?;
    let reader = Reader::new(info);
    if subject.language == Language::Go {
        let types = go_result_types(info);
        let Some(type_ref) = types.get(number) else {
            return not("the function returns nothing");
        };
        let home = match abi::go_results(&reader, &types)?.into_iter().nth(number) {
            Some(Ok(home)) => home,
            Some(Err(reason)) => return not(reason),
            None => return not("the function returns nothing"),
        };
        return Ok((reader, Value::new(home, Some(*type_ref))?));
    }
    let Some(type_ref) = info.result else {
        return not("the function returns nothing");
    };
    let home = abi::result(&reader, subject.language, info.rustc, type_ref)?;
    let home = certain(home, subject, Some(type_ref))?;
    let value = output_of(subject, &reader, Value::new(home, Some(type_ref))?)?;
    Ok((reader, value))
}

/// What a call returns, of what its function does: a poll that is ready has it in `Poll::Ready`.
fn output_of(
    subject: &Subject<'_>,
    reader: &Reader<'_>,
    value: Value,
) -> Result<Value, DebugError> {
    if subject.future.is_none() {
        return Ok(value);
    }
    let found = reader.type_of(&value)?;
    reader.variant_content(&value, &found, "Ready")
}

/// The type of what a call returns; `None` for nothing.
pub(super) fn result_type(
    subject: &Subject<'_>,
    reader: &Reader<'_>,
) -> Result<Option<TypeRef>, DebugError> {
    let Some(type_ref) = known(subject)?.result else {
        return Ok(None);
    };
    // Where it lies does not matter to what it is.
    let value = Value::new(in_frame(0), Some(type_ref))?;
    output_of(subject, reader, value).map(|value| value.type_ref)
}

pub(super) fn go_result_types(info: &FunctionInfo<'_>) -> Vec<TypeRef> {
    info.parameters
        .iter()
        .filter(|parameter| parameter.is_result)
        .filter_map(|parameter| parameter.type_ref)
        .collect()
}

/// Whether a function returns what its type says, as far as its file proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// It does.
    Whole,
    /// Callers look at these registers, by DWARF number, bit by bit.
    Registers(u16),
    /// The same, but not all callers were looked at.
    Unfinished(u16),
    /// Other functions have the same code: whose result it is can't be told.
    Shared,
}

/// What a result that the compiler may have dropped is said to be.
const DROPPED: &str = "only this file calls the function, and no caller is seen to use the result: the compiler drops results that no caller uses, or that are always the same";
const UNFINISHED: &str = "only this file calls the function, and there was no time to look at all callers for one that uses the result: the compiler drops results that no caller uses, or that are always the same";
const SHARED: &str = "other functions were given the same code, and only this file calls it: whose result it is can't be told";

/// Where a result is, if it is one.
pub(super) fn certain(
    home: Home,
    subject: &Subject<'_>,
    type_ref: Option<TypeRef>,
) -> Result<Home, DebugError> {
    let (looked_at, reason) = match subject.certainty {
        Certainty::Whole => return Ok(home),
        Certainty::Registers(looked_at) => (looked_at, DROPPED),
        Certainty::Unfinished(looked_at) => (looked_at, UNFINISHED),
        Certainty::Shared => (0, SHARED),
    };
    let info = subject.info.as_ref().ok();
    // What gcc drops it drops as a whole; LLVM returns less than a structure, and moves what is left together.
    let as_a_whole = info.is_some_and(|info| info.is_gcc);
    let needed = registers(&home);
    let proven = match (&home, info, type_ref) {
        // The caller has made room for it, of which nothing is dropped but with the whole result, and that by gcc.
        (Home::Memory(_), Some(info), Some(type_ref)) => {
            !as_a_whole
                || matches!(
                    info.type_of(type_ref)?,
                    Type::Structure {
                        by_reference: true,
                        ..
                    }
                )
                || is_given_room(info, subject)
        }
        _ => looked_at & needed == needed || as_a_whole && looked_at & needed != 0,
    };
    if proven { Ok(home) } else { not(reason) }
}

/// Whether something stands before the first parameter: the address of the room for a result.
fn is_given_room(info: &FunctionInfo<'_>, subject: &Subject<'_>) -> bool {
    let Some(parameter) = info.parameters.first() else {
        return false;
    };
    let home = info
        .home_at_entry(parameter, subject.address, subject.address)
        .and_then(|home| before_stored(home, Some(1), subject));
    home.is_ok_and(|home| abi::begins_with_second(&home))
}

/// The registers of a value, by DWARF number, bit by bit.
fn registers(home: &Home) -> u16 {
    match home {
        Home::Register(number) => 1u16.checked_shl((*number).into()).unwrap_or(0),
        Home::Pieces(pieces) => pieces
            .iter()
            .filter_map(|piece| piece.home.as_ref().ok())
            .fold(0, |bits, home| bits | registers(home)),
        _ => 0,
    }
}

/// Registers in which a function returns something, by its type; 0 for none.
pub(crate) fn returns(info: &FunctionInfo<'_>) -> u16 {
    let language = match info.rustc {
        Some(_) => Language::Rust,
        None => Language::Cpp,
    };
    let home = info
        .result
        .and_then(|type_ref| abi::result(&Reader::new(info), language, info.rustc, type_ref).ok());
    home.as_ref().map_or(0, registers)
}
