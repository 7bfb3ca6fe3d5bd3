//! Does a function look at the address that it returns to? A return probe replaces it.
//!
//! `__builtin_return_address(0)`, calls of `-finstrument-functions`, `setjmp`, `vfork` and `dlsym` read the word
//! at which the frame address (CFA) less 8 points. Registers that are the stack pointer at entry plus a
//! constant are followed along all paths; whatever reads, writes or passes on that word by one of them is
//! found. Where the stack pointer is lost, every use of it counts.

use iced_x86::{
    FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register, UsedMemory,
};

use super::{
    Code, Flow,
    flow::{is_immediate, is_padding},
    prologue::{dwarf_number, is_written},
};

/// Where the return address lies, from the stack pointer at entry: from, to.
const WORD: std::ops::Range<i64> = 0..8;
/// Where a caller's frame pointer is kept below it.
const SAVED_FRAME: i64 = -8;
const RBP: usize = 6;
const RSP: usize = 7;

/// What a function does with its return address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnReturn {
    /// Address of an instruction that uses it, or that may.
    pub used_at: Option<u64>,
    /// Functions that it ends with by a jump, which return to the same address; `None` for one that is not
    /// known.
    pub goes_on_in: Vec<Option<u64>>,
}

/// By DWARF number: what a register holds, from the stack pointer at entry, where known.
type State = [Option<i64>; 16];

/// Looks at all of a function. `flow` is what is known of its jumps; where nothing is, the code behind an
/// unknown jump is taken to have the stack that the jump has.
pub fn own_return(code: &Code, flow: Option<&Flow>) -> OwnReturn {
    let mut search = Search {
        code,
        flow,
        info: InstructionInfoFactory::new(),
        states: vec![None; code.instructions().len()],
        work: Vec::new(),
        behind_unknown: None,
        has_frame: code.instructions().iter().any(sets_frame),
        found: OwnReturn::default(),
    };
    let mut entry: State = [None; 16];
    entry[RSP] = Some(0);
    if let Some(start) = code.at(code.entry()) {
        search.work.push((start, entry));
    }
    search.run();
    // What no path leads to is behind an unknown jump, or never runs. Padding runs into what is reached otherwise.
    for (index, instruction) in code.instructions().iter().enumerate() {
        let is_open = search.states.get(index).is_some_and(Option::is_none);
        if is_open && !is_padding(instruction) {
            let state = search.behind_unknown.unwrap_or([None; 16]);
            search.work.push((index, state));
            search.run();
        }
    }
    search.found
}

/// `mov rbp, rsp` or the like: the function has a frame pointer.
fn sets_frame(instruction: &Instruction) -> bool {
    let from_stack = match instruction.mnemonic() {
        Mnemonic::Mov => {
            instruction.op1_kind() == OpKind::Register
                && instruction.op1_register() == Register::RSP
        }
        Mnemonic::Lea => instruction.memory_base() == Register::RSP,
        _ => false,
    };
    from_stack
        && instruction.op0_kind() == OpKind::Register
        && instruction.op0_register() == Register::RBP
}

struct Search<'a> {
    code: &'a Code,
    flow: Option<&'a Flow>,
    info: InstructionInfoFactory,
    states: Vec<Option<State>>,
    work: Vec<(usize, State)>,
    /// What holds at all jumps whose destinations are not known.
    behind_unknown: Option<State>,
    has_frame: bool,
    found: OwnReturn,
}

fn merge(known: State, other: State) -> State {
    std::array::from_fn(|place| match (known.get(place), other.get(place)) {
        (Some(a), Some(b)) if a == b => *a,
        _ => None,
    })
}

