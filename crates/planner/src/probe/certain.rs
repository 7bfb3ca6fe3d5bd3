//! Whose result is a result. Who can be called from outside, or whose address is taken, returns what its type says. Of
//! a function that only its own file calls by name the compiler may have dropped the result (`sites::callers` says
//! how): then a caller must be seen to look at it.
//!
//! It takes a pass over the file's code for all functions that are asked for, and one more for each round of callers
//! that only hand a result on.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use crate::capture::Certainty;
use image::{
    Image,
    symbol::{Elf, Symbol, SymbolKind},
};
use sites::{Code, CodePart, MENTION, Reads, Use};

/// What is spent on a file.
const MAX_TIME: Duration = Duration::from_secs(2);
/// Code that is searched in one pass, in bytes, and at a time.
const MAX_CODE: u64 = 512 << 20;
const AT_A_TIME: u64 = 1 << 20;
/// Largest function that is looked at as a caller, in bytes.
const MAX_FUNCTION: u64 = 1 << 20;
/// Callers that hand results on to their callers, in a row.
const MAX_ROUNDS: usize = 3;
/// Functions that are looked at for whether one changes a register.
const MAX_CHANGED: usize = 24;

/// What is known of results, by the address of a function.
#[derive(Debug, Default)]
pub(crate) struct Certain(HashMap<u64, Certainty>);

/// What was seen of a function.
#[derive(Clone, Debug, Default)]
struct Seen {
    is_taken: bool,
    read: u16,
    /// Callers that return with what it returned, and in which registers.
    passed_by: Vec<(u64, u16)>,
}

impl Certain {
    /// Looks at functions of a file that only it calls by name. `returns` are registers in which the function at an
    /// address returns something, by its type; `None` where nothing says so.
    pub(crate) fn of(
        module: &Image,
        elf: &Elf,
        functions: &[u64],
        wanted: u16,
        returns: &mut dyn FnMut(u64) -> Option<u16>,
    ) -> Self {
        if functions.is_empty() {
            return Self::default();
        }
        let mut search = Search {
            module,
            elf,
            wanted,
            until: Instant::now() + MAX_TIME,
            seen: BTreeMap::new(),
            is_whole: true,
        };
        let mut next: Vec<u64> = functions.to_vec();
        for _ in 0..MAX_ROUNDS {
            next.sort_unstable();
            next.dedup();
            next.retain(|address| !search.seen.contains_key(address));
            if next.is_empty() {
                break;
            }
            search.look(&next);
            // Callers whose own callers decide.
            next = search
                .open()
                .filter(|caller| search.is_local(*caller))
                .collect();
        }
        search.settle(returns);
        let certain = functions.iter().map(|address| {
            let seen = search.seen.get(address).cloned().unwrap_or_default();
            let certainty = if search.is_shared(*address) {
                Certainty::Shared
            } else if seen.is_taken {
                Certainty::Whole
            } else {
                // What a function does not change is its caller's own.
                let read = seen.read & search.changed(*address, seen.read);
                match search.is_whole {
                    true => Certainty::Registers(read),
                    false => Certainty::Unfinished(read),
                }
            };
            (*address, certainty)
        });
        Self(certain.collect())
    }

    /// What is known of the function at an address that was looked at.
    pub(crate) fn get(&self, address: u64) -> Certainty {
        let found = self.0.get(&address).copied();
        found.unwrap_or(Certainty::Registers(0))
    }
}

/// Functions that arguments are followed into.
const MAX_FOLLOWED: usize = 32;

