//! The functions that a list shows: those that a probe would take, and for a name all that have it in theirs.

use std::collections::{HashMap, HashSet};

use image::symbol::Elf;

use super::{
    Candidates, Found, Function, Functions, LeftOut, Reading, Whose,
    choose::leave_out,
    is_glue,
    own::{by_name, own_crates},
};
use crate::probe_spec::FunctionPattern;

/// What is to be listed, file by file.
pub struct Selection<'a> {
    pattern: Option<&'a FunctionPattern>,
    /// For a pattern: what it means depends on all files.
    candidates: Candidates,
    files: Vec<(usize, Vec<Function>)>,
    left_out: LeftOut,
    closest: Option<Reading>,
    of_files: HashMap<usize, (Whose, HashSet<String>)>,
}

/// What is listed.
pub struct Listed {
    /// The functions, by the index of their file: what was named first, then the program's own.
    pub files: Vec<(usize, Vec<Function>)>,
    /// What a pattern did not take.
    pub left_out: LeftOut,
    /// How a name was read; `None` where it is only a part of names.
    pub closest: Option<Reading>,
}

impl<'a> Selection<'a> {
    /// Of all functions, or those that a pattern means.
    pub fn of(pattern: Option<&'a FunctionPattern>) -> Self {
        Self {
            pattern,
            candidates: Candidates::default(),
            files: Vec::new(),
            left_out: LeftOut::default(),
            closest: None,
            of_files: HashMap::new(),
        }
    }

    /// Adds a file, which is whose.
    pub fn add(&mut self, index: usize, of_file: Whose, elf: &Elf) {
        let functions = Functions::of(elf);
        self.of_files.insert(index, (of_file, own_crates(elf)));
        match self.pattern {
            None => {
                let mut all = functions.matching(&FunctionPattern::Glob("*".to_owned()));
                all.retain(|function| !is_glue(&function.symbol));
                self.files.push((index, all));
            }
            Some(pattern @ FunctionPattern::Name(word)) => {
                let mut found = functions.read(pattern);
                self.closest = self
                    .closest
                    .into_iter()
                    .chain(found.iter().map(|found| found.reading))
                    .min();
                let known: HashSet<u64> =
                    found.iter().map(|found| found.function.address).collect();
                let containing = FunctionPattern::Glob(format!("*{word}*"));
                let (more, left_out) = leave_out(&containing, functions.read(&containing), elf);
                self.left_out = self.left_out.and(left_out);
                let more = more
                    .into_iter()
                    .filter(|more| more.reading <= Reading::Pattern)
                    .filter(|more| !known.contains(&more.function.address))
                    .filter(|more| has_word(&more.function, word));
                found.extend(more.map(|more| Found {
                    reading: Reading::Loose,
                    ..more
                }));
                found.sort_by_key(|found| found.reading);
                let functions = found.into_iter().map(|found| found.function);
                self.files.push((index, functions.collect()));
            }
            Some(pattern) => {
                self.candidates.add(pattern, index, of_file, elf);
            }
        }
    }

    /// The list: of files, those with the program's own functions first.
    pub fn finish(self) -> Listed {
        let Self {
            pattern,
            candidates,
            mut files,
            mut left_out,
            closest,
            of_files,
        } = self;
        let is_name = matches!(pattern, Some(FunctionPattern::Name(_)));
        if let Some(pattern) = pattern.filter(|_| !is_name) {
            left_out = candidates.left_out();
            // Only names can be several functions'.
            if let Ok(Some(chosen)) = candidates.choose(pattern) {
                files = chosen.files;
            }
        }
        files.retain(|(_, functions)| !functions.is_empty());
        for (index, functions) in &mut files {
            let Some((_, own)) = of_files.get(index).filter(|_| !is_name) else {
                continue;
            };
            functions.sort_by_cached_key(|function| {
                by_name(&function.plain, &function.symbol, function.language, own)
            });
        }
        files.sort_by_key(|(index, _)| of_files.get(index).map(|(of_file, _)| *of_file));
        Listed {
            files,
            left_out,
            closest,
        }
    }
}

/// Whether a name has a word, but for what demanglers write where there is none.
fn has_word(function: &Function, word: &str) -> bool {
    const NAMELESS: &str = "(anonymous namespace)";
    !NAMELESS.contains(word)
        || function.symbol.contains(word)
        || function.full.replace(NAMELESS, "").contains(word)
}
