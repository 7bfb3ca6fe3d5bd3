//! Jump tables: where an indirect jump can go.
//!
//! Compilers make two kinds on x86-64: 32-bit distances from the table's own start (position
//! independent: `lea table, movsxd, add, jmp`), and 64-bit addresses (`jmp [table + index * 8]`).
//! Both lie in read-only data. A table is believed only if every entry that the bound allows is an
//! instruction of this function; without a bound, entries are read until one is not.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::{Code, ReadData, flow::is_immediate};

/// Entries of a table that are read.
const MAX_ENTRIES: usize = 8192;
/// Instructions before the jump that are searched for the table's address.
const SEARCH: usize = 32;
/// Instructions before the jump that are searched for the bound.
const BOUND_SEARCH: usize = 24;

/// What an indirect jump is.
pub(super) enum Indirect {
    /// A switch: indexes of its destinations.
    Table(Vec<usize>),
    /// Not a switch.
    NoTable,
    /// A switch whose table was not found.
    Unknown,
}

/// Finds out what the indirect jump at `index` is.
pub(super) fn resolve(code: &Code, index: usize, read_data: &ReadData<'_>) -> Indirect {
    let jump = &code.instructions()[index];
    if jump.op0_kind() == OpKind::Memory {
        if jump.memory_index() == Register::None {
            return Indirect::NoTable; // through a pointer: jmp [rip + got], jmp [rax + 24]
        }
        let address = if jump.memory_base() == Register::None {
            Some(jump.memory_displacement64())
        } else {
            nearest_lea(code, index, jump.memory_base())
        };
        return match address.and_then(|table| absolute(code, index, table, read_data)) {
            Some(destinations) => Indirect::Table(destinations),
            None => Indirect::Unknown,
        };
    }
    let register = jump.op0_register();
    let computed = computed_by_add(code, index, register);
    for table in candidates(code, index) {
        let found = match table {
            Candidate::Distances(table) if computed => distances(code, index, table, read_data),
            Candidate::Addresses(table) if !computed => absolute(code, index, table, read_data),
            _ => None,
        };
        if let Some(destinations) = found {
            return Indirect::Table(destinations);
        }
    }
    if computed || loaded_with_index(code, index, register) {
        Indirect::Unknown
    } else {
        Indirect::NoTable
    }
}

enum Candidate {
    Distances(u64),
    Addresses(u64),
}

/// The instructions before `index`, nearest first, within its part.
fn before(code: &Code, index: usize) -> impl Iterator<Item = &Instruction> {
    let mut at = index;
    std::iter::from_fn(move || {
        if at == 0 || code.starts_part(at) {
            return None;
        }
        at -= 1;
        code.instructions().get(at)
    })
}

/// Whether the register is the sum of two, as of a table and a distance.
fn computed_by_add(code: &Code, index: usize, register: Register) -> bool {
    before(code, index)
        .take(4)
        .find(|instruction| {
            instruction.op_count() > 0
                && instruction.op0_kind() == OpKind::Register
                && instruction.op0_register().full_register() == register
                && !matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test)
        })
        .is_some_and(|instruction| {
            instruction.mnemonic() == Mnemonic::Add
                && matches!(instruction.op1_kind(), OpKind::Register | OpKind::Memory)
        })
}

/// Whether the register was loaded from `[... + index * 8]`.
fn loaded_with_index(code: &Code, index: usize, register: Register) -> bool {
    before(code, index)
        .take(4)
        .find(|instruction| {
            instruction.op_count() > 0
                && instruction.op0_kind() == OpKind::Register
                && instruction.op0_register() == register
        })
        .is_some_and(|instruction| {
            instruction.mnemonic() == Mnemonic::Mov
                && instruction.op1_kind() == OpKind::Memory
                && instruction.memory_index() != Register::None
                && instruction.memory_index_scale() == 8
                && instruction.memory_base() == Register::None
        })
}

fn nearest_lea(code: &Code, index: usize, register: Register) -> Option<u64> {
    before(code, index)
        .take(SEARCH)
        .find_map(|instruction| lea_target(instruction, Some(register)))
}

