//! Names as their language writes them.

use std::fmt::{self, Write as _};

use cpp_demangle::{DemangleNodeType, DemangleOptions, DemangleWrite, ParseOptions};
use serde::Serialize;

use crate::foreign::Budget;

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
/// Parts of a name that are written out.
const MAX_NODES: u32 = 100_000;
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

/// The symbol without the endings of clones.
pub fn without_clone_marks(symbol: &str) -> &str {
    clone_marks(symbol).0
}

/// The symbol without the endings of clones, and whether they say "part" and "cold".
pub(super) fn clone_marks(symbol: &str) -> (&str, bool, bool) {
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
        Self::within(symbol, None)
    }

    /// The same, within what its file may still cost. A name for which there is not enough left stays as it is, and is
    /// counted there.
    pub fn of_file(symbol: &str, budget: &Budget) -> Self {
        Self::within(symbol, Some(budget))
    }

    fn within(symbol: &str, budget: Option<&Budget>) -> Self {
        let (mangled, is_part, is_cold) = clone_marks(symbol);
        let (plain, full, language) = demangle(mangled, budget);
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

/// A name that is written out, up to its bounds: substitutions can make a text of any length of a short symbol.
struct Bounded {
    text: String,
    /// Parts of the name that may still be visited.
    nodes: u32,
    /// It was too much.
    is_over: bool,
}

impl Bounded {
    fn new() -> Self {
        Self {
            text: String::new(),
            nodes: MAX_NODES,
            is_over: false,
        }
    }

    fn add(&mut self, part: &str) -> fmt::Result {
        if self.nodes == 0 || self.text.len().saturating_add(part.len()) > MAX_NAME {
            self.is_over = true;
            return Err(fmt::Error);
        }
        self.nodes -= 1;
        self.text.push_str(part);
        Ok(())
    }

    /// What it cost, in bytes and parts.
    fn work(&self) -> u64 {
        self.text.len() as u64 + u64::from(MAX_NODES - self.nodes)
    }
}

impl DemangleWrite for Bounded {
    fn push_demangle_node(&mut self, _: DemangleNodeType) {
        self.nodes = self.nodes.saturating_sub(1);
    }

    fn write_string(&mut self, part: &str) -> fmt::Result {
        self.add(part)
    }
}

/// For `write!`; [`Bounded`] itself can't be one, or it could not see the parts of C++ names.
struct Plain<'a>(&'a mut Bounded);

impl fmt::Write for Plain<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.0.add(part)
    }
}

