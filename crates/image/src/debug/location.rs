//! Where a variable lies at an address: DWARF's location expressions, as far as compilers write them
//! for parameters, taken apart into a base and offsets.

use gimli::{AttributeValue, Expression, Operation, RawLocListEntry, Register};

use super::{DebugError, not, reader::Section, units::Unit};

/// What an address is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// A register, as DWARF numbers them.
    Register(u8),
    /// The frame address (CFA).
    Frame,
    /// Zero: the rest is the value.
    Nothing,
    /// What the entry site has kept for the exit.
    Kept,
}

/// A number that is computed: base plus offset, then as often as there are more offsets, what lies in
/// memory there plus the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// What it is counted from.
    pub base: Base,
    /// Added to the base.
    pub offset: i64,
    /// Each: eight bytes are loaded, and this is added.
    pub loads: Vec<i64>,
}

/// Where a variable is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// In memory.
    Memory(Address),
    /// In a register.
    Register(u8),
    /// It is nowhere, but this is its value.
    Value(Address),
    /// In parts.
    Pieces(Vec<Piece>),
    /// In memory at this distance from the frame address from the end of the prologue on; before,
    /// in the register that the prologue stores there.
    Spilled(i64),
    /// The same, counted from a frame pointer or stack pointer that the prologue sets.
    SpilledFrom(u8, i64),
    /// In memory that a spilled pointer points to: [`Address::loads`] from there on.
    Behind(Box<Home>, Vec<i64>),
}

/// A part of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Bytes.
    pub size: u64,
    /// Where, or why that is not known.
    pub home: Result<Home, &'static str>,
}

/// Operations of an expression that are followed.
const MAX_OPERATIONS: usize = 64;
/// Memory that an expression goes through.
const MAX_LOADS: usize = 4;
/// What is not followed.
const COMPUTED: &str = "its location is computed in a way that is not understood";
/// DWARF's number of `xmm0` (psABI, figure 3.36).
const FIRST_VECTOR: u16 = 17;

/// Entries of a list that are looked at for one that begins with a function.
const MAX_ENTRIES: usize = 10_000;

/// Where a variable is when the function at `start` is called, as far as that differs from where it is at its first
/// instruction: GCC lists a place for no instruction at all where it thinks of the variable as changed before the first
/// one (`-gvariable-location-views`).
pub(super) fn at_start(
    unit: &Unit,
    frame_base: Option<&Expression<Section>>,
    location: Option<AttributeValue<Section>>,
    start: u64,
) -> Result<Option<Home>, DebugError> {
    let Some(location) = location else {
        return Ok(None);
    };
    let Some(offset) = unit.dwarf.attr_locations_offset(unit, location)? else {
        return Ok(None);
    };
    let mut list = unit.dwarf.raw_locations(unit, offset)?;
    let mut base = unit.low_pc;
    for _ in 0..MAX_ENTRIES {
        let Some(entry) = list.next()? else {
            break;
        };
        let (begin, is_empty, data) = match entry {
            RawLocListEntry::BaseAddress { addr } => {
                base = addr;
                continue;
            }
            RawLocListEntry::BaseAddressx { addr } => {
                base = unit.dwarf.address(unit, addr)?;
                continue;
            }
            RawLocListEntry::AddressOrOffsetPair { begin, end, data }
            | RawLocListEntry::OffsetPair { begin, end, data } => {
                (base.wrapping_add(begin), begin == end, data)
            }
            RawLocListEntry::StartEnd { begin, end, data } => (begin, begin == end, data),
            RawLocListEntry::StartLength {
                begin,
                length,
                data,
            } => (begin, length == 0, data),
            RawLocListEntry::StartxLength {
                begin,
                length,
                data,
            } => (unit.dwarf.address(unit, begin)?, length == 0, data),
            RawLocListEntry::StartxEndx { begin, end, data } => {
                let begin = unit.dwarf.address(unit, begin)?;
                (begin, begin == unit.dwarf.address(unit, end)?, data)
            }
            RawLocListEntry::DefaultLocation { .. } => continue,
        };
        if begin == start && is_empty {
            let evaluation = Evaluation {
                unit,
                frame_base,
                from_list: true,
            };
            return evaluation.home(data).map(Some);
        }
    }
    Ok(None)
}

/// Reads a location attribute.
pub(super) fn at(
    unit: &Unit,
    frame_base: Option<&Expression<Section>>,
    location: Option<AttributeValue<Section>>,
    address: u64,
) -> Result<Home, DebugError> {
    let Some(location) = location else {
        return not("it was optimised away");
    };
    let reader = Evaluation {
        unit,
        frame_base,
        from_list: true,
    };
    if let Some(expression) = location.exprloc_value() {
        return Evaluation {
            from_list: false,
            ..reader
        }
        .home(expression);
    }
    let Some(mut list) = unit.dwarf.attr_locations(unit, location)? else {
        return not("its location is written in a way that is not understood");
    };
    let mut known = false;
    while let Some(entry) = list.next()? {
        known = true;
        if (entry.range.begin..entry.range.end).contains(&address) {
            return reader.home(entry.data);
        }
    }
    if known {
        not("it is not in a known place where the probe sits (optimised away there)")
    } else {
        not("it was optimised away")
    }
}

struct Evaluation<'a> {
    unit: &'a Unit,
    frame_base: Option<&'a Expression<Section>>,
    /// The expression is one of a list, each for a range of addresses; else it is for the whole
    /// function, and where it names the frame, true only once the frame is there.
    from_list: bool,
}

