//! Names as their language writes them.

use cpp_demangle::{DemangleOptions, ParseOptions};
use serde::Serialize;

/// The language that a function was written in, as far as its name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// C, or anything with plain names.
    C,
    /// C++.
    #[serde(rename = "c++")]
    Cpp,
    /// Rust.
    Rust,
    /// Go.
    Go,
}

impl Language {
    /// As shown to users.
    pub fn name(self) -> &'static str {
        match self {
            Self::C => "C",
            Self::Cpp => "C++",
            Self::Rust => "Rust",
            Self::Go => "Go",
        }
    }
}

/// A symbol's name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Qualified name without parameters, template result type or clone suffix.
    pub plain: String,
    /// With parameters.
    pub full: String,
    /// The symbol without clone suffix.
    pub mangled: String,
    /// Which language's rules applied.
    pub language: Language,
    /// A part that the compiler split off (`.part.0`).
    pub is_part: bool,
    /// The cold half of a function (`.cold`), reached by jumps only.
    pub is_cold: bool,
}

/// Longest symbol that is demangled, in bytes.
const MAX_SYMBOL: usize = 8192;
/// Longest demangled name that is kept, in bytes.
const MAX_NAME: usize = 16 << 10;
/// Nesting that the demangler follows.
const RECURSION: u32 = 96;

/// Endings that compilers give to copies of a function.
const CLONE_MARKS: [&str; 9] = [
    "constprop",
    "isra",
    "part",
    "cold",
    "lto_priv",
    "llvm",
    "localalias",
    "simdclone",
    "str",
];

/// The symbol without the endings of clones, and whether they say "part" and "cold".
pub fn without_clone_marks(symbol: &str) -> (&str, bool, bool) {
    let (mut is_part, mut is_cold) = (false, false);
    let mut base = symbol;
    // From the back: `.mark` or `.mark.number`.
    while let Some((before, last)) = base.rsplit_once('.') {
        let (head, mark) = if !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) {
            match before.rsplit_once('.') {
                Some((head, mark)) => (head, mark),
                None => break,
            }
        } else {
            (before, last)
        };
        if head.is_empty() || !CLONE_MARKS.contains(&mark) {
            break;
        }
        is_part |= mark == "part";
        is_cold |= mark == "cold";
        base = head;
    }
    (base, is_part, is_cold)
}

impl Names {
    /// Takes a symbol apart.
    pub fn of(symbol: &str) -> Self {
        let (mangled, is_part, is_cold) = without_clone_marks(symbol);
        let (plain, full, language) = demangle(mangled);
        Self {
            plain,
            full,
            mangled: mangled.to_owned(),
            language,
            is_part,
            is_cold,
        }
    }
}

fn demangle(mangled: &str) -> (String, String, Language) {
    let as_is = |language| (mangled.to_owned(), mangled.to_owned(), language);
    if mangled.len() > MAX_SYMBOL {
        return as_is(Language::C);
    }
    if (mangled.starts_with("_R") || mangled.starts_with("_ZN"))
        && let Ok(symbol) = rustc_demangle::try_demangle(mangled)
    {
        let name = format!("{symbol:#}");
        if name.len() <= MAX_NAME {
            return (name.clone(), name, Language::Rust);
        }
    }
    if !mangled.starts_with("_Z") {
        return as_is(Language::C);
    }
    let options = ParseOptions::default().recursion_limit(RECURSION);
    let Ok(symbol) = cpp_demangle::Symbol::new_with_options(mangled.as_bytes(), &options) else {
        return as_is(Language::Cpp);
    };
    let base = DemangleOptions::new().recursion_limit(RECURSION);
    let full = symbol.demangle_with_options(&base);
    let plain = symbol.demangle_with_options(&base.no_params().no_return_type());
    match (plain, full) {
        (Ok(plain), Ok(full)) if plain.len() <= MAX_NAME && full.len() <= MAX_NAME => {
            (without_tags(&plain), full, Language::Cpp)
        }
        _ => as_is(Language::Cpp),
    }
}

