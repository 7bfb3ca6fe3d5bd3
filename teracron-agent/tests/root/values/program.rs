//! Generated programs: functions with every type of arguments and results that is read, of whose calls the generator
//! knows what they are given and what they return. It knows the results by doing the same arithmetic, so that a
//! program may ignore them all, as the compiler would not drop them otherwise.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// Numbers from a seed (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    fn one_in(&mut self, limit: usize) -> bool {
        self.below(limit) == 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    C,
    Cpp,
    Rust,
}

/// What is captured, and what that is, by the number that it was made from.
type Key = (&'static str, fn(u64) -> Value);

/// A type of an argument or a result: how it is declared, made from a number, read in the function, and captured.
pub struct Kind {
    name: &'static str,
    /// An expression of it; `$1` to `$3` are the number and what follows it.
    made: &'static str,
    /// A number of it, in the function; `$` is the argument.
    term: &'static str,
    /// A result of it, of the number `acc`; empty where it is no result.
    result: &'static str,
    /// What a caller looks at; `$` is the result.
    used: &'static str,
    /// It is the address of a variable of this type, which `made` makes.
    behind: &'static str,
    /// What is captured of it, and what that is, by the number.
    keys: &'static [Key],
    /// The number that `term` is.
    number: fn(u64) -> u64,
}

pub const TEXTS: [&str; 4] = [
    "one",
    "twenty two",
    "a text that is too long to lie in place",
    "",
];

fn text(v: u64) -> &'static str {
    TEXTS[(v % 4) as usize]
}

fn text_number(v: u64) -> u64 {
    text(v).bytes().next().unwrap_or(0).into()
}

fn text_length(v: u64) -> u64 {
    text(v).len() as u64
}

fn color(v: u64) -> (i64, &'static str) {
    [(0, "RED"), (5, "GREEN"), (-3, "BLUE")][(v % 3) as usize]
}

const fn number(name: &'static str, keys: &'static [Key], of: fn(u64) -> u64) -> Kind {
    Kind {
        name,
        made: "(T)$1",
        term: "(unsigned long)$",
        result: "(T)acc",
        used: "(unsigned long)$",
        behind: "",
        keys,
        number: of,
    }
}

const PLAIN: Kind = number("", &[], |v| v);

macro_rules! keys {
    ($($key:literal => $value:expr),*) => { &[$(($key, $value)),*] };
}