impl Evaluation<'_> {
    fn home(&self, expression: Expression<Section>) -> Result<Home, DebugError> {
        let mut operations = expression.operations(self.unit.encoding());
        let mut current: Option<Home> = None;
        let mut pieces: Vec<Piece> = Vec::new();
        // clang computes what is shorter than its register: `breg4 0, constu 0xffffffff, and, convert, stack_value`.
        let mut mask = None;
        let mut shortened = None;
        for _ in 0..MAX_OPERATIONS {
            let Some(operation) = operations.next()? else {
                if mask.is_some() || shortened.is_some() {
                    return not(COMPUTED);
                }
                return match (current, pieces.is_empty()) {
                    (Some(home), true) => Ok(home),
                    (None, false) => Ok(Home::Pieces(pieces)),
                    (None, true) => not("it was optimised away"),
                    (Some(_), false) => not("its location has a part without a size"),
                };
            };
            if let Operation::Piece {
                size_in_bits,
                bit_offset: None,
            } = operation
                && size_in_bits % 8 == 0
            {
                pieces.push(Piece {
                    size: size_in_bits / 8,
                    home: current.take().ok_or("it was optimised away"),
                });
                continue;
            }
            match (&current, &operation) {
                (Some(Home::Memory(address)), Operation::UnsignedConstant { value })
                    if mask.is_none() && address.loads.is_empty() =>
                {
                    mask = Some(*value);
                    continue;
                }
                (Some(_), Operation::And) if mask.is_some() => {
                    shortened = match mask.take() {
                        Some(0xff) => Some(1),
                        Some(0xffff) => Some(2),
                        Some(0xffff_ffff) => Some(4),
                        _ => return not(COMPUTED),
                    };
                    continue;
                }
                // To a size that the type has, too: no more bytes are read than were left.
                (Some(_), Operation::Convert { .. }) if shortened.is_some() => continue,
                (_, Operation::StackValue) if mask.is_none() => {}
                _ if mask.is_some() || shortened.is_some() => return not(COMPUTED),
                _ => {}
            }
            current = Some(self.apply(current, operation)?);
            if let (Some(Home::Value(address)), Some(size)) = (&current, shortened.take()) {
                current = Some(Home::Pieces(vec![Piece {
                    size,
                    home: Ok(Home::Value(address.clone())),
                }]));
            }
        }
        not("its location is longer than any compiler's")
    }

    fn apply(
        &self,
        current: Option<Home>,
        operation: Operation<Section>,
    ) -> Result<Home, DebugError> {
        let of = |base, offset| {
            Home::Memory(Address {
                base,
                offset,
                loads: Vec::new(),
            })
        };
        Ok(match (current, operation) {
            (None, Operation::Register { register }) => Home::Register(number(register)?),
            (
                None,
                Operation::RegisterOffset {
                    register, offset, ..
                },
            ) => of(Base::Register(number(register)?), offset),
            (None, Operation::FrameOffset { offset }) => self.in_frame(offset)?,
            (None, Operation::CallFrameCFA) => of(Base::Frame, 0),
            (None, Operation::UnsignedConstant { value }) => of(Base::Nothing, value as i64),
            (None, Operation::SignedConstant { value }) => of(Base::Nothing, value),
            // At the entry site the arguments are still where they were.
            (None, Operation::EntryValue { expression }) => {
                match self.home(Expression(expression))? {
                    Home::Register(register) => of(Base::Register(register), 0),
                    _ => return not(COMPUTED),
                }
            }
            (Some(Home::Memory(mut address)), Operation::PlusConstant { value }) => {
                add(&mut address, value as i64);
                Home::Memory(address)
            }
            (
                Some(Home::Memory(mut address)),
                Operation::Deref {
                    size: 8,
                    space: false,
                    ..
                },
            ) if address.loads.len() < MAX_LOADS => {
                address.loads.push(0);
                Home::Memory(address)
            }
            (
                Some(home @ (Home::Spilled(_) | Home::SpilledFrom(..))),
                Operation::Deref {
                    size: 8,
                    space: false,
                    ..
                },
            ) => Home::Behind(Box::new(home), vec![0]),
            (Some(Home::Memory(address)), Operation::StackValue) => Home::Value(address),
            (current, Operation::Nop) => match current {
                Some(home) => home,
                None => return not("its location is empty"),
            },
            _ => return not(COMPUTED),
        })
    }

    fn in_frame(&self, offset: i64) -> Result<Home, DebugError> {
        let Some(frame_base) = self.frame_base else {
            return not("its location names a frame that is not described");
        };
        let mut operations = frame_base.clone().operations(self.unit.encoding());
        let (first, second) = (operations.next()?, operations.next()?);
        let home = match (first, second) {
            (Some(Operation::CallFrameCFA), None) => {
                // Above the return address the caller has put it, which is true from the start.
                if self.from_list || offset >= 0 {
                    Home::Memory(Address {
                        base: Base::Frame,
                        offset,
                        loads: Vec::new(),
                    })
                } else {
                    Home::Spilled(offset)
                }
            }
            (Some(Operation::Register { register }), None) => {
                Home::SpilledFrom(number(register)?, offset)
            }
            _ => return not("its location names a frame that is not understood"),
        };
        Ok(home)
    }
}

fn add(address: &mut Address, value: i64) {
    let last = address.loads.last_mut().unwrap_or(&mut address.offset);
    *last = last.wrapping_add(value);
}

fn number(register: Register) -> Result<u8, DebugError> {
    match register.0 {
        number @ 0..=15 => Ok(number as u8),
        number if (FIRST_VECTOR..FIRST_VECTOR + 16).contains(&number) => {
            not("it is in a vector register, which is not read")
        }
        other => not(format!("it is in register {other}, which is not read")),
    }
}
