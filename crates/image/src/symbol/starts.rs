//! Where functions begin, as the probed file itself says it. Breakpoints sit on a file, so every process that maps
//! it has them; a name may come from anybody (a debug file lies where the target's owner put it). So a name only
//! points at a start, and the start must be confirmed by the file: by its unwind table, by its own symbols where
//! that does not contradict them, or by a Go program's table after that was checked (`symbol/pclntab.rs`).

use std::{cell::OnceCell, fs::File};

use super::{
    Elf, Origin, Proven, pclntab,
    unwind::{Described, Unwind, landing_pads},
};
use sites::Refusal;

/// Code larger than this is not read.
const MAX_CODE: u64 = 4 << 20;

/// Why no function is known to begin at an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unconfirmed {
    /// The address is not in code.
    #[error("at {0:#x}, where it is said to begin, the file has no code")]
    NoCode(u64),
    /// Neither table of the file has a start there.
    #[error(
        "at {at:#x}, where {who} says that it begins, the file itself (unwind table, own symbols) has no function's start"
    )]
    NoStart {
        /// The address.
        at: u64,
        /// Who names it.
        who: &'static str,
    },
    /// It lies within another function.
    #[error(
        "at {at:#x}, where {who} says that it begins, the file itself has the inside of a function that begins at {within:#x}"
    )]
    Inside {
        /// The address.
        at: u64,
        /// Where the function begins.
        within: u64,
        /// Who names it.
        who: &'static str,
    },
    /// Not an instruction.
    #[error(
        "at {at:#x}, where it is said to begin, no instruction begins (decoded from {within:#x})"
    )]
    NoBoundary {
        /// The address.
        at: u64,
        /// Where decoding began.
        within: u64,
    },
    /// The code does not bear out a Go program's table.
    #[error(
        "at {0:#x}, where the table of Go's functions has it, the code does not begin behind the end of another function, or is not whole instructions"
    )]
    NotGo(u64),
    /// The file makes no sense.
    #[error("{0}")]
    Contradiction(String),
    /// Nothing says where it ends.
    #[error("its size is not known")]
    NoSize,
    /// Too large, or not in the file.
    #[error(transparent)]
    Code(#[from] Refusal),
}

/// A function's code, whose start the file itself confirms. Only [`Starts::confirm`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    address: u64,
    end: u64,
    pads: Option<(u64, u64)>,
}

impl Start {
    /// Virtual address of its first byte.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The address behind its last byte.
    pub fn end(&self) -> u64 {
        self.end
    }
}

/// The starts of a file. It holds the unwind table, so it is made for a file's turn and dropped.
pub struct Starts<'a> {
    elf: &'a Elf,
    file: &'a File,
    unwind: OnceCell<Option<Unwind>>,
}

impl<'a> Starts<'a> {
    /// Of a file.
    pub fn of(elf: &'a Elf, file: &'a File) -> Self {
        Self {
            elf,
            file,
            unwind: OnceCell::new(),
        }
    }