/// A name without what GCC adds to names of another ABI (`make[abi:cxx11]`).
fn without_tags(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once("[abi:") {
        out.push_str(before);
        rest = after.split_once(']').map_or("", |(_, rest)| rest);
    }
    out + rest
}

/// The name of a C++ type from its `std::type_info` name (`N4shop5ErrorE`, `i`).
pub fn type_name(mangled: &str) -> String {
    // libstdc++ marks names that must be compared by address with a star.
    let mangled = mangled.strip_prefix('*').unwrap_or(mangled);
    if mangled.len() > MAX_SYMBOL {
        return mangled.to_owned();
    }
    let options = ParseOptions::default().recursion_limit(RECURSION);
    cpp_demangle::Symbol::new_with_options(format!("_ZTS{mangled}").as_bytes(), &options)
        .ok()
        .and_then(|symbol| {
            symbol
                .demangle_with_options(&DemangleOptions::new().recursion_limit(RECURSION))
                .ok()
        })
        .and_then(|name| name.strip_prefix("typeinfo name for ").map(not_nested))
        .unwrap_or_else(|| mangled.to_owned())
}

/// What `std::throw_with_nested` throws is a class of its own around the user's, in libstdc++ and libc++.
fn not_nested(name: &str) -> String {
    [
        "std::_Nested_exception<",
        "std::__1::__nested<",
        "std::__nested<",
    ]
    .into_iter()
    .find_map(|class| name.strip_prefix(class)?.strip_suffix('>'))
    .unwrap_or(name)
    .trim_end()
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_thrown_with_nested_is_the_users() {
        // std::_Nested_exception<shop::Error>, std::__1::__nested<shop::Error>
        assert_eq!(
            type_name("St17_Nested_exceptionIN4shop5ErrorEE"),
            "shop::Error"
        );
        assert_eq!(type_name("NSt3__18__nestedIN4shop5ErrorEEE"), "shop::Error");
        assert_eq!(type_name("N4shop5ErrorE"), "shop::Error");
    }

    #[test]
    fn languages_and_clones() {
        let names = Names::of("_ZN4shop4Cart5totalEv.constprop.0.isra.0");
        assert_eq!(names.plain, "shop::Cart::total");
        assert_eq!(names.full, "shop::Cart::total()");
        assert_eq!(names.mangled, "_ZN4shop4Cart5totalEv");
        assert_eq!(names.language, Language::Cpp);
        assert!(!names.is_part && !names.is_cold);

        let names = Names::of("work.part.0.cold");
        assert_eq!(names.plain, "work");
        assert!(names.is_part && names.is_cold);

        assert_eq!(
            Names::of("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE").language,
            Language::Rust
        );
        assert_eq!(Names::of("main.handle").plain, "main.handle");
        assert_eq!(Names::of("f.5").plain, "f.5");
        assert_eq!(Names::of(".part.0").plain, ".part.0");
        // A template's return type is no part of its name.
        assert_eq!(Names::of("_Z3addIiET_S0_S0_").plain, "add<int>");
        assert_eq!(
            Names::of("_Z3addIiET_S0_S0_").full,
            "int add<int>(int, int)"
        );
    }

    #[test]
    fn types() {
        assert_eq!(type_name("i"), "int");
        assert_eq!(type_name("PKc"), "char const*");
        assert_eq!(type_name("St13runtime_error"), "std::runtime_error");
        assert_eq!(type_name("N4shop12PaymentErrorE"), "shop::PaymentError");
        assert_eq!(
            type_name("*N12_GLOBAL__N_15LocalE"),
            "(anonymous namespace)::Local"
        );
        assert_eq!(type_name("panic!"), "panic!");
    }

    proptest! {
        #[test]
        fn never_panics(symbol in "(_Z|_R|_ZN)?[0-9A-Za-z_.$]{0,60}") {
            let _ = Names::of(&symbol);
            let _ = type_name(&symbol);
        }
    }
}