/// What a function reads of its arguments, itself or where it hands them on. Who is unknown is taken to read them.
pub(crate) fn reads(module: &Image, elf: &Elf, code: &Code) -> Reads {
    let mut found = sites::reads(code);
    let mut open = std::mem::take(&mut found.passed);
    let mut seen = HashSet::from([(code.entry(), u16::MAX)]);
    while let Some((to, held)) = open.pop() {
        let held = held & !found.registers;
        if held == 0 {
            continue;
        }
        let next = to.and_then(|to| {
            let first = elf.symbols.partition_point(|symbol| symbol.address < to);
            let there = elf.symbols.get(first..)?.iter();
            there
                .take_while(|symbol| symbol.address == to)
                .find(|symbol| symbol.size > 0)
                .and_then(|symbol| decoded(module, elf, to, symbol.size))
        });
        let Some(next) = next.filter(|_| seen.len() < MAX_FOLLOWED) else {
            found.registers |= held;
            continue;
        };
        if seen.insert((next.entry(), held)) {
            let inner = sites::reads(&next);
            found.registers |= held & inner.registers;
            open.extend(
                inner
                    .passed
                    .into_iter()
                    .map(|(to, inner)| (to, inner & held)),
            );
        }
    }
    found
}

/// A function's code.
fn decoded(module: &Image, elf: &Elf, address: u64, size: u64) -> Option<Code> {
    let size = usize::try_from(size.min(MAX_FUNCTION)).ok()?;
    let bytes = elf.bytes(&module.file, address, size)?;
    Code::decode(&[CodePart { address, bytes }]).ok()
}

struct Search<'a> {
    module: &'a Image,
    elf: &'a Elf,
    wanted: u16,
    until: Instant,
    seen: BTreeMap<u64, Seen>,
    /// There was time for all of it.
    is_whole: bool,
}