/// What C and C++ have.
const OF_C: &[Kind] = &[
    number("int", keys!("" => |v| json!(v as i32)), |v| v as i32 as u64),
    number("long", keys!("" => |v| json!(v as i64)), |v| v),
    number("unsigned", keys!("" => |v| json!(v as u32)), |v| {
        v as u32 as u64
    }),
    number("short", keys!("" => |v| json!(v as i16)), |v| {
        v as i16 as u64
    }),
    number("unsigned char", keys!("" => |v| json!(v as u8)), |v| {
        v as u8 as u64
    }),
    number("unsigned long", keys!("" => |v| json!(v)), |v| v),
    number("bool_", keys!("" => |v| json!(v != 0)), |v| (v != 0) as u64),
    Kind {
        name: "enum color",
        made: "colors[($1) % 3]",
        term: "(unsigned long)(long)(int)$",
        result: "colors[acc % 3]",
        keys: keys!("" => |v| json!(color(v).1)),
        number: |v| color(v).0 as u64,
        ..PLAIN
    },
    Kind {
        name: "const char *",
        made: "texts[($1) % 4]",
        term: "(unsigned long)(unsigned char)$[0]",
        result: "texts[acc % 4]",
        used: "(unsigned long)$[0]",
        keys: keys!("" => |v| json!(text(v))),
        number: text_number,
        ..PLAIN
    },
    Kind {
        name: "struct two",
        made: "T{(int)($1), (int)($2)}",
        term: "(unsigned long)$.a * 3 + (unsigned long)$.b",
        result: "T{(int)acc, (int)(acc >> 3)}",
        used: "(unsigned long)$.b",
        keys: keys!(".a" => |v| json!(v as i32), ".b" => |v| json!((v + 1) as i32)),
        number: |v| {
            (v as i32 as u64)
                .wrapping_mul(3)
                .wrapping_add((v + 1) as i32 as u64)
        },
        ..PLAIN
    },
    Kind {
        name: "struct wide",
        made: "T{(long)($1), (long)($2)}",
        term: "(unsigned long)$.a * 3 + (unsigned long)$.b",
        result: "T{(long)acc, (long)(acc >> 3)}",
        used: "(unsigned long)$.a",
        keys: keys!(".a" => |v| json!(v as i64), ".b" => |v| json!((v + 1) as i64)),
        number: |v| v.wrapping_mul(3).wrapping_add(v + 1),
        ..PLAIN
    },
    Kind {
        name: "struct big",
        made: "T{(long)($1), (long)($2), (long)($3)}",
        term: "(unsigned long)$.a * 3 + (unsigned long)$.c",
        result: "T{(long)acc, 7, (long)(acc >> 3)}",
        used: "(unsigned long)$.c",
        keys: keys!(".a" => |v| json!(v as i64), ".c" => |v| json!((v + 2) as i64)),
        number: |v| v.wrapping_mul(3).wrapping_add(v + 2),
        ..PLAIN
    },
    Kind {
        name: "struct mixed",
        made: "T{1.5, (long)($1)}",
        term: "(unsigned long)$.a",
        result: "T{0.5, (long)acc}",
        used: "(unsigned long)$.a",
        keys: keys!(".a" => |v| json!(v as i64)),
        ..PLAIN
    },
    Kind {
        name: "const struct big *",
        made: "struct big{(long)($1), (long)($2), (long)($3)}",
        term: "(unsigned long)$->b + (unsigned long)$->c",
        result: "",
        behind: "struct big",
        keys: keys!("->b" => |v| json!((v + 1) as i64), "->c" => |v| json!((v + 2) as i64)),
        number: |v| (v + 1).wrapping_add(v + 2),
        ..PLAIN
    },
    Kind {
        name: "double",
        made: "(double)(int)($1)",
        term: "(unsigned long)(long)$",
        keys: keys!("" => |v| json!(f64::from(v as i32))),
        number: |v| v as i32 as u64,
        ..PLAIN
    },
];

const OF_CPP: &[Kind] = &[
    Kind {
        name: "std::string",
        made: "std::string(texts[($1) % 4])",
        term: "(unsigned long)$.size()",
        result: "std::string(texts[acc % 4])",
        used: "(unsigned long)$.size()",
        keys: keys!("" => |v| json!(text(v)), ".len" => |v| json!(text_length(v))),
        number: text_length,
        ..PLAIN
    },
    Kind {
        name: "const std::string &",
        made: "std::string(texts[($1) % 4])",
        term: "(unsigned long)$.size()",
        result: "",
        keys: keys!("" => |v| json!(text(v))),
        number: text_length,
        ..PLAIN
    },
    Kind {
        name: "std::string_view",
        made: "std::string_view(texts[($1) % 4])",
        term: "(unsigned long)$.size()",
        result: "std::string_view(texts[acc % 4])",
        used: "(unsigned long)$.size()",
        keys: keys!("" => |v| json!(text(v))),
        number: text_length,
        ..PLAIN
    },
    Kind {
        name: "std::vector<int>",
        made: "std::vector<int>(($1) % 9)",
        term: "(unsigned long)$.size()",
        result: "",
        keys: keys!(".len" => |v| json!(v % 9)),
        number: |v| v % 9,
        ..PLAIN
    },
    Kind {
        name: "Counted",
        made: "Counted((long)($1))",
        term: "(unsigned long)$.n",
        result: "Counted((long)acc)",
        used: "(unsigned long)$.n",
        keys: keys!(".n" => |v| json!(v as i64)),
        ..PLAIN
    },
    Kind {
        name: "const long &",
        made: "(long)($1)",
        result: "",
        keys: keys!("" => |v| json!(v as i64)),
        ..PLAIN
    },
];

