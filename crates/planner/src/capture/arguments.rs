//! Where arguments are when a function is called. Debug information says where variables are, and that is not the same:
//! a variable that is changed before the first instruction is where its new value is, one for which a compiler keeps a
//! register has the register before the argument is in it.

use super::{
    locate::Certainty,
    plan::Subject,
    reader::Reader,
    x86_64::{abi, registers},
};
use image::{
    debug::{Base, DebugError, FunctionInfo, Home, Parameter, not},
    symbol::Language,
};

/// What is said to be where no caller puts anything.
const MOVED: &str =
    "the debug information says where it is later, not where it is when the function is called";
/// What can't all be true.
const TWICE: &str = "the debug information has two parameters in one register, or in another order than they are passed";

/// Where a parameter is at the entry site, before which no register of an argument is written.
pub(super) fn at_entry_site(
    info: &FunctionInfo<'_>,
    subject: &Subject<'_>,
    parameter: &Parameter,
    address: u64,
) -> Result<Home, DebugError> {
    let home = place(info, subject, parameter, address)?;
    if subject.language == Language::Go {
        return Ok(home);
    }
    if !is_passed_there(&home, subject) {
        return not(MOVED);
    }
    let Some([first, last]) = ranks(&home) else {
        return Ok(home);
    };
    let mut is_before = true;
    // Behind the last one that is passed in a register.
    let mut expected = 0;
    for other in info.parameters.iter().filter(|other| !other.is_result) {
        if std::ptr::eq(other, parameter) {
            is_before = false;
            continue;
        }
        let found = place(info, subject, other, address).ok();
        let Some([their_first, their_last]) = found.as_ref().and_then(ranks) else {
            continue;
        };
        let fits = match is_before {
            true => their_last < first,
            false => last < their_first,
        };
        if !fits {
            return not(TWICE);
        }
        if is_before {
            expected = their_last + 1;
        }
    }
    // GCC tells of one register for the whole function where the argument stays in its own, and where it keeps no
    // account of what moves (`-fno-var-tracking`, and `register` without optimisation).
    let in_its_own =
        first == expected || expected == 0 && first == 1 && may_be_given_room(info, subject);
    if info.is_gcc && info.is_in_one_place(parameter) && !in_its_own {
        return not(MOVED);
    }
    Ok(home)
}

/// Whether the address of the room for a result may be passed before all parameters.
fn may_be_given_room(info: &FunctionInfo<'_>, subject: &Subject<'_>) -> bool {
    let reader = Reader::new(info);
    info.result.is_some_and(|type_ref| {
        let result = abi::result(&reader, subject.language, info.rustc, type_ref);
        !matches!(result, Ok(Home::Register(_) | Home::Pieces(_)))
    })
}

/// A stack or frame pointer in a list is one behind the prologue, as clang writes it.
fn place(
    info: &FunctionInfo<'_>,
    subject: &Subject<'_>,
    parameter: &Parameter,
    address: u64,
) -> Result<Home, DebugError> {
    let home = info.home_at_entry(parameter, subject.address, address)?;
    Ok(match home {
        Home::Memory(found) => match found.base {
            Base::Register(number) if registers::is_of_frame(number) && found.loads.is_empty() => {
                Home::SpilledFrom(number, found.offset)
            }
            _ => Home::Memory(found),
        },
        home => home,
    })
}

fn is_passed_there(home: &Home, subject: &Subject<'_>) -> bool {
    match home {
        Home::Register(number) => abi::rank(*number).is_some(),
        Home::Memory(address) | Home::Value(address) => match address.base {
            Base::Register(number) => abi::rank(number).is_some(),
            // Where all callers are known it may be what all of them pass.
            Base::Nothing => subject.certainty != Certainty::Whole,
            Base::Frame | Base::Kept => true,
        },
        Home::Pieces(pieces) => pieces
            .iter()
            .filter_map(|piece| piece.home.as_ref().ok())
            .all(|home| is_passed_there(home, subject)),
        Home::Spilled(_) | Home::SpilledFrom(..) | Home::Behind(..) => true,
    }
}

/// The first and the last of the registers that a caller fills for it, by their order.
fn ranks(home: &Home) -> Option<[usize; 2]> {
    let one = |number: u8| abi::rank(number).map(|rank| [rank; 2]);
    match home {
        Home::Register(number) => one(*number),
        Home::Memory(address) | Home::Value(address) => match address.base {
            Base::Register(number) => one(number),
            _ => None,
        },
        Home::Pieces(pieces) => pieces
            .iter()
            .filter_map(|piece| ranks(piece.home.as_ref().ok()?))
            .reduce(|[first, last], [their_first, their_last]| {
                [first.min(their_first), last.max(their_last)]
            }),
        _ => None,
    }
}
