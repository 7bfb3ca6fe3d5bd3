//! The functions of a module, and those that a pattern stands for.

mod choose;
mod many;
mod names;
mod near;
mod own;
mod reading;
mod select;
mod spelling;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::probe_spec::FunctionPattern;
use image::symbol::{
    Elf, Language, Names, Origin, Proven, Starts, Symbol, SymbolKind, Unconfirmed, go_plain_name,
    without_clone_marks,
};
use names::{cold_owner, coroutine_of, is_of_coroutine};
use reading::Reader;
use sites::{Block, Poll};

pub use choose::{Candidates, Chosen, LeftOut};
pub use many::{NAMES_SHOWN, list};
pub(crate) use names::future_owner;
pub use near::Near;
pub use own::{Whose, is_glue, of_file};
pub use reading::Reading;
pub(crate) use reading::plain_names_of;
pub use select::{Listed, Selection};

/// Functions that one run may probe. More than this is a mistake rather than a wish.
pub const MAX_FUNCTIONS: usize = 5_000;

/// A function that can be probed, or a reason why not.
#[derive(Clone, Debug)]
pub struct Function {
    /// Qualified name without parameters: the span's operation.
    pub plain: String,
    /// With parameters.
    pub full: String,
    /// The symbol, with the compiler's endings.
    pub symbol: String,
    /// Language of the name.
    pub language: Language,
    /// Virtual address.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// A part that the compiler split off.
    pub is_part: bool,
    /// A copy or a part that the compiler made of a function: its symbol has an ending.
    pub is_clone: bool,
    /// Address and size of its cold half, where it has one.
    pub cold: Option<(u64, u64)>,
    /// Code that chooses a function, not one to trace.
    pub is_indirect: bool,
    /// What is called of a C++ coroutine: it makes the frame, and runs to the first suspension.
    pub is_coroutine: bool,
    /// An async function of Rust whose future has no poll of its own: what is called only makes the future.
    pub only_makes_future: bool,
    /// See [`Symbol::is_local`].
    pub is_local: bool,
    /// Who says that it begins there.
    pub origin: Origin,
    /// It was found as what may be the future of the function that the user named.
    pub is_of_future: bool,
    /// It polls a future.
    pub future: Option<Arc<Poll>>,
    /// Only these lines of it.
    pub block: Option<Arc<Block>>,
}

impl Function {
    /// Its code, decoded from starts that its file confirms.
    ///
    /// # Errors
    /// Where a part of it is not confirmed, or not completely made of instructions.
    pub fn code(&self, starts: &Starts<'_>) -> Result<Proven, Unconfirmed> {
        starts.code(self.address, self.cold.map(|(cold, _)| cold), self.origin)
    }

    /// The symbol of the function that it is a copy or a part of; its own where it is none.
    fn of_clone(&self) -> &str {
        without_clone_marks(&self.symbol)
    }

    /// What tells it from others in its file: where its calls begin.
    pub fn place(&self) -> u64 {
        self.block
            .as_ref()
            .map_or(self.address, |block| block.entry)
    }
}

/// A function that a pattern may mean.
#[derive(Clone, Debug)]
pub struct Found {
    /// How the pattern has to be read.
    pub reading: Reading,
    /// The function.
    pub function: Function,
}

impl Found {
    fn order(&self) -> (u64, Reading, usize, &str, &str) {
        let function = &self.function;
        let (plain, symbol) = (&function.plain, &function.symbol);
        (function.address, self.reading, plain.len(), plain, symbol)
    }
}

/// The functions of a module.
pub struct Functions<'a> {
    elf: &'a Elf,
    /// Cold halves by the symbol that they belong to.
    cold: HashMap<&'a str, &'a Symbol>,
    /// Coroutines, by symbol.
    coroutines: HashSet<&'a str>,
    /// Names that functions of several versions have.
    in_versions: HashSet<&'a str>,
}

impl<'a> Functions<'a> {
    /// Indexes a module.
    pub fn of(elf: &'a Elf) -> Self {
        let mut cold = HashMap::new();
        let mut coroutines = HashSet::new();
        let (mut versions, mut in_versions) = (HashMap::new(), HashSet::new());
        for symbol in &elf.symbols {
            if let Some(version) = &symbol.version
                && versions
                    .insert(symbol.name.as_str(), version)
                    .is_some_and(|other| other != version)
            {
                in_versions.insert(symbol.name.as_str());
            }
            if let Some(owner) = cold_owner(&symbol.name) {
                cold.insert(owner, symbol);
            }
            coroutines.extend(coroutine_of(&symbol.name));
        }
        Self {
            elf,
            cold,
            coroutines,
            in_versions,
        }
    }

    /// The functions that a pattern stands for by what it says, ascending by address, each address once.
    pub fn matching(&self, pattern: &FunctionPattern) -> Vec<Function> {
        let found = self.read(pattern).into_iter();
        found
            .filter(|found| found.reading <= Reading::Pattern)
            .map(|found| found.function)
            .collect()
    }