const OF_RUST: &[Kind] = &[
    number("u32", keys!("" => |v| json!(v as u32)), |v| v as u32 as u64),
    number("u64", keys!("" => |v| json!(v)), |v| v),
    number("i64", keys!("" => |v| json!(v as i64)), |v| v),
    number("u8", keys!("" => |v| json!(v as u8)), |v| v as u8 as u64),
    number("i16", keys!("" => |v| json!(v as i16)), |v| v as i16 as u64),
    Kind {
        name: "bool",
        made: "(($1) != 0)",
        result: "(acc != 0)",
        keys: keys!("" => |v| json!(v != 0)),
        number: |v| (v != 0) as u64,
        ..PLAIN
    },
    Kind {
        name: "&'static str",
        made: "text($1)",
        term: "$.len() as u64",
        result: "text(acc)",
        used: "$.len() as u64",
        keys: keys!("" => |v| json!(text(v))),
        number: text_length,
        ..PLAIN
    },
    Kind {
        name: "String",
        made: "text($1).to_owned()",
        term: "$.len() as u64",
        result: "text(acc).to_owned()",
        used: "$.len() as u64",
        keys: keys!("" => |v| json!(text(v))),
        number: text_length,
        ..PLAIN
    },
    Kind {
        name: "&Wide",
        made: "&Wide { a: $1, b: $2 }",
        term: "$.a.wrapping_add($.b)",
        result: "",
        keys: keys!(".a" => |v| json!(v), ".b" => |v| json!(v + 1)),
        number: |v| v.wrapping_add(v + 1),
        ..PLAIN
    },
    Kind {
        name: "Wide",
        made: "Wide { a: $1, b: $2 }",
        term: "$.a.wrapping_add($.b)",
        result: "Wide { a: acc, b: acc >> 3 }",
        used: "$.a",
        keys: keys!(".a" => |v| json!(v), ".b" => |v| json!(v + 1)),
        number: |v| v.wrapping_add(v + 1),
        ..PLAIN
    },
    Kind {
        name: "Big",
        made: "Big { a: $1, b: 7, c: $3 }",
        term: "$.a.wrapping_add($.c)",
        result: "Big { a: acc, b: 7, c: acc >> 3 }",
        used: "$.c",
        keys: keys!(".a" => |v| json!(v), ".c" => |v| json!(v + 2)),
        number: |v| v.wrapping_add(v + 2),
        ..PLAIN
    },
    Kind {
        name: "Option<u32>",
        made: "(($1) % 3 != 0).then_some(($1) as u32)",
        term: "u64::from($.unwrap_or(9))",
        result: "(acc % 3 != 0).then_some(acc as u32)",
        used: "u64::from($.unwrap_or(9))",
        keys: keys!("" => |v| if v % 3 == 0 { json!("null") } else { json!(v as u32) }),
        number: |v| if v % 3 == 0 { 9 } else { v as u32 as u64 },
        ..PLAIN
    },
    Kind {
        name: "Meters",
        made: "Meters(($1) as i64)",
        term: "$.0 as u64",
        result: "Meters(acc as i64)",
        used: "$.0 as u64",
        keys: keys!(".0" => |v| json!(v as i64)),
        ..PLAIN
    },
    Kind {
        name: "&[u32]",
        made: "&NUMBERS[..(($1) % 9) as usize]",
        term: "$.len() as u64",
        result: "",
        keys: keys!(".len" => |v| json!(v % 9)),
        number: |v| v % 9,
        ..PLAIN
    },
    Kind {
        name: "f64",
        made: "f64::from(($1) as i32)",
        term: "$ as i64 as u64",
        result: "",
        keys: keys!("" => |v| json!(f64::from(v as i32))),
        number: |v| v as i32 as u64,
        ..PLAIN
    },
    Kind {
        name: "Result<u32, u32>",
        made: "",
        result: "if acc % 3 == 0 { Err(acc as u32) } else { Ok(acc as u32) }",
        used: "u64::from($.is_ok())",
        keys: keys!("" => |v| if v % 3 == 0 { json!("Err") } else { json!("Ok") }),
        ..PLAIN
    },
];

