//! What the first straight line of a function does with its arguments: where it stores them, and
//! where it sets up the stack and frame pointers. Debug information of code that was not optimised
//! says where a parameter lies after that, and nothing of before.

use iced_x86::{
    FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};

use super::{Code, flow::is_immediate};

/// How far the line is followed, in instructions.
const MAX_INSTRUCTIONS: usize = 96;

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A register, as DWARF numbers them.
    Register(u8),
    /// The caller's part of the stack, at this distance from the frame address (CFA).
    Caller(i64),
}

/// An argument that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spill {
    /// Distance of the place from the frame address (CFA).
    pub at: i64,
    /// Bytes.
    pub size: u8,
    /// Where it was before.
    pub origin: Origin,
}

/// What is known of a function's first straight line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prologue {
    /// What is stored.
    pub spills: Vec<Spill>,
    /// The lowest `rsp`, from the frame address.
    pub rsp: Option<i64>,
    /// What `rbp` is set to, from the frame address.
    pub rbp: Option<i64>,
}

/// What a register holds: an argument's first bytes.
type Held = Option<(Origin, u8)>;

struct State {
    rsp: Option<i64>,
    rbp: Option<i64>,
    /// By DWARF number.
    held: [Held; 16],
}

impl Prologue {
    /// Reads the first straight line.
    pub fn of(code: &Code) -> Self {
        let mut state = State {
            rsp: Some(-8),
            rbp: None,
            held: std::array::from_fn(|number| Some((Origin::Register(number as u8), 8))),
        };
        let mut found = Self {
            rsp: state.rsp,
            ..Self::default()
        };
        let mut info = InstructionInfoFactory::new();
        let Some(start) = code.at(code.entry()) else {
            return found;
        };
        for index in start..start + MAX_INSTRUCTIONS {
            let Some(instruction) = code.instructions().get(index) else {
                break;
            };
            if instruction.flow_control() != FlowControl::Next
                || (index != start && code.starts_part(index))
            {
                break;
            }
            found.spills.extend(state.spill(instruction));
            let loaded = state.load(instruction, &found.spills);
            state.step(instruction, &mut info);
            found.note(&state);
            if let Some((number, held)) = loaded
                && let Some(place) = state.held.get_mut(usize::from(number))
            {
                *place = Some(held);
            }
        }
        found
    }

    /// Notes where the pointers are: the frame is as large as it gets, and the frame pointer is what it is
    /// set to first. A short function's line goes on to where both are given back.
    fn note(&mut self, state: &State) {
        self.rsp = match (self.rsp, state.rsp) {
            (Some(lowest), Some(now)) => Some(lowest.min(now)),
            _ => None,
        };
        self.rbp = self.rbp.or(state.rbp);
    }

    /// The registers that hold what will lie at `at`, as (distance, spill) in ascending order; `None`
    /// where not all of it is stored.
    pub fn stored(&self, at: i64, size: u64) -> Option<Vec<Spill>> {
        let end = at.checked_add_unsigned(size)?;
        let mut next = at;
        let mut parts = Vec::new();
        while next < end {
            // The first store is that of the argument.
            let spill = self.spills.iter().find(|spill| spill.at == next)?;
            parts.push(*spill);
            next += i64::from(spill.size);
        }
        (next == end).then_some(parts)
    }
}

impl State {
    /// Where a memory operand lies, from the frame address.
    fn place(&self, instruction: &Instruction) -> Option<i64> {
        let base = match instruction.memory_base() {
            Register::RSP => self.rsp,
            Register::RBP => self.rbp,
            _ => None,
        }?;
        (instruction.memory_index() == Register::None
            && instruction.segment_prefix() == Register::None)
            .then(|| base.checked_add(instruction.memory_displacement64() as i64))
            .flatten()
    }

    fn spill(&self, instruction: &Instruction) -> Option<Spill> {
        if instruction.mnemonic() != Mnemonic::Mov
            || instruction.op0_kind() != OpKind::Memory
            || instruction.op1_kind() != OpKind::Register
        {
            return None;
        }
        let source = instruction.op1_register();
        let (origin, width) = self
            .held
            .get(usize::from(dwarf_number(source)?))
            .copied()??;
        let size = source.size() as u8;
        // `ah` and its like are not the first byte.
        if size > width || is_high_byte(source) {
            return None;
        }
        Some(Spill {
            at: self.place(instruction)?,
            size,
            origin,
        })
    }

    /// What an instruction loads of what was stored, or of what the caller has put on the stack.
    fn load(&self, instruction: &Instruction, spills: &[Spill]) -> Option<(u8, (Origin, u8))> {
        if instruction.mnemonic() != Mnemonic::Mov
            || instruction.op0_kind() != OpKind::Register
            || instruction.op1_kind() != OpKind::Memory
        {
            return None;
        }
        let (target, at) = (instruction.op0_register(), self.place(instruction)?);
        let size = target.size() as u8;
        if size < 4 {
            return None;
        }
        let origin = if at >= 0 {
            Origin::Caller(at)
        } else {
            spills
                .iter()
                .rev()
                .find(|spill| spill.at == at && spill.size == size)?
                .origin
        };
        Some((dwarf_number(target)?, (origin, size)))
    }

