//! What a Go program's file says: its version, the runtime's layouts that follow from it, its function
//! table, and the names of its types.
//!
//! Sources: `debug/buildinfo`, `debug/gosym` and `internal/abi` of the Go distribution; the offsets were
//! read from the debug information of programs built with Go 1.21 to 1.27.

use teracron_common::RecoverCookie;

use super::{Origin, Symbol, SymbolKind};
use crate::foreign::{Budget, Cost, Exceeded};

/// Names longer than this are cut, in bytes.
const MAX_NAME: usize = 1024;
/// What is kept of a function besides its name, in bytes, with what lists grow by.
const KEPT: u64 = 160;
/// Functions of a table that are read.
const MAX_FUNCTIONS: u64 = 2_000_000;
/// `\xff Go buildinf:`.
const BUILD_INFO: &[u8] = b"\xff Go buildinf:";

/// What is known of a Go program.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GoProgram {
    /// Minor version of Go 1; `None` where it is not known.
    pub version: Option<u32>,
    /// Address of the types that offsets are counted from, where it is known.
    pub types: Option<u64>,
}

/// Layouts of the runtime that kernel programs need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoLayout {
    /// Offset of `g.goid`.
    pub goid: u16,
    /// Where the stack pointer of a recovering frame is found; `None` where it is not known.
    pub recover: Option<RecoverCookie>,
}

impl GoProgram {
    /// The layouts of this version, or why they are not known.
    ///
    /// # Errors
    /// For versions before 1.17, which pass arguments on the stack, and unknown ones.
    pub fn layout(&self) -> Result<GoLayout, String> {
        let Some(version) = self.version else {
            return Err("which version of Go compiled it is not known".to_owned());
        };
        if version < 17 {
            return Err(format!(
                "it was compiled by Go 1.{version}; 1.17 is the oldest that can be traced"
            ));
        }
        let in_panic = |offset, value| RecoverCookie {
            in_panic: true,
            offset,
            value,
        };
        let in_goroutine = |offset| RecoverCookie {
            in_panic: false,
            offset,
            value: 0,
        };
        Ok(GoLayout {
            goid: if matches!(version, 23 | 24) { 160 } else { 152 },
            recover: match version {
                // Versions before 1.22 keep it in the goroutine (`g.sigcode0`); the code says where.
                17 | 18 | 20 => None,
                19 => Some(in_goroutine(272)),
                21 => Some(in_goroutine(248)),
                22..=25 => Some(in_panic(48, 8)),
                26 => Some(in_panic(40, 0)),
                // Newer ones are taken to be like the newest that was looked at.
                _ => Some(in_panic(48, 0)),
            },
        })
    }
}

/// Minor version of Go 1, from `.go.buildinfo`.
pub(super) fn version(build_info: &[u8]) -> Option<u32> {
    let rest = build_info.strip_prefix(BUILD_INFO)?;
    // Since 1.18 the version follows at 32, with its length before it.
    let flags = *rest.get(1)?;
    if flags & 2 == 0 {
        // Before, there was a pointer to it; 1.17 is the only one of these that matters.
        return Some(17);
    }
    let len = usize::from(*build_info.get(32)?);
    let text = std::str::from_utf8(build_info.get(33..33 + len)?).ok()?;
    // A compiler built from source says `devel go1.28-abcdef`.
    let text = text.split("go1.").nth(1)?;
    text.split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

/// A function's name as Go writes it: the types of a generic function's instance are an implementation's
/// business (`shop.Process[go.shape.int]` is `shop.Process[...]`).
pub fn plain_name(symbol: &str) -> String {
    let Some(open) = symbol.find('[') else {
        return symbol.to_owned();
    };
    let Some(close) = symbol.rfind(']').filter(|close| *close > open) else {
        return symbol.to_owned();
    };
    format!("{}[...]{}", &symbol[..open], &symbol[close + 1..])
}

/// The functions in `.gopclntab`, for files without symbols, not checked. `text` is where the code begins, for tables
/// that count from there; `None` where it makes no sense.
///
/// # Errors
/// Where they cost too much.
pub(super) fn functions(
    table: &[u8],
    text: u64,
    budget: &Budget,
) -> Result<Option<Vec<Symbol>>, Exceeded> {
    let mut exceeded = None;
    let found = functions_in(table, text, &mut |name| {
        budget
            .take(Cost::Names, name)
            .and_then(|()| budget.take(Cost::Memory, name.saturating_add(KEPT)))
            .map_err(|error| exceeded = Some(error))
            .ok()
    });
    match exceeded {
        Some(exceeded) => Err(exceeded),
        None => Ok(found),
    }
}

/// `take`: takes a name of so many bytes from the budget.
fn functions_in(
    table: &[u8],
    text: u64,
    take: &mut dyn FnMut(u64) -> Option<()>,
) -> Option<Vec<Symbol>> {
    let word = |at: usize| -> Option<u64> {
        table
            .get(at..at.checked_add(4)?)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u32::from_le_bytes)
            .map(u64::from)
    };
    let long = |at: usize| -> Option<u64> {
        table
            .get(at..at.checked_add(8)?)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u64::from_le_bytes)
    };
    // Magic numbers of Go 1.16, 1.18 and 1.20 (debug/gosym/pclntab.go); 64-bit pointers.
    let relative = match word(0)? {
        0xffff_fff1 | 0xffff_fff0 => true,
        0xffff_fffa => false,
        _ => return None,
    };
    if *table.get(7)? != 8 {
        return None;
    }
    let count = long(8)?;
    if count == 0 || count > MAX_FUNCTIONS {
        return None;
    }
    // The header goes on with words; before 1.18 without the one for the start of the code.
    let (start, names, entries) = if relative {
        (text, long(32)?, long(64)?)
    } else {
        (0, long(24)?, long(56)?)
    };
    let (names, entries) = (usize::try_from(names).ok()?, usize::try_from(entries).ok()?);
    let step = if relative { 8 } else { 16 };
    let address_at = |index: u64| -> Option<u64> {
        let at = entries.checked_add(usize::try_from(index).ok()?.checked_mul(step)?)?;
        if relative {
            word(at)?.checked_add(start)
        } else {
            long(at)
        }
    };
    let mut found = Vec::new();
    for index in 0..count {
        let (address, next) = (address_at(index)?, address_at(index + 1)?);
        let at = entries.checked_add(usize::try_from(index).ok()?.checked_mul(step)?)?;
        let place = if relative {
            word(at + 4)?
        } else {
            long(at + 8)?
        };
        let function = entries.checked_add(usize::try_from(place).ok()?)?;
        let name_at = word(function.checked_add(if relative { 4 } else { 8 })?)?;
        let name = table
            .get(names.checked_add(usize::try_from(name_at).ok()?)?..)?
            .iter()
            .take(MAX_NAME)
            .take_while(|byte| **byte != 0)
            .copied()
            .collect::<Vec<u8>>();
        if name.is_empty() || next <= address {
            continue;
        }
        take(name.len() as u64)?;
        found.push(Symbol {
            version: None,
            name: String::from_utf8_lossy(&name).into_owned(),
            address,
            size: next - address,
            kind: SymbolKind::Function,
            is_local: false,
            origin: Origin::GoTable,
        });
    }
    Some(found)
}

