//! The ways through a function: which instruction can follow which, where it is left, and how far
//! the stack pointer is from its place at entry.

use std::collections::{HashMap, HashSet};

use iced_x86::{Code as Opcode, FlowControl, Instruction, Mnemonic, OpKind, Register};

use super::{Code, ReadData, Refusal, data, tables};

/// A way out of the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leave {
    /// Index of the instruction.
    pub index: usize,
    /// Where it goes.
    pub to: LeaveTo,
    /// The x86 condition code under which it is taken; always where `None`.
    pub condition: Option<u8>,
}

/// Where a way out leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveTo {
    /// Back to the caller.
    Caller,
    /// A jump to another function, whose return is this one's.
    Function(u64),
    /// The same, through a register or memory.
    Unknown,
}

impl Leave {
    /// Whether this is a jump to another function.
    pub fn is_tail_call(&self) -> bool {
        self.to != LeaveTo::Caller
    }
}

/// The result of the analysis.
pub struct Flow {
    /// Every way out, in the order of the instructions.
    pub leaves: Vec<Leave>,
    /// Number of call instructions.
    pub calls: usize,
    /// Addresses that a jump goes to.
    targets: HashSet<u64>,
    /// Destinations of resolved indirect jumps, by index.
    tables: HashMap<usize, Vec<usize>>,
    /// By index: whether a way from the entry, or from where exceptions land, passes it.
    passed: Vec<bool>,
}

/// Distance of a register from the stack pointer at entry (negative: below), where known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Depth {
    sp: Option<i64>,
    bp: Option<i64>,
}

impl Depth {
    fn merge(self, other: Self) -> Self {
        Self {
            sp: if self.sp == other.sp { self.sp } else { None },
            bp: if self.bp == other.bp { self.bp } else { None },
        }
    }
}

/// Where an instruction goes.
enum Next {
    /// Only on.
    On,
    /// On, or to the instruction with this index.
    Branch(usize),
    /// To the instruction with this index.
    Jump(usize),
    /// Out of the function, and on where it is conditional.
    Out(Leave),
    /// Nowhere.
    Stop,
    /// An indirect jump.
    Indirect,
}

impl Flow {
    /// Analyses a function.
    ///
    /// # Errors
    /// Where a jump's destination is unknown or makes no sense.
    pub fn analyse(code: &Code, read_data: &ReadData<'_>) -> Result<Self, Refusal> {
        let instructions = code.instructions();
        let mut flow = Self {
            leaves: Vec::new(),
            calls: 0,
            targets: HashSet::new(),
            tables: HashMap::new(),
            passed: Vec::new(),
        };
        // Direct jumps first: the search for tables wants to know the block borders.
        for (index, instruction) in instructions.iter().enumerate() {
            match next(code, index, instruction)? {
                Next::Branch(to) | Next::Jump(to) => {
                    flow.targets.insert(instructions[to].ip());
                }
                Next::Out(leave) => flow.leaves.push(leave),
                _ => {}
            }
            if matches!(
                instruction.flow_control(),
                FlowControl::Call | FlowControl::IndirectCall
            ) {
                flow.calls += 1;
            }
        }
        flow.walk(code, read_data)?;
        if code.is_only_passed() {
            let passed = &flow.passed;
            data::refuse(code, passed)?;
            flow.leaves
                .retain(|leave| passed.get(leave.index) == Some(&true));
        }
        flow.leaves.sort_by_key(|leave| leave.index);
        Ok(flow)
    }

    /// The instructions that can follow one within the function.
    ///
    /// # Errors
    /// Where a jump makes no sense.
    pub fn successors(&self, code: &Code, index: usize) -> Result<Vec<usize>, Refusal> {
        let Some(instruction) = code.instructions().get(index) else {
            return Ok(Vec::new());
        };
        let on = (!code.ends_part(index)).then_some(index + 1);
        Ok(match next(code, index, instruction)? {
            Next::On => on.into_iter().collect(),
            Next::Branch(to) => on.into_iter().chain([to]).collect(),
            Next::Jump(to) => vec![to],
            Next::Out(leave) if leave.condition.is_some() => on.into_iter().collect(),
            Next::Out(_) | Next::Stop => Vec::new(),
            Next::Indirect => self.tables.get(&index).cloned().unwrap_or_default(),
        })
    }

