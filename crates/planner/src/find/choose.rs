//! Of all functions that a pattern may mean, in all files: those that it means.

use std::collections::{BTreeSet, HashSet};

use image::symbol::{Elf, Language};

use super::{
    Found, Function, Functions, Reading, Whose, is_glue,
    own::{by_name, own_crates},
    spelling::{Spelled, Spelling},
};
use crate::probe_spec::FunctionPattern;
use model::text::counted;

/// What a pattern may mean in the files of a process.
#[derive(Default)]
pub struct Candidates {
    files: Vec<(usize, Vec<Candidate>)>,
    left_out: LeftOut,
}

struct Candidate {
    whose: Whose,
    found: Found,
}

/// What patterns do not take unless it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Destructors of C++, drops of Rust.
    pub destructors: usize,
    /// Copies and parts of functions that the compiler made, where the function itself is there.
    pub clones: usize,
}

impl LeftOut {
    /// Whether there was nothing.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Says what it is.
    pub fn sentence(self) -> String {
        let Self {
            destructors,
            clones,
        } = self;
        let mut parts = Vec::new();
        if destructors > 0 {
            let what = counted(destructors as u64, "destructor");
            parts.push(format!("{what} (a pattern with `~` or `drop` in it does)"));
        }
        if clones > 0 {
            let what = counted(clones as u64, "clone");
            parts.push(format!(
                "{what} that the compiler made of functions (the function's name does, and a pattern with its ending in it, as `.part`)"
            ));
        }
        parts.join(", nor ")
    }

    /// With those of another file.
    pub fn and(self, other: Self) -> Self {
        Self {
            destructors: self.destructors + other.destructors,
            clones: self.clones + other.clones,
        }
    }
}

/// What a pattern means.
#[derive(Debug)]
pub struct Chosen {
    /// How it was read.
    pub reading: Reading,
    /// The functions, by the index of their file.
    pub files: Vec<(usize, Vec<Function>)>,
}

impl Candidates {
    /// Adds what the pattern may mean in a file, which is whose. Answers whether it means something by what it says.
    pub fn add(
        &mut self,
        pattern: &FunctionPattern,
        index: usize,
        of_file: Whose,
        elf: &Elf,
    ) -> bool {
        let found = Functions::of(elf).read(pattern);
        let is_glob = matches!(pattern, FunctionPattern::Glob(_));
        let (found, left_out) = if is_glob {
            leave_out(pattern, found, elf)
        } else {
            (found, LeftOut::default())
        };
        self.left_out = self.left_out.and(left_out);
        if found.is_empty() {
            return false;
        }
        // Whose code it is matters where names are read loosely, and takes a look at all of them.
        let own = if found.iter().any(|found| found.reading > Reading::Pattern) {
            own_crates(elf)
        } else {
            HashSet::new()
        };
        let candidates: Vec<Candidate> = found
            .into_iter()
            .map(|found| {
                let function = &found.function;
                let by_name = by_name(&function.plain, &function.symbol, function.language, &own);
                Candidate {
                    whose: by_name.max(of_file),
                    found,
                }
            })
            .collect();
        let says = candidates
            .iter()
            .any(|candidate| candidate.found.reading <= Reading::Pattern);
        self.files.push((index, candidates));
        says
    }

    /// What patterns left out.
    pub fn left_out(&self) -> LeftOut {
        self.left_out
    }

    /// The least that the pattern has to be read by.
    pub fn reading(&self) -> Option<Reading> {
        self.files
            .iter()
            .flat_map(|(_, candidates)| candidates)
            .map(|candidate| candidate.found.reading)
            .min()
    }

    /// What the pattern means; nothing where there is nothing.
    ///
    /// # Errors
    /// With the names that it could mean, where it is a name and they are several functions'.
    pub fn choose(mut self, pattern: &FunctionPattern) -> Result<Option<Chosen>, Vec<String>> {
        let Some(reading) = self.reading() else {
            return Ok(None);
        };
        self.retain(|candidate| candidate.found.reading == reading);
        if reading > Reading::Pattern {
            let whose = self.all().map(|candidate| candidate.whose).min();
            self.retain(|candidate| Some(candidate.whose) == whose);
            if !matches!(pattern, FunctionPattern::Glob(_)) && reading != Reading::Loose {
                let functions: BTreeSet<String> = self
                    .all()
                    .map(|candidate| one_function(&candidate.found.function))
                    .collect();
                if functions.len() > 1 {
                    let names: BTreeSet<&str> = self
                        .all()
                        .map(|candidate| candidate.found.function.plain.as_str())
                        .collect();
                    return Err(names.into_iter().map(str::to_owned).collect());
                }
            }
        }
        let files = self.files.into_iter().map(|(index, candidates)| {
            let functions = candidates.into_iter();
            (
                index,
                functions
                    .map(|candidate| candidate.found.function)
                    .collect(),
            )
        });
        Ok(Some(Chosen {
            reading,
            files: files.collect(),
        }))
    }

    fn all(&self) -> impl Iterator<Item = &Candidate> {
        self.files.iter().flat_map(|(_, candidates)| candidates)
    }

    fn retain(&mut self, keep: impl Fn(&Candidate) -> bool) {
        for (_, candidates) in &mut self.files {
            candidates.retain(&keep);
        }
        self.files.retain(|(_, candidates)| !candidates.is_empty());
    }
}

/// What instances and overloads of a function have in common.
fn one_function(function: &Function) -> String {
    Spelled::within(&function.plain, function.language, Spelling::Types).path()
}

/// Leaves out what a pattern is not meant to take unless it says so.
pub(super) fn leave_out(
    pattern: &FunctionPattern,
    found: Vec<Found>,
    elf: &Elf,
) -> (Vec<Found>, LeftOut) {
    let text = pattern.to_string();
    let takes_destructors = text.contains('~') || text.contains("drop");
    let takes_clones = [
        ".cold",
        ".part",
        ".constprop",
        ".isra",
        ".lto_priv",
        ".llvm",
    ]
    .iter()
    .any(|mark| text.contains(mark));
    let owners: HashSet<&str> = found
        .iter()
        .filter(|found| found.function.is_clone)
        .map(|found| found.function.of_clone())
        .collect();
    let mut there: HashSet<&str> = HashSet::new();
    if !owners.is_empty() {
        let names = elf.symbols.iter().map(|symbol| symbol.name.as_str());
        there.extend(names.filter(|name| owners.contains(name)));
    }
    let mut left_out = LeftOut::default();
    let kept: Vec<bool> = found
        .iter()
        .map(|Found { reading, function }| {
            // It was named, pattern or not.
            if *reading == Reading::Name {
                return true;
            }
            if is_glue(&function.symbol) {
                return false;
            }
            // Where the compiler left nothing but a copy, that is the function.
            if !takes_clones && function.is_clone && there.contains(function.of_clone()) {
                left_out.clones += 1;
                return false;
            }
            if !takes_destructors && is_destructor(function) {
                left_out.destructors += 1;
                return false;
            }
            true
        })
        .collect();
    let mut kept = kept.into_iter();
    let mut found = found;
    found.retain(|_| kept.next().unwrap_or(true));
    (found, left_out)
}

fn is_destructor(function: &Function) -> bool {
    match function.language {
        Language::Cpp => Spelled::of(&function.plain, Spelling::Types)
            .last()
            .starts_with('~'),
        Language::Rust => function.plain.starts_with("core::ptr::drop_in_place"),
        Language::C | Language::Go => false,
    }
}
