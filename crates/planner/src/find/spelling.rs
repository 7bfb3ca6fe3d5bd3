//! Names as their source writes them: without what compilers add (defaults of templates, the library's own names of
//! `std::string`, namespaces that are looked through), and their parts.

use std::ops::Range;

use image::symbol::Language;

/// How much is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// Types are written as in the source; namespaces stay, but for the standard library's inline ones.
    Types,
    /// Namespaces without a name, and those that look like versions (`v3`, `lts_20230802`), are left out, too.
    Namespaces,
}

/// A name as its source writes it, with its parts: `shop`, `Box<int>`, `get(int)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spelled {
    /// Without spaces that mean nothing.
    pub text: String,
    parts: Vec<Range<usize>>,
}

/// What brackets are open.
struct Open {
    bracket: char,
    /// Where its last argument begins in the text.
    argument: usize,
    /// Where each of its commas lies.
    commas: Vec<usize>,
}

impl Spelled {
    /// Spells a name of C, C++ or Rust.
    pub(super) fn of(name: &str, spelling: Spelling) -> Self {
        let mut this = Self {
            text: String::with_capacity(name.len()),
            parts: Vec::new(),
        };
        let mut open: Vec<Open> = Vec::new();
        let mut part = 0;
        let mut rest = name.trim();
        while let Some(character) = rest.chars().next() {
            if let Some(operator) = operator(&this.text, rest) {
                this.text.push_str(operator);
                rest = rest.get(operator.len()..).unwrap_or_default();
                continue;
            }
            if let Some(after) = anonymous(rest)
                && spelling == Spelling::Namespaces
            {
                rest = after;
                continue;
            }
            let mut len = character.len_utf8();
            match character {
                ' ' => {
                    let after = rest.trim_start();
                    let between_words = this.text.chars().next_back().is_some_and(is_of_word)
                        && after.chars().next().is_some_and(is_of_word);
                    if between_words {
                        this.text.push(' ');
                    }
                    rest = after;
                    continue;
                }
                ':' if rest.starts_with("::") => {
                    len = 2;
                    if !this.leave_out_namespace(spelling) {
                        if open.is_empty() {
                            this.parts.push(part..this.text.len());
                        }
                        this.text.push_str("::");
                    }
                    if open.is_empty() {
                        part = this.text.len();
                    }
                }
                '<' | '(' | '[' | '{' => {
                    this.text.push(character);
                    open.push(Open {
                        bracket: character,
                        argument: this.text.len(),
                        commas: Vec::new(),
                    });
                }
                // An arrow closes nothing.
                '>' if this.text.ends_with('-') => this.text.push('>'),
                '>' | ')' | ']' | '}' => {
                    let bracket = match character {
                        '>' => '<',
                        ')' => '(',
                        ']' => '[',
                        _ => '{',
                    };
                    if open.last().is_some_and(|last| last.bracket == bracket)
                        && let Some(last) = open.pop()
                        && character == '>'
                    {
                        this.leave_out_defaults(last);
                    }
                    this.text.push(character);
                    this.shorten();
                }
                ',' => {
                    if let Some(last) = open.last_mut() {
                        last.commas.push(this.text.len());
                        last.argument = this.text.len() + 1;
                    }
                    this.text.push(',');
                }
                _ => this.text.push(character),
            }
            rest = rest.get(len..).unwrap_or_default();
        }
        this.parts.push(part.min(this.text.len())..this.text.len());
        this
    }

    /// Spells a name of Go, where parts stand between points: `main`, `Store`, `Load`.
    pub(super) fn of_go(name: &str) -> Self {
        let mut text = String::with_capacity(name.len());
        let mut parts = Vec::new();
        let (mut part, mut depth) = (0, 0usize);
        for character in name.chars() {
            match character {
                '[' => depth += 1,
                ']' => depth = depth.saturating_sub(1),
                _ if depth > 0 => {}
                '.' | '/' => {
                    parts.push(part..text.len());
                    text.push(character);
                    part = text.len();
                }
                // A method of a pointer: `(*Store)`.
                '(' | ')' | '*' => {}
                _ => text.push(character),
            }
        }
        parts.push(part..text.len());
        Self { text, parts }
    }