impl Search<'_> {
    /// Callers that only hand on what they are returned, of functions that nobody was seen to look at.
    fn open(&self) -> impl Iterator<Item = u64> {
        let seen = self.seen.values();
        seen.filter(|seen| !seen.is_taken && seen.read == 0)
            .flat_map(|seen| seen.passed_by.iter().map(|(caller, _)| *caller))
    }

    /// Goes through the file for who uses functions.
    fn look(&mut self, functions: &[u64]) {
        for address in functions {
            self.seen.entry(*address).or_default();
        }
        let data = (self.elf).taken_in_data(&self.module.file, functions, self.until);
        for address in data.unwrap_or_default() {
            self.seen.entry(address).or_default().is_taken = true;
        }
        let mut by_caller: BTreeMap<u64, (u64, Vec<sites::Mention>)> = BTreeMap::new();
        let mut left = MAX_CODE;
        for segment in self
            .elf
            .segments
            .iter()
            .filter(|segment| segment.executable)
        {
            let mut done = 0;
            while done < segment.file_size {
                // What crosses the end of a part is in the next one, too.
                let now = (segment.file_size - done).min(AT_A_TIME + MENTION as u64 - 1);
                let address = segment.address.saturating_add(done);
                let bytes = (left >= now && Instant::now() < self.until)
                    .then(|| self.elf.bytes(&self.module.file, address, now as usize))
                    .flatten();
                let Some(bytes) = bytes else {
                    self.is_whole = false;
                    break;
                };
                left -= now;
                for mention in sites::mentions(&bytes, address, functions, self.elf.is_fixed) {
                    if let Some(caller) = self.function_over(mention.at) {
                        let at = (caller.size, Vec::new());
                        let caller = by_caller.entry(caller.address).or_insert(at);
                        caller.1.push(mention);
                    }
                }
                done += now.min(AT_A_TIME);
            }
        }
        for (caller, (size, mentions)) in by_caller {
            if Instant::now() >= self.until {
                self.is_whole = false;
                return;
            }
            if let Some(code) = self.code(caller, size) {
                self.uses(caller, &code, &mentions);
            }
        }
    }

    fn uses(&mut self, caller: u64, code: &Code, mentions: &[sites::Mention]) {
        for mention in mentions {
            let Some(used) = mention.by(code, self.wanted) else {
                continue;
            };
            let Some(seen) = self.seen.get_mut(&mention.of) else {
                continue;
            };
            let mut passed = 0;
            match used {
                Use::Address => seen.is_taken = true,
                Use::Call { read, passed: on } => {
                    seen.read |= read;
                    passed = on;
                }
                Use::Jump => passed = self.wanted,
            }
            if passed != 0 && caller != mention.of {
                seen.passed_by.push((caller, passed));
            }
        }
    }

    /// What is handed on counts where the one who does returns something himself, and that is certain.
    fn settle(&mut self, returns: &mut dyn FnMut(u64) -> Option<u16>) {
        for _ in 0..MAX_ROUNDS {
            let mut more: Vec<(u64, u16)> = Vec::new();
            for (address, seen) in &self.seen {
                for (caller, passed) in &seen.passed_by {
                    let certain = match self.seen.get(caller) {
                        _ if !self.is_local(*caller) => self.wanted,
                        Some(caller) if caller.is_taken => self.wanted,
                        Some(caller) => caller.read,
                        None => 0,
                    };
                    let open = passed & certain & !seen.read;
                    if seen.is_taken || open == 0 {
                        continue;
                    }
                    let read = open & returns(*caller).unwrap_or(0);
                    if read != 0 {
                        more.push((*address, read));
                    }
                }
            }
            if more.is_empty() {
                return;
            }
            for (address, read) in more {
                self.seen.entry(address).or_default().read |= read;
            }
        }
    }

    /// Which of some registers a function changes, or one that it calls.
    fn changed(&self, address: u64, registers: u16) -> u16 {
        let mut found = 0;
        let mut open = vec![address];
        let mut seen = HashSet::new();
        while let Some(address) = open.pop() {
            if found & registers == registers || !seen.insert(address) {
                continue;
            }
            let symbol = self.symbols_at(address).find(|symbol| symbol.size > 0);
            let code = symbol.and_then(|symbol| self.code(address, symbol.size));
            let (Some(code), true) = (code, seen.len() <= MAX_CHANGED) else {
                // What is not known may change all, as its callers have to think.
                return registers;
            };
            let changes = sites::changes(&code);
            found |= changes.written;
            if changes.elsewhere {
                return registers;
            }
            open.extend(changes.calls);
        }
        found & registers
    }

    fn code(&self, address: u64, size: u64) -> Option<Code> {
        decoded(self.module, self.elf, address, size)
    }

    fn symbols_at(&self, address: u64) -> impl Iterator<Item = &Symbol> {
        let symbols = &self.elf.symbols;
        let first = symbols.partition_point(|symbol| symbol.address < address);
        let there = symbols.get(first..).unwrap_or_default().iter();
        there
            .take_while(move |symbol| symbol.address == address)
            .filter(|symbol| symbol.kind == SymbolKind::Function)
    }

    /// Whether only its own file can call the function at an address by name.
    fn is_local(&self, address: u64) -> bool {
        self.symbols_at(address).all(|symbol| symbol.is_local)
    }

    /// Whether several functions begin at an address.
    fn is_shared(&self, address: u64) -> bool {
        let mut names = self.symbols_at(address).map(|symbol| stem(&symbol.name));
        let first = names.next();
        names.any(|name| Some(name) != first)
    }

    /// The function of this file in which an address lies.
    fn function_over(&self, address: u64) -> Option<&Symbol> {
        let symbols = &self.elf.symbols;
        let behind = symbols.partition_point(|symbol| symbol.address <= address);
        let before = symbols.get(..behind)?.iter().rev();
        before.take(8).find(|symbol| {
            symbol.kind == SymbolKind::Function && address - symbol.address < symbol.size
        })
    }
}

/// A symbol without what compilers append, and without which of a class's constructors it is.
fn stem(name: &str) -> String {
    let plain = name.split('.').next().unwrap_or(name);
    let mut stem = plain.to_owned();
    for (complete, base) in [
        ("C1E", "C2E"),
        ("D1E", "D2E"),
        ("C3E", "C2E"),
        ("D0E", "D2E"),
    ] {
        stem = stem.replace(complete, base);
    }
    stem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_function() {
        assert_eq!(stem("f.localalias"), stem("f"));
        assert_eq!(stem("_ZN3BoxC1Ei"), stem("_ZN3BoxC2Ei"));
        assert_ne!(stem("f"), stem("g"));
    }
}