/// Reads bytes at an address of the file.
pub(super) type ReadAt<'a> = dyn Fn(u64, usize) -> Option<Vec<u8>> + 'a;

/// The name of the type at an address (`internal/abi.Type`), whose names are counted from `types`.
pub(super) fn type_name(address: u64, types: u64, read: &ReadAt<'_>) -> Option<String> {
    /// `Type.TFlag`, and the flag that the name has a star too many.
    const FLAGS: usize = 20;
    const EXTRA_STAR: u8 = 2;
    /// `Type.Str`: offset of the name.
    const NAME: usize = 40;
    let head = read(address, 48)?;
    let offset = i32::from_le_bytes(head.get(NAME..NAME + 4)?.try_into().ok()?);
    let name = types.checked_add_signed(offset.into())?;
    // A byte of flags, the length as a varint, the text.
    let start = read(name, 11)?;
    let (mut len, mut shift, mut at) = (0usize, 0, 1);
    loop {
        let byte = *start.get(at)?;
        len |= usize::from(byte & 0x7f) << shift;
        at += 1;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
        if shift > 21 {
            return None;
        }
    }
    let text = read(name.checked_add(at as u64)?, len.min(MAX_NAME))?;
    let text = String::from_utf8(text).ok()?;
    if text.is_empty() || text.chars().any(char::is_control) {
        return None;
    }
    Some(if head.get(FLAGS)? & EXTRA_STAR != 0 {
        text.strip_prefix('*').unwrap_or(&text).to_owned()
    } else {
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions() {
        let mut info = b"\xff Go buildinf:\x08\x02".to_vec();
        info.resize(32, 0);
        info.extend_from_slice(b"\x08go1.27.3");
        assert_eq!(version(&info), Some(27));
        info.truncate(32);
        info.extend_from_slice(b"\x12devel go1.28-abcde");
        assert_eq!(version(&info), Some(28));
        assert_eq!(version(b"\xff Go buildinf:\x08\x00"), Some(17));
        assert_eq!(version(b"nothing"), None);
    }

    #[test]
    fn generic_names() {
        assert_eq!(plain_name("main.(*Server).handle"), "main.(*Server).handle");
        assert_eq!(
            plain_name("shop.Process[go.shape.int]"),
            "shop.Process[...]"
        );
        assert_eq!(
            plain_name("shop.(*Set[go.shape.[]int]).Add.func1"),
            "shop.(*Set[...]).Add.func1"
        );
        assert_eq!(plain_name("x]["), "x][");
    }

    proptest! {
        #[test]
        fn never_panics(mut table in proptest::collection::vec(any::<u8>(), 0..300), magic in 0..3usize) {
            if table.len() > 80 {
                let magic = [0xffff_fff1u32, 0xffff_fff0, 0xffff_fffa][magic];
                table[..4].copy_from_slice(&magic.to_le_bytes());
                table[7] = 8;
                for byte in &mut table[9..16] { *byte = 0; }
            }
            let _ = functions(&table, 0x1000, &Budget::default());
            let _ = version(&table);
            let _ = type_name(0, 0, &|at, len| table.get(at as usize..(at as usize).checked_add(len)?).map(<[u8]>::to_vec));
        }
    }
}
