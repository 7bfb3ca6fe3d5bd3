//! Names of functions, and patterns of them.

use std::fmt;

use model::text;

/// Which functions a probe stands for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum FunctionPattern {
    /// A demangled name with or without parameters, or a mangled name.
    Name(String),
    /// A pattern with `*`, `?` or `[…]`.
    Glob(String),
    /// The address of a function in the file, as `nm` prints it.
    Address(u64),
}

impl FunctionPattern {
    /// Reads the function part; `None` for what looks like an address and is none.
    pub fn parse(function: &str) -> Option<Self> {
        if let Some(digits) = function.strip_prefix("0x") {
            return u64::from_str_radix(digits, 16).ok().map(Self::Address);
        }
        // `operator*` and `operator[]` are names, and so is a pointer among parameters.
        let before_parameters = function.split('(').next().unwrap_or(function);
        let before_operator = before_operator(before_parameters);
        Some(if before_operator.contains(['*', '?', '[']) {
            Self::Glob(function.to_owned())
        } else {
            Self::Name(function.to_owned())
        })
    }

    /// Whether a function is called so, whatever signs of a pattern are in it.
    pub fn is_called(&self, name: &str) -> bool {
        match self {
            Self::Name(wanted) | Self::Glob(wanted) => same_name(wanted, name),
            Self::Address(_) => false,
        }
    }

    /// Whether a name (plain, full or mangled) is meant.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Name(wanted) => same_name(wanted, name),
            Self::Glob(pattern) => text::glob(pattern.as_bytes(), name.as_bytes()),
            Self::Address(_) => false,
        }
    }
}

/// What stands before the word that C++ names its operators with.
fn before_operator(name: &str) -> &str {
    let is_of_word = |character: char| character.is_alphanumeric() || character == '_';
    name.match_indices("operator")
        .find(|(at, word)| {
            let (before, after) = (name.get(..*at), name.get(at + word.len()..));
            !before.is_some_and(|before| before.ends_with(is_of_word))
                && !after.is_some_and(|after| after.starts_with(is_of_word))
        })
        .and_then(|(at, _)| name.get(..at))
        .unwrap_or(name)
}

impl fmt::Display for FunctionPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) | Self::Glob(name) => f.write_str(&text::shown(name)),
            Self::Address(address) => write!(f, "{address:#x}"),
        }
    }
}

/// Equal but for spaces that are no part of a name (`f(int,char)` and `f(int, char)`).
fn same_name(wanted: &str, name: &str) -> bool {
    if wanted == name {
        return true;
    }
    let significant = |text: &str| -> Vec<char> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let characters: Vec<char> = words.join(" ").chars().collect();
        let word = |character: Option<&char>| {
            character.is_some_and(|character| character.is_alphanumeric() || *character == '_')
        };
        (0..characters.len())
            .filter(|place| {
                characters[*place] != ' '
                    || (word(
                        place
                            .checked_sub(1)
                            .and_then(|before| characters.get(before)),
                    ) && word(characters.get(place + 1)))
            })
            .map(|place| characters[place])
            .collect()
    };
    wanted.contains(['(', '<', ' ']) && significant(wanted) == significant(name)
}
