//! What a name or pattern may mean, from what it says to the least that it can: `--probe` and `symbols` both read it so.

use image::symbol::{Language, Names, go_plain_name};

use super::{
    names::{future_owner, last_word, without_instance},
    spelling::{Spelled, Spelling, contains_parts, same_part},
};
use crate::probe_spec::FunctionPattern;
use model::text::glob;

/// How a function came to be meant; the first that finds any is taken, so that a name that is there always wins over a
/// looser reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reading {
    /// It is called so, to the letter but for idle spaces.
    Name,
    /// A pattern of its name; types may be written as in the source (`std::string`).
    Pattern,
    /// Called so where namespaces without a name, or with a version's, are left out.
    Source,
    /// The last parts of its name, with parts left out between them: `Load`, `Box::get`.
    Parts,
    /// What was taken for a name has signs of a pattern (`operator*`).
    Loose,
}

/// A pattern, prepared for many names.
pub(super) struct Reader<'a> {
    pattern: &'a FunctionPattern,
    is_go: bool,
    /// What a symbol must contain to be meant.
    needle: Option<String>,
    wanted: Option<Wanted>,
}

/// A name or pattern, spelled in all ways.
struct Wanted {
    is_glob: bool,
    /// Words that a name has, however it is read.
    words: Vec<String>,
    types: String,
    source: Spelled,
    go: Option<Spelled>,
    /// For a name that may be a pattern.
    loose: Option<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn of(pattern: &'a FunctionPattern, is_go: bool) -> Self {
        let wanted = match pattern {
            FunctionPattern::Address(_) => None,
            FunctionPattern::Name(name) | FunctionPattern::Glob(name) => {
                let is_glob = matches!(pattern, FunctionPattern::Glob(_));
                let types = Spelled::of(name, Spelling::Types).text;
                Some(Wanted {
                    is_glob,
                    words: words(name),
                    source: Spelled::of(name, Spelling::Namespaces),
                    go: is_go.then(|| Spelled::of_go(name)),
                    loose: (!is_glob && name.contains(['*', '?'])).then(|| as_glob(&types)),
                    types: if is_glob { as_glob(&types) } else { types },
                })
            }
        };
        Self {
            needle: needle(pattern, is_go),
            pattern,
            is_go,
            wanted,
        }
    }

    /// Whether a symbol can't be meant, without taking it apart.
    pub(super) fn is_out(&self, symbol: &str) -> bool {
        let needle = self.needle.as_ref();
        needle.is_some_and(|needle| !symbol.contains(needle.as_str()))
    }

    /// How the function with these names is meant; `None` where it is not.
    pub(super) fn read(&self, names: &Names, symbol: &str) -> Option<Reading> {
        let is_go = self.is_go && names.language == Language::C;
        let wanted = self.wanted.as_ref()?;
        let written = [&*names.plain, &*names.full, &*names.mangled, symbol];
        let is_rust = names.language == Language::Rust;
        let go = is_go.then(|| go_plain_name(symbol));
        let mut all = written
            .into_iter()
            .chain(is_rust.then(|| without_instance(&names.plain)))
            .chain(go.as_deref());
        if all.clone().any(|name| self.pattern.is_called(name))
            || go
                .as_ref()
                .is_some_and(|go| self.pattern.matches(&go.replacen("[...]", "", 1)))
        {
            return Some(Reading::Name);
        }
        if wanted.is_glob && all.any(|name| self.pattern.matches(name)) {
            return Some(Reading::Pattern);
        }
        let language = if is_go { Language::Go } else { names.language };
        [&names.plain, &names.full]
            .into_iter()
            .filter_map(|name| wanted.read(name, language))
            .min()
    }

    /// How the owner of a future is meant, whose poll has this name.
    pub(super) fn read_owner(&self, names: &Names) -> Option<(Reading, String)> {
        let owner = future_owner(&names.plain)?;
        let owner_names = Names {
            plain: owner.to_owned(),
            full: owner.to_owned(),
            mangled: String::new(),
            ..names.clone()
        };
        let reading = self.read(&owner_names, "")?;
        Some((reading, owner.to_owned()))
    }
}

impl Wanted {
    fn read(&self, name: &str, language: Language) -> Option<Reading> {
        let matches = |pattern: &str, name: &str| glob(pattern.as_bytes(), name.as_bytes());
        if let Some(go) = self.go.as_ref().filter(|_| language == Language::Go) {
            let name = Spelled::of_go(name);
            let is_meant = !self.is_glob && contains_parts(&name, go, same_part);
            return is_meant.then_some(Reading::Parts);
        }
        // Cheaper than to spell every name of a file.
        if !self.words.iter().all(|word| name.contains(word.as_str())) {
            return None;
        }
        let types = Spelled::within(name, language, Spelling::Types);
        let source = Spelled::within(name, language, Spelling::Namespaces);
        if self.is_glob {
            if matches(&self.types, &types.text) {
                return Some(Reading::Pattern);
            }
            if matches(&as_glob(&self.source.text), &source.text) {
                return Some(Reading::Source);
            }
            let same = |wanted: &str, part: &str| matches(&as_glob(wanted), part);
            return contains_parts(&source, &self.source, same).then_some(Reading::Parts);
        }
        if self.types == types.text || self.source.text == source.text {
            return Some(Reading::Source);
        }
        if contains_parts(&source, &self.source, same_part) {
            return Some(Reading::Parts);
        }
        let loose = self.loose.as_ref()?;
        matches(loose, &types.text).then_some(Reading::Loose)
    }
}

/// A pattern in which the brackets of `operator[]` mean themselves.
fn as_glob(pattern: &str) -> String {
    pattern.replace("[]", "[[]]")
}

/// The words of a name or pattern.
fn words(pattern: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = pattern;
    while let Some(start) =
        rest.find(|character: char| character.is_alphanumeric() || "_[".contains(character))
    {
        rest = rest.get(start..).unwrap_or_default();
        if let Some(class) = rest.strip_prefix('[') {
            // One character of several; `[]` is an operator's.
            rest = class.split_once(']').map_or("", |(_, after)| after);
            continue;
        }
        let end = rest
            .find(|character: char| !(character.is_alphanumeric() || character == '_'))
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        // `std::wstring` is `std::basic_string<wchar_t, …>`.
        if word != "wstring" && word != "anonymous" {
            words.push(word.to_owned());
        }
        rest = after;
    }
    words
}

/// What a symbol must contain to be meant by a pattern: cheaper than demangling everything, for a plain name
/// is spelled out in its symbol.
fn needle(pattern: &FunctionPattern, is_go: bool) -> Option<String> {
    match pattern {
        FunctionPattern::Name(name) if is_go => {
            let last = Spelled::of_go(name).last().to_owned();
            (!last.is_empty()).then_some(last)
        }
        FunctionPattern::Name(name) => last_word(name.split('@').next().unwrap_or(name)),
        _ => None,
    }
}

/// Plain names of the symbols that a pattern means, with how; `None` for others. For functions without code of their
/// own.
pub(crate) fn plain_names_of(
    pattern: &FunctionPattern,
    is_go: bool,
) -> impl Fn(&str) -> Option<(Reading, String)> + '_ {
    let reader = Reader::of(pattern, is_go);
    move |symbol| {
        if reader.is_out(symbol) {
            return None;
        }
        let names = Names::of(symbol);
        let reading = reader.read(&names, symbol)?;
        let plain = if is_go && names.language == Language::C {
            go_plain_name(symbol)
        } else {
            names.plain
        };
        Some((reading, plain))
    }
}