/// What a call is given and returns: by function, what is captured under which name; `None` for a failed call where
/// it is one.
pub struct Call {
    pub function: usize,
    pub captured: Vec<(String, Value)>,
    pub fails: bool,
}

/// A program and all that is true of it.
pub struct Program {
    pub source: String,
    /// What is probed.
    pub probes: Vec<String>,
    /// By the number that the program marks before each call.
    pub calls: Vec<Call>,
}

/// How a function is known, and called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Hidden,
    HiddenNoHint,
    Global,
    GlobalNoHint,
    Pointed,
    HandedOn,
    Method,
    Template,
}

const HEAD_C: &str = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#ifdef __cplusplus
#include <string>
#include <string_view>
#include <vector>
#define MADE(T) T
typedef bool bool_;
struct Counted { long n; explicit Counted(long n) : n(n) {} Counted(const Counted &o) : n(o.n) {} ~Counted() { asm volatile("" ::: "memory"); } };
#else
#define MADE(T) (T)
typedef _Bool bool_;
#endif
enum color { RED, GREEN = 5, BLUE = -3 };
struct two { int a; int b; };
struct wide { long a; long b; };
struct big { long a; long b; long c; };
struct mixed { double d; long a; };
static enum color colors[3] = { RED, GREEN, BLUE };
static char texts[4][64] = { "one", "twenty two", "a text that is too long to lie in place", "" };
volatile long marked;
__attribute__((noinline)) void mark(long id) { marked = id; }
static unsigned long sink;
static inline unsigned long hide(unsigned long v) { asm volatile("" : "+r"(v)); return v; }
#define NOINLINE __attribute__((noinline))
"#;

const HEAD_RUST: &str = r#"
#![allow(dead_code, unused, non_camel_case_types)]
use std::{hint::black_box, io::Read as _, sync::atomic::{AtomicU64, Ordering}};
pub struct Wide { a: u64, b: u64 }
pub struct Big { a: u64, b: u64, c: u64 }
#[derive(Clone, Copy)] pub struct Meters(i64);
static NUMBERS: [u32; 9] = [1; 9];
static TEXTS: [&str; 4] = ["one", "twenty two", "a text that is too long to lie in place", ""];
fn text(v: u64) -> &'static str { TEXTS[(v % 4) as usize] }
static mut MARKED: i64 = 0;
#[inline(never)] pub fn mark(id: i64) { unsafe { std::ptr::write_volatile(&raw mut MARKED, id) } }
fn hide(v: u64) -> u64 { black_box(v) }
static mut SINK: u64 = 0;
fn sink(v: u64) { unsafe { SINK = SINK.wrapping_add(v) } }
"#;

/// Makes a program of so many functions.
pub fn program(language: Language, seed: u64, functions: usize, hints: bool) -> Program {
    let mut random = Random::new(seed);
    let mut made = Program {
        source: match language {
            Language::Rust => HEAD_RUST.to_owned(),
            _ => HEAD_C.to_owned(),
        },
        probes: vec!["t:*mark(id)".to_owned()],
        calls: Vec::new(),
    };
    if language != Language::Rust {
        made.probes[0] = "t:mark(id=arg1:i64)".to_owned();
    }
    for function in 0..functions {
        add(&mut made, language, function, hints, &mut random);
    }
    let runs: String = (0..functions).map(|f| format!("    run{f}();\n")).collect();
    made.source += &match language {
        Language::Rust => format!(
            "fn main() {{\n    for t in TEXTS {{ black_box(t.as_bytes().first()); }}\n    println!(\"ready {{}}\", std::process::id());\n    std::io::stdin().read_exact(&mut [0; 3]).unwrap();\n{runs}    println!(\"done\");\n    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();\n}}\n"
        ),
        _ => format!(
            "int main() {{\n    char line[64];\n    for (int i = 0; i < 4; i++) asm volatile(\"\" :: \"r\"(texts[i][0]), \"r\"(texts) : \"memory\");\n    printf(\"ready %d\\n\", (int)getpid());\n    fflush(stdout);\n    if (!fgets(line, sizeof line, stdin)) exit(9);\n{runs}    printf(\"done\\n\");\n    fflush(stdout);\n    if (!fgets(line, sizeof line, stdin)) {{}}\n    return 0;\n}}\n"
        ),
    };
    made
}

