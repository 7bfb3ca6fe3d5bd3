//! Where arguments and results are.

use super::{
    plan::Subject,
    reader::Reader,
    value::Value,
    x86_64::{abi, registers},
};
use image::{
    debug::{Address, Base, DebugError, FunctionInfo, Home, Piece, TypeRef, not},
    symbol::Language,
};
use sites::Origin;

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
    let home = seen(home, subject)?;
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

/// What a result that the compiler may have dropped is said to be.
const DROPPED: &str = "the function is not seen to return it: the compiler drops results that no caller uses, or that are always the same";

/// A result's registers, where the function is seen to set them.
fn seen(home: Home, subject: &Subject<'_>) -> Result<Home, DebugError> {
    let Some(results) = subject.results else {
        return Ok(home);
    };
    let is_set = |home: &Home| match home {
        Home::Register(number) => results >> number & 1 == 1,
        _ => true,
    };
    Ok(match home {
        home if !is_set(&home) => return not(DROPPED),
        Home::Pieces(mut pieces) => {
            for piece in &mut pieces {
                if piece.home.as_ref().is_ok_and(|home| !is_set(home)) {
                    piece.home = Err(DROPPED);
                }
            }
            Home::Pieces(pieces)
        }
        home => home,
    })
}