impl Search<'_> {
    fn run(&mut self) {
        while let Some((index, incoming)) = self.work.pop() {
            if self.found.used_at.is_some() {
                self.work.clear();
                return;
            }
            let (Some(slot), Some(instruction)) = (
                self.states.get_mut(index),
                self.code.instructions().get(index),
            ) else {
                continue;
            };
            let state = match *slot {
                None => incoming,
                Some(known) => {
                    let merged = merge(known, incoming);
                    if merged == known {
                        continue;
                    }
                    merged
                }
            };
            *slot = Some(state);
            if self.uses(instruction, &state) {
                self.found.used_at = Some(instruction.ip());
            }
            let after = self.step(instruction, state);
            if passes_on(&state, &after) {
                self.found.used_at = Some(instruction.ip());
            }
            self.go_on(index, instruction, &state, after);
        }
    }

    /// Whether an instruction reads or writes the word, or may.
    fn uses(&mut self, instruction: &Instruction, state: &State) -> bool {
        if instruction.flow_control() == FlowControl::Return {
            return false;
        }
        let implicit = instruction.is_stack_instruction();
        let has_frame = self.has_frame;
        self.info
            .info(instruction)
            .used_memory()
            .iter()
            .any(|memory| touches(memory, state, implicit, has_frame))
    }

    fn step(&mut self, instruction: &Instruction, state: State) -> State {
        let mut after = state;
        let of = |register| value(&state, register);
        let new = match instruction.mnemonic() {
            Mnemonic::Mov
                if instruction.op1_kind() == OpKind::Register
                    && instruction.op0_kind() == OpKind::Register =>
            {
                of(instruction.op1_register())
            }
            Mnemonic::Lea if instruction.memory_index() == Register::None => {
                of(instruction.memory_base())
                    .and_then(|base| base.checked_add(instruction.memory_displacement64() as i64))
            }
            Mnemonic::Add | Mnemonic::Sub if is_immediate(instruction) => {
                let amount = instruction.immediate(1) as i64;
                of(instruction.op0_register()).and_then(|base| {
                    if instruction.mnemonic() == Mnemonic::Add {
                        base.checked_add(amount)
                    } else {
                        base.checked_sub(amount)
                    }
                })
            }
            _ => None,
        };
        let full = instruction.op_count() > 0
            && instruction.op0_kind() == OpKind::Register
            && instruction.op0_register().size() == 8;
        let target = full
            .then(|| dwarf_number(instruction.op0_register()))
            .flatten();
        for used in self.info.info(instruction).used_registers() {
            if is_written(used.access())
                && let Some(number) = dwarf_number(used.register())
                && let Some(place) = after.get_mut(usize::from(number))
            {
                *place = new.filter(|_| target == Some(number));
            }
        }
        let moved = match instruction.mnemonic() {
            Mnemonic::Push | Mnemonic::Pop | Mnemonic::Pushfq | Mnemonic::Popfq
                if target != Some(RSP as u8) || instruction.mnemonic() == Mnemonic::Push =>
            {
                state[RSP]
                    .and_then(|sp| sp.checked_add(instruction.stack_pointer_increment().into()))
            }
            Mnemonic::Leave => state[RBP].and_then(|bp| bp.checked_add(8)),
            _ => match instruction.flow_control() {
                // Back from what it calls; that may have changed all but what callees keep.
                FlowControl::Call | FlowControl::IndirectCall => {
                    for number in [0, 1, 2, 4, 5, 8, 9, 10, 11] {
                        after[number] = None;
                    }
                    state[RSP]
                }
                _ => return after,
            },
        };
        after[RSP] = moved;
        after
    }

    fn go_on(&mut self, index: usize, instruction: &Instruction, state: &State, after: State) {
        let next = (!self.code.ends_part(index)).then_some(index + 1);
        let at_entry = state[RSP] == Some(0);
        match instruction.flow_control() {
            FlowControl::Return | FlowControl::Exception => {}
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
                if instruction.flow_control() == FlowControl::ConditionalBranch {
                    self.work.extend(next.map(|next| (next, after)));
                }
                let to = instruction.near_branch_target();
                match self.code.at(to) {
                    Some(to) => self.work.push((to, after)),
                    // With a frame of its own still there, it is no call.
                    None => self.leaves_to(at_entry.then_some(to)),
                }
            }
            FlowControl::IndirectBranch => {
                let known = self
                    .flow
                    .and_then(|flow| flow.successors(self.code, index).ok())
                    .unwrap_or_default();
                if known.is_empty() {
                    if at_entry {
                        self.leaves_to(None);
                    }
                    self.behind_unknown = Some(
                        self.behind_unknown
                            .map_or(after, |known| merge(known, after)),
                    );
                }
                self.work.extend(known.into_iter().map(|to| (to, after)));
            }
            _ => self.work.extend(next.map(|next| (next, after))),
        }
    }

    fn leaves_to(&mut self, address: Option<u64>) {
        if !self.found.goes_on_in.contains(&address) {
            self.found.goes_on_in.push(address);
        }
    }
}