    fn step(&mut self, instruction: &Instruction, info: &mut InstructionInfoFactory) {
        let (op0, op1) = (instruction.op0_register(), instruction.op1_register());
        let to_register = instruction.op_count() > 0 && instruction.op0_kind() == OpKind::Register;
        let moves = instruction.mnemonic() == Mnemonic::Mov
            && to_register
            && instruction.op1_kind() == OpKind::Register;
        let copied: Held = if moves && !is_high_byte(op1) && !is_high_byte(op0) {
            dwarf_number(op1)
                .and_then(|number| self.held.get(usize::from(number)).copied()?)
                .map(|(origin, width)| (origin, width.min(op1.size() as u8)))
        } else {
            None
        };
        let (rsp, rbp) = (self.rsp, self.rbp);
        let of = |register| match register {
            Register::RSP => rsp,
            Register::RBP => rbp,
            _ => None,
        };
        let mut pointers = (rsp, rbp);
        match instruction.mnemonic() {
            Mnemonic::Push | Mnemonic::Pop => {
                pointers.0 = rsp.map(|rsp| rsp + i64::from(instruction.stack_pointer_increment()));
                if instruction.mnemonic() == Mnemonic::Pop && op0 == Register::RBP {
                    pointers.1 = None;
                }
            }
            Mnemonic::Sub | Mnemonic::Add
                if to_register && op0 == Register::RSP && is_immediate(instruction) =>
            {
                let amount = instruction.immediate(1) as i64;
                pointers.0 = rsp.and_then(|rsp| {
                    if instruction.mnemonic() == Mnemonic::Sub {
                        rsp.checked_sub(amount)
                    } else {
                        rsp.checked_add(amount)
                    }
                });
            }
            _ => {
                let value = match instruction.mnemonic() {
                    Mnemonic::Mov if moves => of(op1),
                    Mnemonic::Lea if instruction.memory_index() == Register::None => {
                        of(instruction.memory_base()).and_then(|base| {
                            base.checked_add(instruction.memory_displacement64() as i64)
                        })
                    }
                    _ => None,
                };
                for used in info.info(instruction).used_registers() {
                    if !is_written(used.access()) {
                        continue;
                    }
                    match used.register().full_register() {
                        Register::RSP => pointers.0 = value,
                        Register::RBP => pointers.1 = value,
                        _ => {}
                    }
                }
            }
        }
        for used in info.info(instruction).used_registers() {
            if is_written(used.access())
                && let Some(number) = dwarf_number(used.register())
                && let Some(held) = self.held.get_mut(usize::from(number))
            {
                *held = None;
            }
        }
        if let Some(copied) = copied
            && let Some(number) = dwarf_number(op0)
            && let Some(held) = self.held.get_mut(usize::from(number))
        {
            *held = Some(copied);
        }
        (self.rsp, self.rbp) = pointers;
    }
}

/// Whether an operand is written, or may be.
pub(super) fn is_written(access: OpAccess) -> bool {
    !matches!(
        access,
        OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
    )
}

fn is_high_byte(register: Register) -> bool {
    matches!(
        register,
        Register::AH | Register::BH | Register::CH | Register::DH
    )
}

/// DWARF's number of a general register (psABI, figure 3.36).
pub(super) fn dwarf_number(register: Register) -> Option<u8> {
    Some(match register.full_register() {
        Register::RAX => 0,
        Register::RDX => 1,
        Register::RCX => 2,
        Register::RBX => 3,
        Register::RSI => 4,
        Register::RDI => 5,
        Register::RBP => 6,
        Register::RSP => 7,
        Register::R8 => 8,
        Register::R9 => 9,
        Register::R10 => 10,
        Register::R11 => 11,
        Register::R12 => 12,
        Register::R13 => 13,
        Register::R14 => 14,
        Register::R15 => 15,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CodePart;

    fn prologue(bytes: &[u8]) -> Prologue {
        Prologue::of(
            &Code::decode(&[CodePart {
                address: 0x1000,
                bytes: bytes.to_vec(),
            }])
            .unwrap(),
        )
    }

    #[test]
    fn gcc_without_optimisation() {
        // push rbp; mov rbp,rsp; sub rsp,32; mov [rbp-20],edi; mov eax,esi; mov [rbp-24],al; ret
        let found = prologue(&[
            0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x20, 0x89, 0x7d, 0xec, 0x89, 0xf0, 0x88,
            0x45, 0xe8, 0xc3,
        ]);
        assert_eq!((found.rsp, found.rbp), (Some(-48), Some(-16)));
        assert_eq!(
            found.spills,
            [
                Spill {
                    at: -36,
                    size: 4,
                    origin: Origin::Register(5)
                },
                Spill {
                    at: -40,
                    size: 1,
                    origin: Origin::Register(4)
                }
            ]
        );
        assert!(found.stored(-36, 4).is_some());
        // Half of it is not stored there.
        assert!(found.stored(-36, 8).is_none());
        assert!(found.stored(-40, 4).is_none());
    }

    #[test]
    fn a_register_that_changed_is_no_argument() {
        // lea rdi,[rsi+1]; mov [rsp-8],rdi; ret
        let found = prologue(&[0x48, 0x8d, 0x7e, 0x01, 0x48, 0x89, 0x7c, 0x24, 0xf8, 0xc3]);
        assert_eq!(found.spills, []);
    }
}