    /// As a language has it.
    pub(super) fn within(name: &str, language: Language, spelling: Spelling) -> Self {
        match language {
            Language::Go => Self::of_go(name),
            Language::Rust => Self::of(&without_impl(name), spelling),
            Language::C | Language::Cpp => Self::of(name, spelling),
        }
    }

    /// Its parts, the outermost first.
    pub(super) fn parts(&self) -> impl DoubleEndedIterator<Item = &str> {
        let text = |part: &Range<usize>| self.text.get(part.clone()).unwrap_or_default();
        self.parts.iter().map(text)
    }

    /// The last part, without parameters and template arguments.
    pub(super) fn last(&self) -> &str {
        bare(self.parts().next_back().unwrap_or_default())
    }

    /// Without template arguments and parameters: what instances of one template have in common.
    pub(super) fn path(&self) -> String {
        let parts: Vec<&str> = self.parts().map(bare).collect();
        parts.join("::")
    }

    /// Leaves out the namespace that the text ends with, where its source does.
    fn leave_out_namespace(&mut self, spelling: Spelling) -> bool {
        let start = self
            .text
            .rfind(|character| !is_of_word(character))
            .map_or(0, |at| at + 1);
        let (before, namespace) = self.text.split_at(start);
        let Some(outer) = before.strip_suffix("::") else {
            return false;
        };
        // `std::__cxx11`, `std::__1`, `std::__ndk1`, `std::_V2`.
        let of_std = outer
            .strip_suffix("std")
            .is_some_and(|before| !before.ends_with(is_of_word) && !before.ends_with(':'));
        let is_left_out = match spelling {
            Spelling::Types => of_std && is_reserved(namespace) && looks_like_version(namespace),
            Spelling::Namespaces => looks_like_version(namespace),
        };
        if is_left_out {
            self.text.truncate(start);
        }
        is_left_out
    }

    /// Leaves out the last arguments of a template that are what the standard library takes where nothing is said.
    fn leave_out_defaults(&mut self, mut open: Open) {
        const DEFAULTS: [&str; 6] = [
            "std::allocator<",
            "std::char_traits<",
            "std::default_delete<",
            "std::equal_to<",
            "std::hash<",
            "std::less<",
        ];
        while let Some(comma) = open.commas.pop() {
            let argument = self.text.get(open.argument..).unwrap_or_default();
            if !DEFAULTS
                .iter()
                .any(|default| argument.starts_with(default) && argument.ends_with('>'))
            {
                return;
            }
            self.text.truncate(comma);
            open.argument = open.commas.last().map_or(0, |comma| comma + 1);
        }
    }

    /// Names that everybody writes shorter.
    fn shorten(&mut self) {
        for (long, short) in [
            ("std::basic_string<char>", "std::string"),
            ("std::basic_string<wchar_t>", "std::wstring"),
            ("std::basic_string_view<char>", "std::string_view"),
        ] {
            if let Some(before) = self.text.strip_suffix(long) {
                self.text.truncate(before.len());
                self.text.push_str(short);
            }
        }
    }
}

/// Whether each wanted part is a part of the name, in this order, and the last its last.
pub(super) fn contains_parts(
    name: &Spelled,
    wanted: &Spelled,
    same: impl Fn(&str, &str) -> bool,
) -> bool {
    let mut parts = name.parts().rev();
    let mut wanted = wanted.parts().rev();
    let (Some(last), Some(wanted_last)) = (parts.next(), wanted.next()) else {
        return false;
    };
    // `::f` begins at the outermost namespace, which has no name.
    same(wanted_last, last)
        && wanted.all(|wanted| wanted.is_empty() || parts.any(|part| same(wanted, part)))
}

/// Whether a part is meant: as it is written, or without the arguments of its template.
pub(super) fn same_part(wanted: &str, part: &str) -> bool {
    wanted == part || !wanted.contains(['<', '(']) && !wanted.is_empty() && wanted == bare(part)
}

/// A part without parameters and template arguments.
fn bare(part: &str) -> &str {
    let from = match part.strip_prefix("operator") {
        Some(after) if !after.starts_with(is_of_word) => {
            let sign = sign_of_operator(after.trim_start());
            part.len() - after.trim_start().len() + sign
        }
        _ => 0,
    };
    let end = part
        .get(from..)
        .and_then(|rest| rest.find(['<', '(']))
        // What begins with a bracket is no function with arguments.
        .filter(|at| from + at > 0)
        .map_or(part.len(), |at| from + at);
    part.get(..end).unwrap_or(part)
}