    /// Whether a jump of the function goes to `address`.
    pub fn is_target(&self, address: u64) -> bool {
        self.targets.contains(&address)
    }

    /// Where an indirect jump that was resolved goes, by index.
    pub fn destinations(&self, index: usize) -> &[usize] {
        self.tables.get(&index).map_or(&[], Vec::as_slice)
    }

    /// Addresses of the instructions that are passed, as far as it is known; all where code is certain to be
    /// nothing else.
    pub fn passed(&self, code: &Code) -> HashSet<u64> {
        let all = !code.is_only_passed();
        let instructions = code.instructions().iter().enumerate();
        instructions
            .filter(|(index, _)| all || self.passed.get(*index) == Some(&true))
            .map(|(_, instruction)| instruction.ip())
            .collect()
    }

    /// Follows all paths from the entry, then from code that is only reached otherwise (landing
    /// pads of exceptions).
    fn walk(&mut self, code: &Code, read_data: &ReadData<'_>) -> Result<(), Refusal> {
        let instructions = code.instructions();
        let mut depths: Vec<Option<Depth>> = vec![None; instructions.len()];
        let start = code.at(code.entry()).ok_or(Refusal::Empty)?;
        self.follow(
            code,
            read_data,
            &mut depths,
            start,
            Depth {
                sp: Some(0),
                bp: None,
            },
        )?;
        let unknown = Depth { sp: None, bp: None };
        for pad in code.pads() {
            self.follow(code, read_data, &mut depths, *pad, unknown)?;
        }
        self.passed = depths.iter().map(Option::is_some).collect();
        for index in 0..instructions.len() {
            if depths[index].is_none() {
                self.follow(code, read_data, &mut depths, index, unknown)?;
            }
        }
        Ok(())
    }