    /// Its tables.
    pub fn elf(&self) -> &'a Elf {
        self.elf
    }

    /// The file.
    pub fn file(&self) -> &'a File {
        self.file
    }

    fn unwind(&self) -> Option<&Unwind> {
        self.unwind
            .get_or_init(|| Unwind::read(&self.elf.unwind, self.file, &self.elf.budget))
            .as_ref()
    }

    /// Whether the file has an unwind table that can be read. Without one only its own symbols confirm starts.
    pub fn has_unwind_table(&self) -> bool {
        self.unwind().is_some()
    }

    /// Whether the unwind table has a function that begins there.
    pub fn is_described(&self, address: u64) -> bool {
        let found = self.unwind().map(|unwind| unwind.containing(address));
        matches!(found, Some(Ok(Some(found))) if found.start == address)
    }

    /// Confirms that a function begins at an address, and says how far its code reaches; `origin`: of the symbol
    /// that names the address.
    ///
    /// # Errors
    /// Where the file itself does not say so.
    pub fn confirm(&self, address: u64, origin: Origin) -> Result<Start, Unconfirmed> {
        let who = match origin {
            Origin::Foreign => "the separate debug information",
            Origin::Exported | Origin::Own => "its symbol table",
            Origin::GoTable => "the table of Go's functions",
        };
        let segment = self
            .elf
            .segments
            .iter()
            .find(|segment| {
                let distance = address.checked_sub(segment.address);
                distance.is_some_and(|distance| distance < segment.file_size)
            })
            .filter(|segment| segment.executable)
            .ok_or(Unconfirmed::NoCode(address))?;
        let last = segment.address.saturating_add(segment.file_size);
        let described = match self.unwind() {
            Some(unwind) => unwind
                .containing(address)
                .map_err(Unconfirmed::Contradiction)?,
            None => None,
        };
        let own = self.own_size(address);
        let (end, pads) = match (described, own) {
            (Some(found), own) if found.start == address => {
                // What the file's own symbol says may be less: assembly with several entries.
                let own = own.filter(|size| *size > 0 && *size < found.end - found.start);
                let end = own.map_or(found.end, |size| address.saturating_add(size));
                (end, found.pads.map(|pads| (found.start, pads)))
            }
            (Some(found), Some(size)) => {
                self.decodes_up_to(&found, address)?;
                let end = match size {
                    0 => found.end,
                    size => found.end.min(address.saturating_add(size)),
                };
                (end, found.pads.map(|pads| (found.start, pads)))
            }
            // Some entries of the C library's assembly begin before the function, at what aligns it.
            (Some(found), None) if self.is_padding(found.start, address) => {
                (found.end, found.pads.map(|pads| (found.start, pads)))
            }
            (Some(found), None) => {
                return Err(Unconfirmed::Inside {
                    at: address,
                    within: found.start,
                    who,
                });
            }
            (None, Some(_)) if !self.is_whole_in_go(address) => {
                return Err(Unconfirmed::NotGo(address));
            }
            (None, Some(0)) => return Err(Unconfirmed::NoSize),
            (None, Some(size)) => {
                let next = self.unwind().and_then(|unwind| unwind.next_start(address));
                let end = address.saturating_add(size);
                (next.map_or(end, |next| end.min(next)), None)
            }
            (None, None) => return Err(Unconfirmed::NoStart { at: address, who }),
        };
        if end <= address || end > last {
            return Err(Refusal::Empty.into());
        }
        if end - address > MAX_CODE {
            return Err(Refusal::TooLarge.into());
        }
        Ok(Start { address, end, pads })
    }

    /// Whether nothing but nops lies between two addresses.
    fn is_padding(&self, from: u64, to: u64) -> bool {
        /// Longest alignment, in bytes.
        const MAX: u64 = 64;
        let distance = to - from;
        let bytes = (distance < MAX).then(|| self.elf.bytes(self.file, from, distance as usize));
        bytes.flatten().is_some_and(|bytes| sites::is_nops(&bytes))
    }

    /// What the file's own symbols say of the size of a function that begins there; `None` where none does.
    fn own_size(&self, address: u64) -> Option<u64> {
        let symbols = &self.elf.symbols;
        let first = symbols.partition_point(|symbol| symbol.address < address);
        symbols
            .get(first..)?
            .iter()
            .take_while(|symbol| symbol.address == address)
            .filter(|symbol| symbol.origin != Origin::Foreign)
            .map(|symbol| symbol.size)
            .max()
    }

    /// Whether the code bears out what a Go program's table says of a function; `true` where something else names it.
    fn is_whole_in_go(&self, address: u64) -> bool {
        let symbols = &self.elf.symbols;
        let first = symbols.partition_point(|symbol| symbol.address < address);
        let (before, from) = symbols.split_at(first);
        let mut own = from
            .iter()
            .take_while(|symbol| symbol.address == address)
            .filter(|symbol| symbol.origin != Origin::Foreign);
        let Some(function) = own.clone().find(|symbol| symbol.origin == Origin::GoTable) else {
            return true;
        };
        let before = before
            .iter()
            .rfind(|symbol| symbol.origin == Origin::GoTable);
        own.any(|symbol| symbol.origin != Origin::GoTable)
            || pclntab::is_function(before, function, &|at, len| {
                self.elf.bytes(self.file, at, len)
            })
    }

    /// Decodes a function from its start: a symbol within it must be at an instruction.
    fn decodes_up_to(&self, found: &Described, address: u64) -> Result<(), Unconfirmed> {
        let no_boundary = Unconfirmed::NoBoundary {
            at: address,
            within: found.start,
        };
        let distance = address - found.start;
        if distance > MAX_CODE {
            return Err(Refusal::TooLarge.into());
        }
        // The instruction there may be the last one.
        let bytes = usize::try_from(distance)
            .ok()
            .and_then(|len| self.elf.bytes_up_to(self.file, found.start, len + 15))
            .ok_or(Refusal::Empty)?;
        if sites::begins_one(&bytes, distance as usize) {
            Ok(())
        } else {
            Err(no_boundary)
        }
    }

    /// The code of a function, decoded from confirmed starts: where it begins and, if it has one, its cold half, both as
    /// `origin` names them.
    ///
    /// # Errors
    /// Where one of its parts is not confirmed, or not completely made of instructions.
    pub fn code(
        &self,
        address: u64,
        cold: Option<u64>,
        origin: Origin,
    ) -> Result<Proven, Unconfirmed> {
        let mut parts = vec![self.confirm(address, origin)?];
        if let Some(cold) = cold {
            parts.push(self.confirm(cold, origin)?);
        }
        Ok(Proven::decode(self, &parts)?)
    }

    /// The addresses at which exceptions land in a part.
    pub(super) fn landing_pads(&self, part: &Start) -> Vec<u64> {
        part.pads.map_or_else(Vec::new, |(function, at)| {
            landing_pads(self.elf, self.file, function, at)
        })
    }
}