fn value(state: &State, register: Register) -> Option<i64> {
    // Half of an address is none.
    if register.size() != 8 {
        return None;
    }
    state
        .get(usize::from(dwarf_number(register)?))
        .copied()
        .flatten()
}

fn touches(memory: &UsedMemory, state: &State, implicit: bool, has_frame: bool) -> bool {
    use iced_x86::OpAccess;
    if matches!(memory.access(), OpAccess::None | OpAccess::NoMemAccess)
        || matches!(memory.segment(), Register::FS | Register::GS)
        || memory.index() != Register::None
    {
        return false;
    }
    let displacement = memory.displacement() as i64;
    let size = match memory.memory_size().size() {
        0 => 8,
        size => size as i64,
    };
    match value(state, memory.base()) {
        Some(base) => {
            let from = base.saturating_add(displacement);
            from < WORD.end && from.saturating_add(size) > WORD.start
        }
        None => match memory.base() {
            Register::RSP => !implicit,
            Register::RBP => has_frame && displacement == 8,
            _ => false,
        },
    }
}

/// Whether a register now holds the word's address, or that of the frame's record, which it is a part of.
fn passes_on(before: &State, after: &State) -> bool {
    let in_frame = after[RBP] == Some(SAVED_FRAME);
    before
        .iter()
        .zip(after)
        .enumerate()
        .filter(|(number, (before, after))| before != after && *number != RSP && *number != RBP)
        .filter_map(|(_, (_, after))| *after)
        .any(|value| WORD.contains(&value) || in_frame && value == SAVED_FRAME)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CodePart;

    fn look(bytes: &[u8]) -> OwnReturn {
        let code = Code::decode(&[CodePart {
            address: 0x1000,
            bytes: bytes.to_vec(),
        }])
        .unwrap();
        let flow = Flow::analyse(&code, &|_, _| None).ok();
        own_return(&code, flow.as_ref())
    }

    fn used(bytes: &[u8]) -> Option<u64> {
        look(bytes).used_at
    }

    #[test]
    fn reads_writes_and_addresses() {
        // mov rax,[rsp]; ret
        assert_eq!(used(&[0x48, 0x8b, 0x04, 0x24, 0xc3]), Some(0x1000));
        // endbr64; sub rsp,24; mov rax,[rsp+24]; add rsp,24; ret
        let deep = [
            0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x83, 0xec, 0x18, 0x48, 0x8b, 0x44, 0x24, 0x18, 0x48,
            0x83, 0xc4, 0x18, 0xc3,
        ];
        assert_eq!(used(&deep), Some(0x1008));
        // push rbp; mov rbp,rsp; mov rax,[rbp+8]; pop rbp; ret
        assert_eq!(
            used(&[0x55, 0x48, 0x89, 0xe5, 0x48, 0x8b, 0x45, 0x08, 0x5d, 0xc3]),
            Some(0x1004)
        );
        // push rbp; mov rbp,rsp; mov rax,rbp; pop rbp; ret: the frame's record
        assert_eq!(
            used(&[0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0xe8, 0x5d, 0xc3]),
            Some(0x1004)
        );
        // lea rdi,[rsp]; jmp +2; ud2; ret
        assert_eq!(
            used(&[0x48, 0x8d, 0x3c, 0x24, 0xeb, 0x02, 0x0f, 0x0b, 0xc3]),
            Some(0x1000)
        );
        // pop rdi; jmp rdi: vfork
        assert_eq!(used(&[0x5f, 0xff, 0xe7]), Some(0x1000));
        // lea rax,[rsp+16]; mov qword [rax-16],0; ret
        assert_eq!(
            used(&[
                0x48, 0x8d, 0x44, 0x24, 0x10, 0x48, 0xc7, 0x40, 0xf0, 0, 0, 0, 0, 0xc3
            ]),
            Some(0x1005)
        );
        // lea r10,[rsp+8]; and rsp,-32; push [r10-8]; ret
        assert_eq!(
            used(&[
                0x4c, 0x8d, 0x54, 0x24, 0x08, 0x48, 0x83, 0xe4, 0xe0, 0x41, 0xff, 0x72, 0xf8, 0xc3
            ]),
            Some(0x1009)
        );
        // and rsp,-32; mov rax,[rsp+64]; ret: lost
        assert_eq!(
            used(&[0x48, 0x83, 0xe4, 0xe0, 0x48, 0x8b, 0x44, 0x24, 0x40, 0xc3]),
            Some(0x1004)
        );
    }

    #[test]
    fn what_is_around_it() {
        // The caller's arguments, locals, the red zone: sub rsp,24; mov rax,[rsp+32]; mov [rsp+16],rax; add rsp,24; ret
        assert_eq!(
            used(&[
                0x48, 0x83, 0xec, 0x18, 0x48, 0x8b, 0x44, 0x24, 0x20, 0x48, 0x89, 0x44, 0x24, 0x10,
                0x48, 0x83, 0xc4, 0x18, 0xc3
            ]),
            None
        );
        // push rbx; lea rax,[rsp-8]; lea rdx,[rsp+16]; mov [rsp-4],edi; pop rbx; ret
        assert_eq!(
            used(&[
                0x53, 0x48, 0x8d, 0x44, 0x24, 0xf8, 0x48, 0x8d, 0x54, 0x24, 0x10, 0x89, 0x7c, 0x24,
                0xfc, 0x5b, 0xc3
            ]),
            None
        );
        // push rbp; mov rbp,rsp; sub rsp,16; mov [rbp-4],edi; leave; ret
        assert_eq!(
            used(&[
                0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x10, 0x89, 0x7d, 0xfc, 0xc9, 0xc3
            ]),
            None
        );
        // rbp is a pointer like any other: push rbp; mov rbp,rdi; mov rax,[rbp+8]; pop rbp; ret
        assert_eq!(
            used(&[0x55, 0x48, 0x89, 0xfd, 0x48, 0x8b, 0x45, 0x08, 0x5d, 0xc3]),
            None
        );
    }

    #[test]
    fn behind_a_jump_that_is_not_known() {
        // push rbx; jmp rax; mov rax,[rsp+8]; pop rbx; ret
        let bytes = [0x53, 0xff, 0xe0, 0x48, 0x8b, 0x44, 0x24, 0x08, 0x5b, 0xc3];
        assert_eq!(used(&bytes), Some(0x1003));
        // …, mov rax,[rsp+16]
        let bytes = [0x53, 0xff, 0xe0, 0x48, 0x8b, 0x44, 0x24, 0x10, 0x5b, 0xc3];
        assert_eq!(look(&bytes), OwnReturn::default());
    }

    #[test]
    fn what_it_ends_with() {
        // jmp 0x2000
        assert_eq!(look(&[0xe9, 0xfb, 0x0f, 0, 0]).goes_on_in, [Some(0x2000)]);
        // jmp rax
        assert_eq!(look(&[0xff, 0xe0]).goes_on_in, [None]);
        // push rbx; jmp 0x2000: to a cold part, with its frame
        assert_eq!(look(&[0x53, 0xe9, 0xfa, 0x0f, 0, 0]).goes_on_in, [None]);
        // ret
        assert!(look(&[0xc3]).goes_on_in.is_empty());
        // je +4; ret; nop [rax]; jmp 0x2000: padding says nothing
        assert_eq!(
            look(&[0x74, 0x04, 0xc3, 0x0f, 0x1f, 0, 0xe9, 0xf5, 0x0f, 0, 0]).goes_on_in,
            [Some(0x2000)]
        );
    }
}
