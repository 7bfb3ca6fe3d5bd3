//! A function's bytes as instructions.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};

use super::Refusal;

/// Code larger than this is not analysed.
pub(crate) const MAX_CODE_BYTES: usize = 4 << 20;

/// A contiguous piece of a function: its main part, or one that the compiler moved elsewhere.
#[derive(Clone, Debug)]
pub struct CodePart {
    /// Virtual address of the first byte.
    pub address: u64,
    /// The code.
    pub bytes: Vec<u8>,
}

/// A decoded function.
pub struct Code {
    entry: u64,
    /// In ascending order of address within each part; parts in the order given.
    instructions: Vec<Instruction>,
    /// Index of the first instruction of each part.
    starts: Vec<usize>,
    /// The encoded bytes of each instruction, at most 15.
    encodings: Vec<[u8; 15]>,
    /// (address, index), ascending.
    by_address: Vec<(u64, u32)>,
    /// Address ranges.
    ranges: Vec<(u64, u64)>,
    /// What no way through the function passes may be data.
    only_passed: bool,
    /// Indexes of instructions at which exceptions land.
    pads: Vec<usize>,
}

impl Code {
    /// Decodes a function. The first part is the one that is called.
    ///
    /// # Errors
    /// Where there is nothing to decode, too much, or bytes that are no instruction.
    pub fn decode(parts: &[CodePart]) -> Result<Self, Refusal> {
        let total: usize = parts.iter().map(|part| part.bytes.len()).sum();
        let entry = match parts.first() {
            Some(first) if !first.bytes.is_empty() => first.address,
            _ => return Err(Refusal::Empty),
        };
        if total > MAX_CODE_BYTES {
            return Err(Refusal::TooLarge);
        }
        let mut code = Self {
            entry,
            instructions: Vec::with_capacity(total / 4),
            starts: Vec::new(),
            encodings: Vec::with_capacity(total / 4),
            by_address: Vec::new(),
            ranges: Vec::new(),
            only_passed: false,
            pads: Vec::new(),
        };
        for part in parts {
            code.starts.push(code.instructions.len());
            code.ranges.push((
                part.address,
                part.address.wrapping_add(part.bytes.len() as u64),
            ));
            let mut decoder = Decoder::with_ip(64, &part.bytes, part.address, DecoderOptions::NONE);
            while decoder.can_decode() {
                let at = decoder.position();
                let instruction = decoder.decode();
                if instruction.is_invalid() {
                    return Err(Refusal::Undecodable(part.address.wrapping_add(at as u64)));
                }
                let mut encoding = [0u8; 15];
                let bytes = part
                    .bytes
                    .get(at..at + instruction.len())
                    .unwrap_or_default();
                for (place, byte) in encoding.iter_mut().zip(bytes) {
                    *place = *byte;
                }
                code.by_address
                    .push((instruction.ip(), code.instructions.len() as u32));
                code.instructions.push(instruction);
                code.encodings.push(encoding);
            }
        }
        code.by_address.sort_unstable();
        Ok(code)
    }

    /// Takes what no way through the function passes for what may be data: there are no sites. `pads`: where
    /// exceptions land, which are ways, too.
    pub fn only_passed(&mut self, pads: &[u64]) {
        self.only_passed = true;
        self.pads = pads.iter().filter_map(|pad| self.at(*pad)).collect();
    }

    /// Whether only what is passed is code for certain.
    pub(crate) fn is_only_passed(&self) -> bool {
        self.only_passed
    }

    /// Indexes of instructions at which exceptions land.
    pub fn pads(&self) -> &[usize] {
        &self.pads
    }

    /// Where the function is entered.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Number of instructions.
    pub fn len(&self) -> usize {
        self.instructions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.instructions.is_empty()
    }

    /// Address of an instruction.
    pub fn address(&self, index: usize) -> Option<u64> {
        self.instructions.get(index).map(Instruction::ip)
    }

    /// Whether an instruction is a nop.
    pub fn is_nop(&self, index: usize) -> bool {
        let instruction = self.instructions.get(index);
        instruction.is_some_and(|instruction| instruction.mnemonic() == Mnemonic::Nop)
    }

    /// Whether an instruction always goes on to the one behind it, and is no call.
    pub fn goes_straight_on(&self, index: usize) -> bool {
        let instruction = self.instructions.get(index);
        instruction.is_some_and(|instruction| instruction.flow_control() == FlowControl::Next)
    }

    /// Whether no instruction is a call, or a jump to a place that is computed.
    pub fn calls_nothing(&self) -> bool {
        !self.instructions.iter().any(|instruction| {
            matches!(
                instruction.flow_control(),
                FlowControl::Call | FlowControl::IndirectCall | FlowControl::IndirectBranch
            )
        })
    }

    /// All instructions.
    pub(crate) fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// The bytes of an instruction.
    pub fn bytes(&self, index: usize) -> &[u8] {
        match (self.encodings.get(index), self.instructions.get(index)) {
            (Some(encoding), Some(instruction)) => {
                encoding.get(..instruction.len()).unwrap_or(encoding)
            }
            _ => &[],
        }
    }

    /// Index of the instruction that begins at `address`.
    pub fn at(&self, address: u64) -> Option<usize> {
        self.by_address
            .binary_search_by_key(&address, |(address, _)| *address)
            .ok()
            .and_then(|place| self.by_address.get(place))
            .map(|(_, index)| *index as usize)
    }

    /// Index of the instruction among whose bytes `address` is.
    pub(crate) fn over(&self, address: u64) -> Option<usize> {
        let behind = self
            .by_address
            .partition_point(|(begin, _)| *begin <= address);
        let (begin, index) = self.by_address.get(behind.checked_sub(1)?)?;
        let index = *index as usize;
        let len = self.instructions.get(index)?.len() as u64;
        (address.checked_sub(*begin)? < len).then_some(index)
    }

    /// Whether `address` lies in the function.
    pub fn contains(&self, address: u64) -> bool {
        self.ranges
            .iter()
            .any(|(start, end)| *start <= address && address < *end)
    }

    /// Whether an instruction is the first of a part.
    pub(crate) fn starts_part(&self, index: usize) -> bool {
        self.starts.contains(&index)
    }

    /// Whether an instruction is the last of a part.
    pub fn ends_part(&self, index: usize) -> bool {
        index + 1 == self.instructions.len() || self.starts.contains(&(index + 1))
    }
}