/// Methods of Rust go by the type that they are of: `shop::Cart::total` is `<shop::Cart as shop::Total>::total`.
fn without_impl(name: &str) -> String {
    let name = super::names::without_instance(name);
    let of_type = || {
        let inner = name.strip_prefix('<')?;
        let mut depth = 1usize;
        let mut of = None;
        for (at, character) in inner.char_indices() {
            match character {
                '<' => depth += 1,
                '>' if inner.get(..at)?.ends_with('-') => {}
                '>' => {
                    depth -= 1;
                    if depth == 0 {
                        let method = inner.get(at + 1..)?.strip_prefix("::")?;
                        let of = of.unwrap_or(at);
                        return Some(format!("{}::{method}", inner.get(..of)?));
                    }
                }
                ' ' if depth == 1 && inner.get(at..)?.starts_with(" as ") => of = Some(at),
                _ => {}
            }
        }
        None
    };
    of_type().unwrap_or_else(|| name.to_owned())
}

/// A namespace without a name, as demanglers write it; what follows behind it.
fn anonymous(text: &str) -> Option<&str> {
    ["(anonymous namespace)::", "{anonymous}::"]
        .into_iter()
        .find_map(|namespace| text.strip_prefix(namespace))
}

/// The sign of the operator that `rest` begins with, where `before` ends with the word: `[]`, `<`, `()`.
fn operator<'a>(before: &str, rest: &'a str) -> Option<&'a str> {
    let outer = before.strip_suffix("operator")?;
    if outer.ends_with(is_of_word) {
        return None;
    }
    let signs = rest.trim_start();
    let spaces = rest.len() - signs.len();
    match sign_of_operator(signs) {
        0 => None,
        len if spaces == 0 => rest.get(..len),
        _ => None,
    }
}

/// How many bytes of this are the sign of an operator; 0 where it is a type, or none.
fn sign_of_operator(text: &str) -> usize {
    const SIGNS: [&str; 40] = [
        "<=>", "->*", "<<=", ">>=", "()", "[]", "->", "++", "--", "<<", ">>", "<=", ">=", "==",
        "!=", "&&", "||", "+=", "-=", "*=", "/=", "%=", "^=", "&=", "|=", "+", "-", "*", "/", "%",
        "^", "&", "|", "~", "!", "=", "<", ">", ",", "\"\"",
    ];
    let mut signs = SIGNS.iter();
    signs
        .find(|sign| text.starts_with(**sign))
        .map_or(0, |sign| sign.len())
}

fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_' || character == '$'
}

/// A name that belongs to the implementation.
fn is_reserved(name: &str) -> bool {
    name.starts_with('_')
}