    fn follow(
        &mut self,
        code: &Code,
        read_data: &ReadData<'_>,
        depths: &mut [Option<Depth>],
        start: usize,
        depth: Depth,
    ) -> Result<(), Refusal> {
        let instructions = code.instructions();
        let mut work = vec![(start, depth)];
        while let Some((index, incoming)) = work.pop() {
            let Some(slot) = depths.get_mut(index) else {
                continue;
            };
            let merged = match *slot {
                None => incoming,
                Some(known) => {
                    let merged = known.merge(incoming);
                    if merged == known {
                        continue;
                    }
                    merged
                }
            };
            *slot = Some(merged);
            let instruction = &instructions[index];
            let after = step(instruction, merged);
            let on = |work: &mut Vec<(usize, Depth)>| -> Result<(), Refusal> {
                if !code.ends_part(index) {
                    work.push((index + 1, after));
                    return Ok(());
                }
                // The last instruction may be a call that does not return, or padding that is
                // never reached.
                let call = matches!(
                    instruction.flow_control(),
                    FlowControl::Call | FlowControl::IndirectCall
                );
                if call || is_padding(instruction) {
                    Ok(())
                } else {
                    Err(Refusal::RunsOn(instruction.next_ip()))
                }
            };
            match next(code, index, instruction)? {
                Next::On => on(&mut work)?,
                Next::Branch(to) => {
                    work.push((to, after));
                    on(&mut work)?;
                }
                Next::Jump(to) => work.push((to, after)),
                Next::Out(leave) => {
                    if leave.condition.is_some() {
                        on(&mut work)?;
                    }
                }
                Next::Stop => {}
                Next::Indirect => {
                    if self.tables.contains_key(&index) {
                        for to in self.tables[&index].clone() {
                            work.push((to, after));
                        }
                        continue;
                    }
                    match tables::resolve(code, index, read_data) {
                        tables::Indirect::Table(destinations) => {
                            for to in &destinations {
                                self.targets.insert(instructions[*to].ip());
                                work.push((*to, after));
                            }
                            self.tables.insert(index, destinations);
                        }
                        tables::Indirect::Unknown => {
                            return Err(Refusal::UnresolvedJump(instruction.ip()));
                        }
                        tables::Indirect::NoTable => {
                            // At the end of a function the stack pointer is back where it was.
                            if merged.sp != Some(0) && !after_epilogue(code, index) {
                                return Err(Refusal::UnresolvedJump(instruction.ip()));
                            }
                            if !self.leaves.iter().any(|leave| leave.index == index) {
                                self.leaves.push(Leave {
                                    index,
                                    to: LeaveTo::Unknown,
                                    condition: None,
                                });
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether an instruction fills a gap, or is never passed.
pub(super) fn is_padding(instruction: &Instruction) -> bool {
    matches!(
        instruction.mnemonic(),
        Mnemonic::Nop | Mnemonic::Int3 | Mnemonic::Ud2 | Mnemonic::Hlt
    ) || (instruction.mnemonic() == Mnemonic::Xchg
        && instruction.op0_register() == instruction.op1_register())
}

/// Whether the instruction before ends a stack frame.
fn after_epilogue(code: &Code, index: usize) -> bool {
    let Some(before) = index
        .checked_sub(1)
        .and_then(|index| code.instructions().get(index))
    else {
        return false;
    };
    !code.starts_part(index)
        && (before.mnemonic() == Mnemonic::Leave
            || before.mnemonic() == Mnemonic::Pop
            || (before.mnemonic() == Mnemonic::Add && before.op0_register() == Register::RSP))
}

fn next(code: &Code, index: usize, instruction: &Instruction) -> Result<Next, Refusal> {
    Ok(match instruction.flow_control() {
        FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall => {
            match instruction.mnemonic() {
                Mnemonic::Hlt => Next::Stop,
                _ => Next::On,
            }
        }
        FlowControl::Return => {
            if !matches!(instruction.code(), Opcode::Retnq | Opcode::Retnq_imm16) {
                return Err(Refusal::UnwatchableJump(instruction.ip()));
            }
            Next::Out(Leave {
                index,
                to: LeaveTo::Caller,
                condition: None,
            })
        }
        FlowControl::UnconditionalBranch => {
            let target = instruction.near_branch_target();
            match inside(code, instruction, target)? {
                Some(to) => Next::Jump(to),
                None => Next::Out(Leave {
                    index,
                    to: LeaveTo::Function(target),
                    condition: None,
                }),
            }
        }
        FlowControl::ConditionalBranch => {
            let target = instruction.near_branch_target();
            match inside(code, instruction, target)? {
                Some(to) => Next::Branch(to),
                None => Next::Out(Leave {
                    index,
                    to: LeaveTo::Function(target),
                    condition: Some(
                        condition(instruction).ok_or(Refusal::UnwatchableJump(instruction.ip()))?,
                    ),
                }),
            }
        }
        FlowControl::IndirectBranch => Next::Indirect,
        // int3, ud2 and the like; syscall counts as `Next` or `Call` above.
        FlowControl::Exception => Next::Stop,
        FlowControl::Interrupt => match instruction.mnemonic() {
            Mnemonic::Int3 | Mnemonic::Int1 => Next::Stop,
            _ => Next::On,
        },
        FlowControl::XbeginXabortXend => match instruction.mnemonic() {
            Mnemonic::Xbegin => {
                match inside(code, instruction, instruction.near_branch_target())? {
                    Some(to) => Next::Branch(to),
                    None => return Err(Refusal::UnwatchableJump(instruction.ip())),
                }
            }
            _ => Next::On,
        },
    })
}

/// Index of the instruction at `target`, `None` where it lies outside.
fn inside(code: &Code, from: &Instruction, target: u64) -> Result<Option<usize>, Refusal> {
    if !code.contains(target) {
        return Ok(None);
    }
    code.at(target)
        .map(Some)
        .ok_or(Refusal::Overlapping(from.ip()))
}

/// The condition code of a `jcc`; `None` for `loop`, `jrcxz` and their like.
pub(super) fn condition(instruction: &Instruction) -> Option<u8> {
    use iced_x86::ConditionCode as C;
    let code = match instruction.condition_code() {
        C::o => 0,
        C::no => 1,
        C::b => 2,
        C::ae => 3,
        C::e => 4,
        C::ne => 5,
        C::be => 6,
        C::a => 7,
        C::s => 8,
        C::ns => 9,
        C::p => 10,
        C::np => 11,
        C::l => 12,
        C::ge => 13,
        C::le => 14,
        C::g => 15,
        C::None => return None,
    };
    instruction.is_jcc_short_or_near().then_some(code)
}

/// What an instruction does to the stack and frame pointers.
fn step(instruction: &Instruction, depth: Depth) -> Depth {
    let mut after = depth;
    match instruction.mnemonic() {
        Mnemonic::Call => {}
        Mnemonic::Push | Mnemonic::Pop | Mnemonic::Pushfq | Mnemonic::Popfq => {
            after.sp = depth
                .sp
                .map(|sp| sp + i64::from(instruction.stack_pointer_increment()));
            if instruction.mnemonic() == Mnemonic::Pop {
                match instruction.op0_register() {
                    Register::RBP => after.bp = None,
                    Register::RSP => after.sp = None,
                    _ => {}
                }
            }
        }
        Mnemonic::Leave => {
            after.sp = depth.bp.map(|bp| bp + 8);
            after.bp = None;
        }
        _ => {
            let written = instruction.op_count() > 0 && instruction.op0_kind() == OpKind::Register;
            let register = if written {
                instruction.op0_register().full_register()
            } else {
                Register::None
            };
            let reads_only = matches!(
                instruction.mnemonic(),
                Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Bt | Mnemonic::Nop
            );
            if reads_only {
                return after;
            }
            if register == Register::RSP {
                after.sp = new_value(instruction, depth);
            } else if register == Register::RBP {
                after.bp = new_value(instruction, depth);
            }
            if instruction.mnemonic() == Mnemonic::Xchg
                && instruction.op1_kind() == OpKind::Register
            {
                match instruction.op1_register().full_register() {
                    Register::RSP => after.sp = None,
                    Register::RBP => after.bp = None,
                    _ => {}
                }
            }
        }
    }
    after
}

/// The new value of the register that `instruction` writes, where it is a sum of the stack or frame
/// pointer and a constant.
fn new_value(instruction: &Instruction, depth: Depth) -> Option<i64> {
    let of = |register| match register {
        Register::RSP => depth.sp,
        Register::RBP => depth.bp,
        _ => None,
    };
    match instruction.mnemonic() {
        Mnemonic::Mov if instruction.op1_kind() == OpKind::Register => {
            of(instruction.op1_register())
        }
        Mnemonic::Add | Mnemonic::Sub if is_immediate(instruction) => {
            let amount = instruction.immediate(1) as i64;
            let value = of(instruction.op0_register())?;
            if instruction.mnemonic() == Mnemonic::Add {
                value.checked_add(amount)
            } else {
                value.checked_sub(amount)
            }
        }
        Mnemonic::Lea if instruction.memory_index() == Register::None => {
            of(instruction.memory_base())?.checked_add(instruction.memory_displacement64() as i64)
        }
        _ => None,
    }
}

/// Whether the second operand is a constant.
pub(super) fn is_immediate(instruction: &Instruction) -> bool {
    instruction.op_count() > 1
        && matches!(
            instruction.op1_kind(),
            OpKind::Immediate8
                | OpKind::Immediate8to32
                | OpKind::Immediate8to64
                | OpKind::Immediate32
                | OpKind::Immediate32to64
                | OpKind::Immediate16
                | OpKind::Immediate8to16
        )
}
