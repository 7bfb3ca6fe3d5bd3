//! Values: where a variable, or a part of it, is.

use teracron_common::plan::Code;

use super::builder::Builder;
use image::debug::{Address, Base, DebugError, Home, Piece, TypeRef, not};

type Result<T> = std::result::Result<T, DebugError>;

/// A part of a variable: where it is.
#[derive(Clone, Debug)]
pub(super) struct Value {
    place: Place,
    /// What it is.
    pub type_ref: Option<TypeRef>,
    /// Only these bits of it: the first and how many.
    bits: Option<(u8, u8)>,
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
    pub(super) fn new(home: Home, type_ref: Option<TypeRef>) -> Result<Self> {
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
        Ok(Self {
            place,
            type_ref,
            bits: None,
        })
    }

    /// The part that begins `offset` bytes further.
    pub(super) fn part(&self, offset: u64, type_ref: TypeRef) -> Self {
        let place = match &self.place {
            Place::Memory(address) => Place::Memory(moved(address, offset)),
            Place::Inline(pieces, start) => {
                Place::Inline(pieces.clone(), start.saturating_add(offset))
            }
        };
        Self {
            place,
            type_ref: Some(type_ref),
            bits: None,
        }
    }

    /// A bit field that begins `first` bits into the byte at `offset`: bits of a number of its type, which lies
    /// at a multiple of that type's size.
    ///
    /// # Errors
    /// Where it does not.
    pub(super) fn bit_field(
        &self,
        offset: u64,
        (first, count): (u8, u8),
        type_ref: TypeRef,
        size: u64,
    ) -> Result<Self> {
        let inside = if size == 0 { 0 } else { offset % size };
        let first = inside * 8 + u64::from(first);
        if count == 0 || first + u64::from(count) > size.min(8) * 8 {
            return not("it is a bit field that is packed");
        }
        let mut value = self.part(offset - inside, type_ref);
        value.bits = Some((first as u8, count));
        Ok(value)
    }

    /// What it points to.
    ///
    /// # Errors
    /// Where the pointer lies across registers.
    pub(super) fn target(&self, to: Option<TypeRef>) -> Result<Self> {
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
            bits: None,
        })
    }

    /// Makes the plan's value `size` bytes of it.
    pub(super) fn scalar(
        &self,
        builder: &mut Builder,
        size: u8,
        signed: bool,
        key: u8,
    ) -> Result<()> {
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
        let mut count = size * 8;
        if let Some((first, bits)) = self.bits {
            builder.push(Code::Bits, first, u64::MAX >> (64 - bits));
            count = bits;
        }
        if signed && count < 64 {
            builder.push(Code::Sign, count, 0);
        }
        Ok(())
    }

    /// Makes the plan's value its address.
    pub(super) fn address(&self, builder: &mut Builder, key: u8) -> Result<()> {
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
pub(super) fn mask(size: u8) -> u64 {
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
    let mut from = 0u64;
    for piece in pieces {
        let end = from.saturating_add(piece.size);
        if start >= from && start.saturating_add(size) <= end {
            return match &piece.home {
                Ok(home) => Ok((home, start - from)),
                Err(reason) => not(*reason),
            };
        }
        from = end;
    }
    not("it lies across registers")
}

impl Value {
    /// Bytes at a distance, of no type.
    pub(super) fn part_at(&self, offset: i64) -> Self {
        let place = match &self.place {
            Place::Memory(address) => Place::Memory(moved(address, offset as u64)),
            Place::Inline(pieces, start) => {
                Place::Inline(pieces.clone(), start.wrapping_add(offset as u64))
            }
        };
        Self {
            place,
            type_ref: None,
            bits: None,
        }
    }
}