/// Whether a namespace is one that libraries keep a version of their interface in, and users never write: `v3`, `__1`,
/// `__cxx11`, `_V2`, `lts_20230802`, `json_abi_v3_11_3`.
fn looks_like_version(namespace: &str) -> bool {
    let word = namespace
        .trim_end_matches(|character: char| character.is_ascii_digit() || character == '_');
    word.len() < namespace.len()
        && namespace.ends_with(|character: char| character.is_ascii_digit())
        && (matches!(
            word,
            "" | "v" | "V" | "_V" | "lts" | "__cxx" | "__ndk" | "inline_v"
        ) || word.ends_with("abi_v"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spelled(name: &str) -> String {
        Spelled::of(name, Spelling::Namespaces).text
    }

    #[test]
    fn names_are_spelled_as_in_the_source() {
        let long =
            "std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >";
        for (name, source) in [
            ("create_order", "create_order"),
            (
                "app::v3::Box<int, 2>::get() const",
                "app::Box<int,2>::get()const",
            ),
            (
                "outer::(anonymous namespace)::anon(int)",
                "outer::anon(int)",
            ),
            ("(anonymous namespace)::Deep::run", "Deep::run"),
            (long, "std::string"),
            (
                &format!("app::v3::Box<{long}, 1>::~Box"),
                "app::Box<std::string,1>::~Box",
            ),
            (
                &format!("std::vector<{long}, std::allocator<{long} > >"),
                "std::vector<std::string>",
            ),
            (
                "std::__1::basic_string<char, std::__1::char_traits<char>, std::__1::allocator<char> >",
                "std::string",
            ),
            (
                "app::Box<int, 2>::operator<(app::Box<int, 2> const&) const",
                "app::Box<int,2>::operator<(app::Box<int,2>const&)const",
            ),
            ("app::operator<< <int>(int)", "app::operator<<<int>(int)"),
            ("V::operator[](int)", "V::operator[](int)"),
            ("V::operator()(int) const", "V::operator()(int)const"),
            (
                "V::operator unsigned long() const",
                "V::operator unsigned long()const",
            ),
            (
                "f(int (*)(char), unsigned  long)",
                "f(int(*)(char),unsigned long)",
            ),
            // An allocator of one's own is said.
            (
                "std::vector<int, shop::Pool<int> >",
                "std::vector<int,shop::Pool<int>>",
            ),
            ("std::__detail::_Map::at", "std::__detail::_Map::at"),
            ("v1::f", "v1::f"),
        ] {
            assert_eq!(spelled(name), source, "{name}");
        }
        assert_eq!(
            Spelled::of(
                "app::v3::(anonymous namespace)::f(std::__1::pair<int, int>)",
                Spelling::Types
            )
            .text,
            "app::v3::(anonymous namespace)::f(std::pair<int,int>)"
        );
    }

    #[test]
    fn parts_of_names() {
        let parts = |name: &str, language| -> Vec<String> {
            Spelled::within(name, language, Spelling::Namespaces)
                .parts()
                .map(str::to_owned)
                .collect()
        };
        for (name, wanted) in [
            (
                "app::v3::Box<a::b, 2>::get(c::d)",
                vec!["app", "Box<a::b,2>", "get(c::d)"],
            ),
            ("app::V::operator<", vec!["app", "V", "operator<"]),
            (
                "app::V::operator()(x::y)",
                vec!["app", "V", "operator()(x::y)"],
            ),
            ("main", vec!["main"]),
        ] {
            assert_eq!(parts(name, Language::Cpp), wanted, "{name}");
        }
        assert_eq!(
            parts("main.(*Store).Load", Language::Go),
            ["main", "Store", "Load"]
        );
        assert_eq!(
            parts(
                "github.com/acme/shop.(*Set[go.shape.int]).Add.func1",
                Language::Go
            ),
            ["github", "com", "acme", "shop", "Set", "Add", "func1"]
        );
        assert_eq!(
            parts(
                "<shop::Cart<u8> as shop::Store>::store::<u8>",
                Language::Rust
            ),
            ["shop", "Cart<u8>", "store"]
        );
        assert_eq!(
            parts("<shop::Cart>::total", Language::Rust),
            ["shop", "Cart", "total"]
        );
        assert_eq!(
            parts("<[u8] as shop::Sum>::sum", Language::Rust),
            ["[u8]", "sum"]
        );
        let last = |name: &str| Spelled::of(name, Spelling::Namespaces).last().to_owned();
        assert_eq!(last("app::V::operator<(int)"), "operator<");
        assert_eq!(last("app::V::operator()(int)"), "operator()");
        assert_eq!(last("app::V::operator int()"), "operator int");
        assert_eq!(last("int add<int>(int, int)"), "int add");
    }

    proptest! {
        /// Names are foreign: any text is spelled, in its own bounds, and once is enough.
        #[test]
        fn any_name_is_spelled(name in "[a-c:<>(){}\\[\\],* ~v3_-]{0,40}|(std::|operator|<|>|\\(anonymous namespace\\)::|, std::allocator<char>|__1::){0,12}") {
            for spelling in [Spelling::Types, Spelling::Namespaces] {
                let spelled = Spelled::of(&name, spelling);
                prop_assert!(spelled.text.len() <= name.len());
                let _ = (spelled.last(), spelled.path());
                prop_assert!(spelled.parts().count() <= name.len() + 1);
            }
            let _ = Spelled::of_go(&name);
            let _ = without_impl(&name);
        }
    }
}