fn demangle(mangled: &str, budget: Option<&Budget>) -> (String, String, Language) {
    let as_is = |language| (mangled.to_owned(), mangled.to_owned(), language);
    let is_cpp = mangled.starts_with("_Z");
    if !is_cpp && !mangled.starts_with("_R") {
        return as_is(Language::C);
    }
    if mangled.len() > MAX_SYMBOL {
        if let Some(budget) = budget {
            budget.demangled(0, false);
        }
        return as_is(Language::C);
    }
    if budget.is_some_and(|budget| budget.left_for_demangling() == 0) {
        if let Some(budget) = budget {
            budget.demangled(0, false);
        }
        return as_is(if is_cpp { Language::Cpp } else { Language::C });
    }
    let note = |work: u64, done: bool| {
        if let Some(budget) = budget {
            budget.demangled(work.saturating_add(mangled.len() as u64), done);
        }
    };
    if (mangled.starts_with("_R") || mangled.starts_with("_ZN"))
        && let Ok(symbol) = rustc_demangle::try_demangle(mangled)
    {
        let mut name = Bounded::new();
        let written = write!(Plain(&mut name), "{symbol:#}").is_ok();
        note(name.work(), written);
        if written {
            return (name.text.clone(), name.text, Language::Rust);
        }
    }
    if !is_cpp {
        return as_is(Language::C);
    }
    let options = ParseOptions::default().recursion_limit(RECURSION);
    let Ok(symbol) = cpp_demangle::Symbol::new_with_options(mangled.as_bytes(), &options) else {
        note(0, true);
        return as_is(Language::Cpp);
    };
    let base = DemangleOptions::new().recursion_limit(RECURSION);
    let (mut full, mut plain) = (Bounded::new(), Bounded::new());
    let is_full = symbol.structured_demangle(&mut full, &base).is_ok();
    let written = is_full
        && symbol
            .structured_demangle(&mut plain, &base.no_params().no_return_type())
            .is_ok();
    note(full.work() + plain.work(), !full.is_over && !plain.is_over);
    if written {
        (without_tags(&plain.text), full.text, Language::Cpp)
    } else {
        as_is(Language::Cpp)
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
            let mut name = Bounded::new();
            let options = DemangleOptions::new().recursion_limit(RECURSION);
            let written = symbol.structured_demangle(&mut name, &options);
            written.is_ok().then_some(name.text)
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

    /// Each argument names the one before it twice.
    fn doubled_cpp(levels: usize) -> String {
        let mut symbol = "_Z12create_order1PIiiE".to_owned();
        let number = |mut place: usize| {
            // Substitutions count in base 36, the first without a number.
            let mut digits = Vec::new();
            if place == 0 {
                return "S_".to_owned();
            }
            place -= 1;
            loop {
                digits.push(char::from_digit((place % 36) as u32, 36).unwrap());
                place /= 36;
                if place == 0 {
                    break;
                }
            }
            let digits: String = digits.iter().rev().collect();
            format!("S{}_", digits.to_uppercase())
        };
        for level in 0..levels {
            let last = number(level + 1);
            symbol.push_str(&format!("S_I{last}{last}E"));
        }
        symbol
    }

    #[test]
    fn names_that_double_stay_as_they_are() {
        let small = Names::of(&doubled_cpp(2));
        assert!(
            small.full.starts_with("create_order(P<int, int>"),
            "{}",
            small.full
        );
        let bomb = doubled_cpp(60);
        let budget = Budget::default();
        let began = std::time::Instant::now();
        for _ in 0..300 {
            assert_eq!(Names::of_file(&bomb, &budget).full, bomb);
        }
        // Without bounds it takes 7 s with optimisation.
        assert!(began.elapsed().as_secs() < 4, "{:?}", began.elapsed());
        assert_eq!(budget.take_not_demangled(), 300);
        // Rust: a tuple of two times the one before.
        let bomb = "_RIC1fTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTuuEB1l_EB1k_EB1j_EB1i_EB1h_EB1g_EB1f_EB1e_EB1d_EB1c_EB1b_EB1a_EB19_EB18_EB17_EB16_EB15_EB14_EB13_EB12_EB11_EB10_EBZ_EBY_EBX_EBW_EBV_EBU_EBT_EBS_EBR_EBQ_EBP_EBO_EBN_EBM_EBL_EE";
        let began = std::time::Instant::now();
        let names = Names::of_file(bomb, &budget);
        assert!(names.full.len() <= MAX_NAME);
        assert!(began.elapsed().as_millis() < 500);
    }

    #[test]
    fn a_file_has_only_so_much() {
        let budget = Budget::with(crate::foreign::FileLimits {
            demangling: 100,
            ..crate::foreign::FILE_LIMITS
        });
        let names = (0..20).map(|_| Names::of_file("_ZN4shop4Cart5totalEv", &budget));
        let done = names
            .filter(|names| names.plain == "shop::Cart::total")
            .count();
        assert!((1..10).contains(&done), "{done}");
        assert_eq!(budget.take_not_demangled(), 20 - done as u64);
        // Plain names cost nothing.
        assert_eq!(Names::of_file("main", &budget).plain, "main");
        assert_eq!(budget.take_not_demangled(), 0);
    }

    proptest! {
        #[test]
        fn never_panics(symbol in "(_Z|_R|_ZN)?[0-9A-Za-z_.$]{0,60}") {
            let _ = Names::of(&symbol);
            let _ = type_name(&symbol);
        }
    }
}