fn kinds(language: Language) -> Vec<&'static Kind> {
    match language {
        Language::C => OF_C.iter().collect(),
        Language::Cpp => OF_C.iter().chain(OF_CPP).collect(),
        Language::Rust => OF_RUST.iter().collect(),
    }
}

/// The type's name in a template of this language; C writes compound literals.
fn written(template: &str, kind: &Kind, language: Language) -> String {
    let plain = kind.name.strip_prefix("const ").unwrap_or(kind.name);
    let plain = plain.trim_end_matches(" &").trim_end_matches(" *");
    let text = match language {
        Language::Rust if template == "(T)$1" => format!("(($1) as {plain})"),
        Language::Rust if template == "(T)acc" => format!("(acc as {plain})"),
        Language::Rust if template == "(unsigned long)$" => "($ as u64)".to_owned(),
        Language::Rust => template.to_owned(),
        Language::C => template
            .replace("T{", &format!("({plain}){{"))
            .replace("struct big{", "(struct big){")
            .replace("(T)", &format!("({plain})")),
        Language::Cpp => {
            let plain = plain.strip_prefix("struct ").unwrap_or(plain);
            template
                .replace("struct big{", "big{")
                .replace("T{", &format!("{plain}{{"))
                .replace("(T)", &format!("({plain})"))
        }
    };
    text.replace("((struct big)){", "(struct big){")
}

