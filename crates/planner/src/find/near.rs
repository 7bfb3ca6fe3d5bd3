//! Functions that may have been meant by a name that none has.

use std::collections::HashSet;

use image::symbol::{Elf, Language, Names, go_plain_name, how_near};

use super::{
    Whose,
    names::cold_owner,
    own::{by_name, own_crates},
    spelling::{Spelled, Spelling},
};

/// Suggestions that are made.
const SUGGESTIONS: usize = 5;
/// What is kept while names are compared.
const KEPT: usize = 512;

/// The nearest names, the user's own first.
pub struct Near<'a> {
    wanted: &'a str,
    cpp: Spelled,
    go: Spelled,
    found: Vec<Suggestion>,
}

/// A name that may have been meant: in this order, the nearest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Suggestion {
    /// The function's own name is another.
    is_other: bool,
    whose: Whose,
    /// Letters that differ.
    distance: usize,
    /// Other parts of what is wanted that it does not have.
    missing: usize,
    len: usize,
    name: String,
}

impl<'a> Near<'a> {
    /// Of a name.
    pub fn to(wanted: &'a str) -> Self {
        Self {
            wanted,
            cpp: Spelled::of(wanted, Spelling::Namespaces),
            go: Spelled::of_go(wanted),
            found: Vec::new(),
        }
    }

    /// Compares it with all functions of a file, which is whose.
    pub fn add(&mut self, of_file: Whose, elf: &Elf) {
        let own = own_crates(elf);
        for symbol in &elf.symbols {
            if cold_owner(&symbol.name).is_some() {
                continue;
            }
            let names = Names::of_file(&symbol.name, &elf.budget);
            let is_go = elf.go.is_some() && names.language == Language::C;
            let (language, plain) = if is_go {
                (Language::Go, go_plain_name(&symbol.name))
            } else {
                (names.language, names.plain)
            };
            self.compare(plain, &symbol.name, language, of_file, &own);
        }
    }

    fn compare(
        &mut self,
        plain: String,
        symbol: &str,
        language: Language,
        of_file: Whose,
        own: &HashSet<String>,
    ) {
        let wanted = match language {
            Language::Go => &self.go,
            _ => &self.cpp,
        };
        let spelled = Spelled::within(&plain, language, Spelling::Namespaces);
        // What a closure is in is what has a name.
        let (wanted_last, last) = (wanted.last(), spelled.last());
        let Some(distance) = how_near(&wanted_last.to_lowercase(), &last.to_lowercase()) else {
            return;
        };
        let whose = by_name(&plain, symbol, language, own).max(of_file);
        if whose == Whose::Glue {
            return;
        }
        let missing = wanted
            .parts()
            .rev()
            .skip(1)
            .filter(|wanted| !spelled.parts().any(|part| part == *wanted))
            .count();
        self.found.push(Suggestion {
            is_other: distance > 0,
            whose,
            // The same letters before others, a capital that is small before a mistake.
            distance: 2 * distance + usize::from(distance == 0 && wanted_last != last),
            missing,
            len: plain.len(),
            name: plain,
        });
        if self.found.len() > KEPT {
            self.keep(SUGGESTIONS);
        }
    }

    fn keep(&mut self, many: usize) {
        self.found.sort_unstable();
        self.found.dedup_by(|a, b| a.name == b.name);
        self.found.truncate(many);
    }

    /// The names, the nearest first: of libraries only where none of the user's own is near. `certain`: only those that
    /// hardly anything else was meant by.
    pub fn names(mut self, certain: bool) -> Vec<String> {
        self.keep(SUGGESTIONS);
        let Some(first) = self.found.first().cloned() else {
            return Vec::new();
        };
        let is_certain = |near: &Suggestion| near.distance <= 2 && self.wanted.len() > 3;
        let near = self.found.iter();
        near.filter(|near| near.whose == first.whose && (!certain || is_certain(near)))
            .map(|near| near.name.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nearest(wanted: &str, language: Language, names: &[&str]) -> Vec<String> {
        let mut near = Near::to(wanted);
        let own = HashSet::new();
        for name in names {
            near.compare((*name).to_owned(), name, language, Whose::Own, &own);
        }
        near.names(false)
    }

    #[test]
    fn names_are_ranked_by_their_last_part_and_own_ones_come_first() {
        let go = [
            "time.loadTzinfo",
            "mime.loadMimeFile",
            "main.(*Store).LoadAll",
            "main.(*Store).Lode",
            "sync.(*Map).Lode",
        ];
        assert_eq!(
            nearest("(*Store).Loda", Language::Go, &go),
            ["main.(*Store).Lode"]
        );
        assert_eq!(
            nearest("Loadall", Language::Go, &go),
            ["main.(*Store).LoadAll"]
        );
        let cpp = [
            "shop::Db::fetch",
            "shop::fetch_all",
            "std::fetch",
            "other::Db::fetsch",
        ];
        assert_eq!(
            nearest("shop::Db::Fetch", Language::Cpp, &cpp)[0],
            "shop::Db::fetch"
        );
        assert_eq!(
            nearest("Db::fetchs", Language::Cpp, &cpp),
            ["shop::Db::fetch", "other::Db::fetsch"]
        );
        // Only a library has something of the kind.
        assert_eq!(
            nearest("fetc", Language::Cpp, &["std::fetch"]),
            ["std::fetch"]
        );
        assert!(nearest("_fnit", Language::C, &["_init", "_fini"]).is_empty());
    }

    #[test]
    fn many_names_are_compared_in_bounded_room() {
        let names: Vec<String> = (0..5_000).map(|number| format!("load_{number}")).collect();
        let mut all: Vec<&str> = names.iter().map(String::as_str).collect();
        all.push("laod");
        assert_eq!(nearest("load", Language::C, &all)[0], "laod");
    }
}