    /// The functions that a pattern may stand for, ascending by address, each address once, with how it has to be read.
    pub fn read(&self, pattern: &FunctionPattern) -> Vec<Found> {
        let _reading = self.elf.budget.reading();
        let mut all: Vec<Found> = Vec::new();
        let reader = Reader::of(pattern, self.elf.go.is_some());
        for symbol in &self.elf.symbols {
            if reader.is_out(&symbol.name) {
                continue;
            }
            let is_there = match pattern {
                FunctionPattern::Address(address) if symbol.address != *address => continue,
                FunctionPattern::Address(_) => true,
                _ => false,
            };
            if cold_owner(&symbol.name).is_some() {
                continue;
            }
            let names = Names::of_file(&symbol.name, &self.elf.budget);
            let is_version = versioned(symbol).is_some_and(|name| pattern.matches(&name));
            let mut reading = if is_there || is_version {
                Some(Reading::Name)
            } else {
                reader.read(&names, &symbol.name)
            };
            let mut owner = None;
            if names.language == Language::Rust
                && reading.is_none_or(|reading| reading > Reading::Pattern)
                && let Some((of_owner, plain)) = reader.read_owner(&names)
                && reading.is_none_or(|reading| reading > of_owner)
            {
                reading = Some(of_owner);
                owner = Some(plain);
            }
            let Some(reading) = reading else {
                continue;
            };
            let mut function = self.function(symbol, names);
            if let Some(plain) = owner {
                function.is_of_future = true;
                function.plain = plain;
            }
            all.push(Found { reading, function });
        }
        // Aliases: one function per address; the shortest name stands for it.
        all.sort_by(|a, b| a.order().cmp(&b.order()));
        all.dedup_by_key(|found| found.function.address);
        all
    }

    /// Plain names of other functions that are the same code: the linker or compiler has merged what is equal.
    /// Not those that are one function by design: aliases of C, constructors of two kinds.
    pub(crate) fn merged_with(&self, function: &Function) -> Vec<String> {
        let first = self
            .elf
            .symbols
            .partition_point(|symbol| symbol.address < function.address);
        let others = self.elf.symbols.iter().skip(first);
        let mut names: Vec<String> = others
            .take_while(|symbol| symbol.address == function.address)
            .filter(|symbol| symbol.name != function.symbol)
            .map(|symbol| Names::of_file(&symbol.name, &self.elf.budget))
            .filter(|names| match (names.language, function.language) {
                (Language::Cpp, Language::Cpp) | (Language::Rust, Language::Rust) => {
                    names.plain != function.plain
                }
                (Language::C, Language::C) => {
                    let (one, other) = (&names.plain, &function.plain);
                    // Names that begin so are a library's own.
                    let is_alias = one.starts_with('_') || other.starts_with('_');
                    !is_alias && !one.contains(other.as_str()) && self.elf.go.is_none()
                }
                _ => false,
            })
            .map(|names| names.plain)
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The function that an address lies in.
    pub fn containing(&self, address: u64) -> Option<Function> {
        let symbols = &self.elf.symbols;
        let behind = symbols.partition_point(|symbol| symbol.address <= address);
        let contains = |symbol: &Symbol| {
            let distance = address.checked_sub(symbol.address);
            distance.is_some_and(|distance| distance < symbol.size)
        };
        // The nearest start: a symbol may say that it is as large as the file.
        let start = symbols
            .get(..behind)?
            .iter()
            .rfind(|symbol| contains(symbol))?
            .address;
        let first = symbols.partition_point(|symbol| symbol.address < start);
        let mut there = symbols.get(first..behind)?.iter();
        there
            .find(|symbol| contains(symbol))
            .map(|symbol| self.of_symbol(symbol))
    }

    /// The function that a symbol of this file names.
    pub fn of_symbol(&self, symbol: &Symbol) -> Function {
        self.function(symbol, Names::of_file(&symbol.name, &self.elf.budget))
    }

    fn function(&self, symbol: &Symbol, names: Names) -> Function {
        let is_go = self.elf.go.is_some() && names.language == Language::C;
        let (language, plain) = if is_go {
            (Language::Go, go_plain_name(&symbol.name))
        } else {
            (names.language, names.plain)
        };
        Function {
            full: if is_go {
                symbol.name.clone()
            } else {
                match versioned(symbol) {
                    Some(name) if self.in_versions.contains(symbol.name.as_str()) => name,
                    _ => names.full,
                }
            },
            plain,
            symbol: symbol.name.clone(),
            language,
            address: symbol.address,
            size: symbol.size,
            is_part: names.is_part,
            is_clone: names.mangled.len() < symbol.name.len(),
            cold: self
                .cold
                .get(symbol.name.as_str())
                .map(|cold| (cold.address, cold.size)),
            is_indirect: symbol.kind == SymbolKind::Indirect,
            is_coroutine: self.coroutines.contains(symbol.name.as_str())
                || is_of_coroutine(&symbol.name),
            only_makes_future: false,
            is_local: symbol.is_local,
            origin: symbol.origin,
            is_of_future: false,
            future: None,
            block: None,
        }
    }
}

/// A function's name with its version: `memcpy@GLIBC_2.14`.
fn versioned(symbol: &Symbol) -> Option<String> {
    let version = symbol.version.as_deref()?;
    Some(format!("{}@{version}", symbol.name))
}

#[cfg(test)]
mod tests;