fn add(made: &mut Program, language: Language, f: usize, hints: bool, random: &mut Random) {
    let all = kinds(language);
    let arguments: Vec<(&Kind, bool, bool)> = (0..random.below(13))
        .map(|_| {
            loop {
                let kind = all[random.below(all.len())];
                if !kind.made.is_empty() {
                    // Used in the function; always the same.
                    break (kind, !random.one_in(5), random.one_in(5));
                }
            }
        })
        .collect();
    let result = (!random.one_in(8)).then(|| {
        loop {
            let kind = all[random.below(all.len())];
            if !kind.result.is_empty() && kind.name != "double" {
                break kind;
            }
        }
    });
    let styles: &[Style] = match (language, hints) {
        (Language::Rust, true) => &[Style::Hidden, Style::Pointed, Style::HandedOn],
        (Language::Rust, false) => &[Style::HiddenNoHint, Style::Pointed],
        (Language::C, true) => &[
            Style::Hidden,
            Style::Global,
            Style::Pointed,
            Style::HandedOn,
        ],
        (Language::C, false) => &[Style::HiddenNoHint, Style::GlobalNoHint],
        (Language::Cpp, true) => &[
            Style::Hidden,
            Style::Global,
            Style::Pointed,
            Style::HandedOn,
            Style::Method,
            Style::Template,
        ],
        (Language::Cpp, false) => &[Style::HiddenNoHint, Style::GlobalNoHint, Style::Template],
    };
    let style = styles[random.below(styles.len())];
    let mix = random.below(1 << 20) as u64 * 2 + 1;
    let rounds = if hints { 1 } else { 4 };

    // The function.
    let list: Vec<String> = arguments
        .iter()
        .enumerate()
        .map(|(place, (kind, ..))| match language {
            Language::Rust => format!("p{place}: {}", kind.name),
            _ => format!("{} p{place}", kind.name),
        })
        .collect();
    let mut body = match language {
        Language::Rust => format!("    let mut acc: u64 = {mix};\n"),
        _ => format!("    unsigned long acc = {mix};\n"),
    };
    if style == Style::Method {
        body += "    acc = acc * 31 + (unsigned long)this->n;\n";
    }
    for (place, (kind, used, _)) in arguments.iter().enumerate() {
        if *used {
            let term = written(kind.term, kind, language).replace('$', &format!("p{place}"));
            body += &match language {
                Language::Rust => {
                    format!("    acc = acc.wrapping_mul(31).wrapping_add({term});\n")
                }
                _ => format!("    acc = acc * 31 + ({term});\n"),
            };
        }
    }
    for _ in 0..rounds {
        body += &match language {
            Language::Rust => format!(
                "    let mut i = 0; while i < (acc & 3) + 1 {{ acc = (acc ^ (acc >> 7)).wrapping_mul({mix}); i += 1; }}\n"
            ),
            _ => format!(
                "    for (unsigned long i = 0, e = (acc & 3) + 1; i < e; i++) acc = (acc ^ (acc >> 7)) * {mix}ul;\n"
            ),
        };
    }
    if language == Language::Rust {
        body = body.replace(
            "let mut i = 0; while i < (acc & 3) + 1 {",
            "let mut i = 0; let e = (acc & 3) + 1; while i < e {",
        );
    }
    body += match language {
        Language::Rust => "    sink(acc);\n",
        _ => "    sink += acc;\n",
    };
    let returned = match result {
        Some(kind) => {
            let value = written(kind.result, kind, language);
            match language {
                Language::Rust => format!("    {value}\n"),
                _ => format!("    return {value};\n"),
            }
        }
        None => String::new(),
    };
    let type_name = match (result, language) {
        (Some(kind), Language::Rust) => format!(" -> {}", kind.name),
        (None, Language::Rust) => String::new(),
        (Some(kind), _) => kind.name.to_owned(),
        (None, _) => "void".to_owned(),
    };
    let list = list.join(", ");
    let names: Vec<String> = (0..arguments.len())
        .map(|place| format!("p{place}"))
        .collect();
    let names = names.join(", ");
    let source = &mut made.source;
    let (mut callee, mut probed) = (format!("f{f}"), format!("f{f}"));
    match language {
        Language::Rust => {
            let hint = if style == Style::HiddenNoHint {
                ""
            } else {
                "#[inline(never)] "
            };
            let _ = writeln!(
                source,
                "{hint}fn f{f}({list}){type_name} {{\n{body}{returned}}}"
            );
            if style == Style::HandedOn {
                let _ = writeln!(
                    source,
                    "#[inline(never)] fn w{f}({list}){type_name} {{ f{f}({names}) }}"
                );
                callee = format!("w{f}");
            }
            if style == Style::Pointed {
                callee = format!("black_box(f{f} as fn({})", types(&list));
                callee = format!("{callee}{type_name})");
            }
        }
        _ => {
            let head = match style {
                Style::Hidden | Style::HandedOn | Style::Pointed => "static NOINLINE ",
                Style::HiddenNoHint => "static ",
                Style::Global => "NOINLINE ",
                Style::GlobalNoHint => "",
                Style::Method | Style::Template => "",
            };
            match style {
                Style::Method => {
                    let _ = writeln!(
                        source,
                        "struct S{f} {{ long n; NOINLINE {type_name} f({list}) const {{\n{body}{returned}}} }};\nstatic S{f} s{f} = {{77}};"
                    );
                    callee = format!("s{f}.f");
                    probed = format!("S{f}::f");
                }
                Style::Template => {
                    let hint = if hints { "NOINLINE " } else { "" };
                    let _ = writeln!(
                        source,
                        "template <class X> {hint}{type_name} f{f}({list}) {{\n{body}{returned}}}"
                    );
                    callee = format!("f{f}<int>");
                    probed = format!("f{f}<int>");
                }
                _ => {
                    let _ = writeln!(
                        source,
                        "{head}{type_name} f{f}({list}) {{\n{body}{returned}}}"
                    );
                }
            }
            if style == Style::HandedOn {
                let _ = writeln!(
                    source,
                    "NOINLINE {type_name} w{f}({list}) {{ {} f{f}({names}); }}",
                    if result.is_some() { "return" } else { "" }
                );
                callee = format!("w{f}");
            }
            if style == Style::Pointed {
                let _ = writeln!(
                    source,
                    "static {type_name} (*volatile q{f})({list}) = f{f};"
                );
                callee = format!("q{f}");
            }
        }
    }

    // Its calls.
    let looks = random.below(3);
    let constants: Vec<u64> = arguments
        .iter()
        .map(|_| random.below(3000) as u64)
        .collect();
    let mut run = match language {
        Language::Rust => format!("#[inline(never)] fn run{f}() {{\n"),
        _ => format!("static NOINLINE void run{f}(void) {{\n"),
    };
    for site in 0..3 {
        let mut acc = mix;
        if style == Style::Method {
            acc = acc.wrapping_mul(31).wrapping_add(77);
        }
        let (mut before, mut given, mut captured) = (String::new(), Vec::new(), Vec::new());
        for (place, (kind, used, constant)) in arguments.iter().enumerate() {
            let v = if *constant {
                constants[place]
            } else {
                random.below(100_000) as u64
            };
            let suffix = if language == Language::Rust {
                "u64"
            } else {
                "ul"
            };
            let at = |n: u64| match constant {
                true => format!("{}{suffix}", v + n),
                false => format!("hide({}{suffix})", v + n),
            };
            let value = written(kind.made, kind, language)
                .replace("$1", &at(0))
                .replace("$2", &at(1))
                .replace("$3", &at(2));
            if kind.behind.is_empty() {
                given.push(value);
            } else {
                let _ = write!(before, "{} b{place} = {value}; ", kind.behind);
                given.push(format!("&b{place}"));
            }
            if *used {
                acc = acc.wrapping_mul(31).wrapping_add((kind.number)(v));
            }
            for (key, of) in kind.keys {
                captured.push((format!("p{place}{key}"), of(v)));
            }
        }
        for _ in 0..rounds {
            for _ in 0..(acc & 3) + 1 {
                acc = (acc ^ (acc >> 7)).wrapping_mul(mix);
            }
        }
        let mut fails = false;
        if let Some(kind) = result {
            for (key, of) in kind.keys {
                captured.push((format!("ret{key}"), returned_value(kind, key, *of, acc)));
            }
            fails = kind.name.starts_with("Result") && acc.is_multiple_of(3);
        }
        let call = format!("{callee}({})", given.join(", "));
        let id = made.calls.len();
        let is_used = result.is_some() && (looks == 1 || looks == 2 && site == 0);
        let used = result.map_or(String::new(), |kind| {
            written(kind.used, kind, language).replace('$', "r")
        });
        let call = match (language, is_used) {
            (Language::Rust, true) => format!("let r = {call}; sink({used});"),
            (Language::Rust, false) => format!("let _ = {call};"),
            (_, true) => format!(
                "{} r = {call}; sink += {used};",
                result.map_or("", |kind| kind.name)
            ),
            (_, false) => format!("{call};"),
        };
        let _ = writeln!(run, "    {{ {before}mark({id}); {call} }}");
        made.calls.push(Call {
            function: f,
            captured,
            fails,
        });
    }
    made.source += &run;
    made.source += "}\n";
    let keys: Vec<String> = made.calls.last().map_or(Vec::new(), |call| {
        call.captured.iter().map(|(key, _)| key.clone()).collect()
    });
    let prefix = if language == Language::Rust {
        "*::"
    } else {
        ""
    };
    let keys = keys.into_iter().take(32).collect::<Vec<_>>().join(", ");
    made.probes.push(format!("t:{prefix}{probed}({keys})"));
}

/// The types of a list of parameters.
fn types(list: &str) -> String {
    let parts = list.split(", ").filter(|part| !part.is_empty());
    let types: Vec<&str> = parts.filter_map(|part| part.split(": ").nth(1)).collect();
    types.join(", ")
}

/// What a part of a result is: those of a structure are made in another way than those of an argument.
fn returned_value(kind: &Kind, key: &str, of: fn(u64) -> Value, acc: u64) -> Value {
    match (kind.name, key) {
        ("struct two", ".b") => json!((acc >> 3) as i32),
        ("struct wide", ".b") => json!((acc >> 3) as i64),
        ("struct big", ".c") => json!((acc >> 3) as i64),
        ("Wide", ".b") | ("Big", ".c") => json!(acc >> 3),
        _ => of(acc),
    }
}