fn lea_target(instruction: &Instruction, register: Option<Register>) -> Option<u64> {
    let matches = instruction.mnemonic() == Mnemonic::Lea
        && instruction.is_ip_rel_memory_operand()
        && register.is_none_or(|register| instruction.op0_register() == register);
    matches.then(|| instruction.ip_rel_memory_address())
}

/// Addresses that may be the table's: near ones first, then all that the function computes (the
/// compiler moves the address of a table out of a loop).
fn candidates(code: &Code, index: usize) -> Vec<Candidate> {
    let mut found = Vec::new();
    let absolute = |instruction: &Instruction| {
        let operand = instruction.mnemonic() == Mnemonic::Mov
            && instruction.op_count() > 1
            && instruction.op1_kind() == OpKind::Memory
            && instruction.memory_base() == Register::None
            && instruction.memory_index() != Register::None
            && instruction.memory_index_scale() == 8;
        operand.then(|| instruction.memory_displacement64())
    };
    for instruction in before(code, index).take(SEARCH) {
        if let Some(table) = lea_target(instruction, None) {
            found.push(Candidate::Distances(table));
        }
        if let Some(table) = absolute(instruction) {
            found.push(Candidate::Addresses(table));
        }
        // Computed from an address in a register that is an immediate: mov edi, table
    }
    for instruction in code.instructions() {
        if found.len() > 256 {
            break;
        }
        if let Some(table) = lea_target(instruction, None) {
            found.push(Candidate::Distances(table));
        }
    }
    found
}

/// Number of entries that a comparison before the jump allows.
fn bound(code: &Code, index: usize) -> Option<usize> {
    let mut branch = None;
    for instruction in before(code, index).take(BOUND_SEARCH) {
        match instruction.mnemonic() {
            Mnemonic::Ja | Mnemonic::Jbe => branch = Some(1),
            Mnemonic::Jae | Mnemonic::Jb => branch = Some(0),
            Mnemonic::Cmp if is_immediate(instruction) => {
                if let Some(more) = branch {
                    let count = (instruction.immediate(1) as usize).checked_add(more)?;
                    return (1..=MAX_ENTRIES).contains(&count).then_some(count);
                }
            }
            Mnemonic::Call | Mnemonic::Ret => return None,
            _ => {}
        }
    }
    None
}

fn distances(
    code: &Code,
    index: usize,
    table: u64,
    read_data: &ReadData<'_>,
) -> Option<Vec<usize>> {
    entries(code, index, table, 4, read_data, |bytes| {
        let distance = i32::from_le_bytes(bytes.try_into().ok()?);
        Some(table.wrapping_add(distance as i64 as u64))
    })
}

fn absolute(code: &Code, index: usize, table: u64, read_data: &ReadData<'_>) -> Option<Vec<usize>> {
    entries(code, index, table, 8, read_data, |bytes| {
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    })
}

fn entries(
    code: &Code,
    index: usize,
    table: u64,
    width: usize,
    read_data: &ReadData<'_>,
    target: impl Fn(&[u8]) -> Option<u64>,
) -> Option<Vec<usize>> {
    if code.contains(table) {
        return None; // data in code is not believed
    }
    let destination = |bytes: &[u8]| target(bytes).and_then(|address| code.at(address));
    if let Some(count) = bound(code, index)
        && let Some(bytes) = read_data(table, count * width)
    {
        let all: Option<Vec<usize>> = bytes.chunks_exact(width).map(destination).collect();
        if all.as_ref().is_some_and(|all| all.len() == count) {
            return all;
        }
    }
    // No bound, or not this switch's: a run of entries that all make sense. More than the table
    // holds may be read; that only adds destinations, and forbids sites rather than allowing any.
    let mut found = Vec::new();
    for entry in 0..MAX_ENTRIES {
        let address = table.checked_add((entry * width) as u64)?;
        match read_data(address, width).as_deref().and_then(destination) {
            Some(to) => found.push(to),
            None => break,
        }
    }
    (found.len() >= 2).then_some(found)
}
