//! What the user asks for: `[WORKFLOW:]FUNCTION[@MODULE][(NAME, …)][ fails CONDITION]`.

mod captures;
mod options;
mod pattern;

use std::{fmt, str::FromStr};

use image::FileName;
use model::text;
use serde::{Deserialize, Serialize};

pub use options::{GoSpawn, InlinedCalls, ProbeOptions};
pub use pattern::FunctionPattern;

pub use captures::{
    Capture, CaptureError, Comparison, Condition, Kind, Literal, Path, Position, Source,
};

pub(crate) use captures::position_of;

/// Longest specification, in bytes.
pub(crate) const MAX_SPEC_BYTES: usize = 4096;

/// A probe that the user asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeSpec {
    /// The workflow that its spans belong to; the program's name where `None`.
    pub workflow: Option<String>,
    /// Which functions.
    pub function: FunctionPattern,
    /// Where to look: a path or a file name; the main program and then all libraries where `None`.
    pub module: Option<FileName>,
    /// A block of source lines instead of a function; `function` is what its spans are called.
    pub block: Option<BlockSpec>,
    /// What is read of each call.
    pub captures: Vec<Capture>,
    /// When a call has failed.
    pub fails: Option<Condition>,
    /// What else it does.
    pub options: ProbeOptions,
    /// `f(order)` may name a signature or a capture: the second reading, for where no function has
    /// such a signature.
    otherwise: Option<(FunctionPattern, Vec<Capture>)>,
}

/// Source lines: `order.c:120-145`, `order.c:120..`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockSpec {
    /// File name, or the end of its path.
    pub file: String,
    /// The first line.
    pub first: u64,
    /// The last; to the end of the function where `None`.
    pub last: Option<u64>,
}

impl BlockSpec {
    /// Reads `FILE:LINE-LINE` or `FILE:LINE..`; `None` for anything else.
    fn parse(text: &str) -> Option<Self> {
        let (file, lines) = text.rsplit_once(':')?;
        let (first, last) = match lines.strip_suffix("..") {
            Some(first) => (first, None),
            None => {
                let (first, last) = lines.split_once('-')?;
                (first, Some(last))
            }
        };
        let number = |text: &str| text.trim().parse::<u64>().ok().filter(|line| *line > 0);
        Some(Self {
            file: file.trim().to_owned(),
            first: number(first)?,
            last: match last {
                Some(last) => Some(number(last)?),
                None => None,
            },
        })
        .filter(|block| !block.file.is_empty() && block.last.is_none_or(|last| last >= block.first))
    }
}

impl fmt::Display for BlockSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", text::shown(&self.file), self.first)?;
        match self.last {
            Some(last) => write!(f, "-{last}"),
            None => f.write_str(".."),
        }
    }
}

/// What is wrong with a specification.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Nothing where a name should be.
    #[error("`{0}`: the {1} is empty")]
    Empty(String, &'static str),
    /// Characters that are in no name.
    #[error("`{0}` contains control characters")]
    Control(String),
    /// Longer than any name.
    #[error("a probe of {0} bytes is too long; {MAX_SPEC_BYTES} are allowed")]
    TooLong(usize),
    /// Looks like an address, but is none.
    #[error("`{0}` is not an address: write it as 0x1234")]
    Address(String),
    /// A parenthesis without its other half.
    #[error("`{0}`: a parenthesis is not closed, or not opened")]
    Parenthesis(String),
    /// A comma too many.
    #[error("`{0}`: there is nothing between two commas")]
    NoName(String),
    /// Something like ` fails `.
    #[error("`{0}`: write the condition behind ` fails `, with spaces: `… fails ret < 0`")]
    Fails(String),
    /// Lines without a name, or one line.
    #[error("`{0}`: lines are written NAME@FILE:FIRST-LAST or NAME@FILE:FIRST..")]
    Lines(String),
    /// A block returns nothing.
    #[error("`{0}`: a block of lines has no result that could fail")]
    BlockFails(String),
    /// What is to be read of a call.
    #[error(transparent)]
    Capture(#[from] CaptureError),
}

impl FromStr for ProbeSpec {
    type Err = SpecError;

    fn from_str(spec: &str) -> Result<Self, SpecError> {
        if spec.len() > MAX_SPEC_BYTES {
            return Err(SpecError::TooLong(spec.len()));
        }
        let shown = || text::shown(spec);
        if spec.chars().any(char::is_control) {
            return Err(SpecError::Control(shown()));
        }
        let (workflow, rest) = split_workflow(spec);
        let (rest, fails) = match rest.split_once(" fails ") {
            Some((rest, condition)) => (rest.trim_end(), Some(captures::condition(condition)?)),
            None => (rest, None),
        };
        if let Some(mistake) = mistake(rest) {
            return Err(mistake(shown()));
        }
        if let Some((name, lines)) = rest.rsplit_once('@')
            && let Some(block) = BlockSpec::parse(lines)
        {
            if fails.is_some() {
                return Err(SpecError::BlockFails(shown()));
            }
            let name = match name.trim() {
                "" => block.to_string(),
                name => name.to_owned(),
            };
            return Ok(Self {
                function: FunctionPattern::Name(name.clone()),
                block: Some(block),
                ..Self::new(workflow, "block", None)?
            });
        }
        let group = last_group(rest);
        let head = group.map_or(rest, |(head, _)| head);
        let (function, module) = match head.rsplit_once('@') {
            Some((function, module)) => (function, Some(module)),
            None => (head, None),
        };
        let mut spec = match group {
            None => Self::new(workflow, function, module)?,
            // Behind a module, or behind a signature, there is no other signature.
            Some((_, inner)) if module.is_some() || function.ends_with(')') => Self {
                captures: captures::list(inner)?,
                ..Self::new(workflow, function, module)?
            },
            // `operator()` and its like are names.
            Some(_) if function.ends_with("operator") || function.is_empty() => {
                Self::new(workflow, rest, None)?
            }
            Some((_, inner)) => {
                let signature = Self::new(workflow, rest, None)?;
                let captured = captures::list(inner);
                match captured {
                    // Such an argument is no type of any language.
                    Ok(captures)
                        if captures.iter().any(|capture| {
                            matches!(capture.source, Source::Position(..)) || capture.key == "ret"
                        }) =>
                    {
                        Self {
                            captures,
                            ..Self::new(workflow, function, None)?
                        }
                    }
                    Ok(captures) => Self {
                        otherwise: FunctionPattern::parse(function.trim())
                            .map(|pattern| (pattern, captures)),
                        ..signature
                    },
                    // No type of any language, either.
                    Err(error) if inner.contains('=') => return Err(error.into()),
                    Err(_) => signature,
                }
            }
        };
        spec.fails = fails;
        Ok(spec)
    }
}

/// The workflow, where there is one, and the rest. `shop::charge` has none: its colons are the language's; nor has
/// `validate@order.c:120-145`.
fn split_workflow(spec: &str) -> (Option<&str>, &str) {
    let end = spec.find(['@', '(', '<']).unwrap_or(spec.len());
    let head = spec.get(..end).unwrap_or(spec);
    let mut from = 0;
    while let Some(place) = head.get(from..).and_then(|rest| rest.find(':')) {
        let place = from + place;
        let colons = head
            .bytes()
            .skip(place)
            .take_while(|byte| *byte == b':')
            .count();
        if colons % 2 == 1 {
            return (spec.get(..place), spec.get(place + 1..).unwrap_or_default());
        }
        from = place + colons;
    }
    (None, spec)
}

/// What is written wrongly in what stands behind the workflow and before the condition.
fn mistake(rest: &str) -> Option<fn(String) -> SpecError> {
    let mut depth = 0i32;
    let mut lowest = 0;
    for byte in rest.bytes() {
        depth += i32::from(byte == b'(') - i32::from(byte == b')');
        lowest = lowest.min(depth);
    }
    let after_group = rest.rsplit_once(')').map_or("", |(_, after)| after);
    if after_group.trim_start().starts_with("fail") || rest.contains(" fail ") {
        return Some(SpecError::Fails);
    }
    if depth != 0 || lowest < 0 {
        return Some(SpecError::Parenthesis);
    }
    if let Some((_, inner)) = last_group(rest)
        && !inner.trim().is_empty()
        && inner.split(',').any(|name| name.trim().is_empty())
    {
        return Some(SpecError::NoName);
    }
    // A function's name ends with no number behind one colon.
    let (file, line) = rest.rsplit_once(':').unwrap_or(("", rest));
    let is_lines = !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit());
    (is_lines && !file.ends_with(':')).then_some(SpecError::Lines)
}

/// The parentheses that a text ends with: what stands before, and what in them.
fn last_group(text: &str) -> Option<(&str, &str)> {
    let inner_end = text.strip_suffix(')')?;
    let mut depth = 0usize;
    for (place, byte) in inner_end.bytes().enumerate().rev() {
        match byte {
            b')' => depth += 1,
            b'(' if depth == 0 => {
                return Some((text.get(..place)?.trim_end(), inner_end.get(place + 1..)?));
            }
            b'(' => depth -= 1,
            _ => {}
        }
    }
    None
}

impl ProbeSpec {
    /// From parts, as a configuration file has them.
    ///
    /// # Errors
    /// Where one is empty, has control characters, or is an address that is none.
    pub fn new(
        workflow: Option<&str>,
        function: &str,
        module: Option<&str>,
    ) -> Result<Self, SpecError> {
        let shown = || match workflow {
            Some(workflow) => text::shown(&format!("{workflow}:{function}")),
            None => text::shown(function),
        };
        let controls = |text: &str| text.chars().any(char::is_control);
        if workflow.is_some_and(controls) || controls(function) || module.is_some_and(controls) {
            return Err(SpecError::Control(shown()));
        }
        let workflow = workflow.map(str::trim);
        if workflow.is_some_and(str::is_empty) {
            return Err(SpecError::Empty(shown(), "workflow"));
        }
        let module = module.map(str::trim);
        if module.is_some_and(str::is_empty) {
            return Err(SpecError::Empty(shown(), "module"));
        }
        let function = function.trim();
        if function.is_empty() {
            return Err(SpecError::Empty(shown(), "function"));
        }
        Ok(Self {
            workflow: workflow.map(str::to_owned),
            function: FunctionPattern::parse(function)
                .ok_or_else(|| SpecError::Address(text::shown(function)))?,
            module: module.map(FileName::new),
            block: None,
            captures: Vec::new(),
            fails: None,
            options: ProbeOptions::default(),
            otherwise: None,
        })
    }

    /// Looks what is at the path of the file that it names, for whoever can't.
    pub fn look_up(&mut self) {
        if let Some(module) = &mut self.module {
            module.look_up();
        }
    }

    /// With what is to be read of each call, as a configuration file has it.
    ///
    /// # Errors
    /// Where a capture is none, or the condition.
    pub fn reading(self, captures: &[String], fails: Option<&str>) -> Result<Self, SpecError> {
        Ok(Self {
            captures: captures::list(&captures.join(","))?,
            fails: fails.map(captures::condition).transpose()?,
            ..self
        })
    }

    /// With what else it does.
    pub fn with(self, options: ProbeOptions) -> Self {
        Self { options, ..self }
    }

    /// What it may mean, the likelier first.
    pub fn readings(&self) -> Vec<Self> {
        let mut readings = vec![Self {
            otherwise: None,
            ..self.clone()
        }];
        // `memcpy@GLIBC_2.14` may name a file, or a version.
        if let (FunctionPattern::Name(name), Some(module)) = (&self.function, &self.module)
            && !module.as_str().contains(['/'])
            && !module.as_str().contains(".so")
        {
            readings.push(Self {
                function: FunctionPattern::Name(format!("{name}@{}", module.as_str())),
                module: None,
                otherwise: None,
                ..self.clone()
            });
        }
        if let Some((function, captures)) = &self.otherwise {
            readings.push(Self {
                function: function.clone(),
                captures: captures.clone(),
                otherwise: None,
                ..self.clone()
            });
        }
        readings
    }
}

impl fmt::Display for ProbeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(workflow) = &self.workflow {
            write!(f, "{}:", text::shown(workflow))?;
        }
        write!(f, "{}", self.function)?;
        if let Some(block) = &self.block {
            return write!(f, "@{block}");
        }
        if let Some(module) = &self.module {
            write!(f, "@{}", text::shown(module.as_str()))?;
        }
        if !self.captures.is_empty() {
            let captures: Vec<String> = self.captures.iter().map(ToString::to_string).collect();
            write!(f, "({})", captures.join(", "))?;
        }
        if let Some(condition) = &self.fails {
            write!(f, " fails {condition}")?;
        }
        write!(f, "{}", self.options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(spec: &str) -> ProbeSpec {
        spec.parse().unwrap()
    }

    #[test]
    fn the_forms_of_the_manual() {
        let spec = parse("payment:create_order");
        assert_eq!(spec.workflow.as_deref(), Some("payment"));
        assert_eq!(spec.function, FunctionPattern::Name("create_order".into()));
        assert_eq!(spec.module, None);
        let spec = parse("shop:shop::Cart::total@libpay.so.1.2");
        assert_eq!(
            spec.function,
            FunctionPattern::Name("shop::Cart::total".into())
        );
        assert_eq!(
            spec.module.as_ref().map(FileName::as_str),
            Some("libpay.so.1.2")
        );
        assert_eq!(parse("a:0x1234").function, FunctionPattern::Address(0x1234));
        assert_eq!(
            parse("a:shop::*").function,
            FunctionPattern::Glob("shop::*".into())
        );
        assert_eq!(
            parse("a:f(char*, int)").function,
            FunctionPattern::Name("f(char*, int)".into())
        );
        assert_eq!(
            parse("a:V::operator[]").function,
            FunctionPattern::Name("V::operator[]".into())
        );
    }

    #[test]
    fn blocks_of_lines() {
        let spec = parse("payment:validate@order.c:120-145");
        assert_eq!(
            spec.block,
            Some(BlockSpec {
                file: "order.c".into(),
                first: 120,
                last: Some(145)
            })
        );
        assert_eq!(spec.to_string(), "payment:validate@order.c:120-145");
        let spec = parse("payment:@src/order.c:120..");
        assert_eq!(spec.block.as_ref().unwrap().last, None);
        assert_eq!(
            spec.function,
            FunctionPattern::Name("src/order.c:120..".into())
        );
        assert!(parse("p:f@lib.so.1").block.is_none());
        for bad in ["p:f@order.c:5-3 fails null", "p:x@a.c:1-2 fails null"] {
            assert!(
                bad.parse::<ProbeSpec>().is_err() || parse(bad).block.is_none(),
                "{bad}"
            );
        }
    }

    #[test]
    fn signatures_and_captures() {
        let shown = |spec: &str| -> Vec<String> {
            let spec = parse(spec);
            spec.readings()
                .iter()
                .map(|reading| {
                    format!(
                        "{} {:?}",
                        reading.function,
                        reading
                            .captures
                            .iter()
                            .map(ToString::to_string)
                            .collect::<Vec<_>>()
                    )
                })
                .collect()
        };
        assert_eq!(
            shown("p:pay(order, amount)"),
            ["pay(order, amount) []", "pay [\"order\", \"amount\"]"]
        );
        assert_eq!(shown("p:pay(char*, int)"), ["pay(char*, int) []"]);
        assert_eq!(shown("p:pay(int)(order)"), ["pay(int) [\"order\"]"]);
        assert_eq!(shown("p:pay@lib.so(order)"), ["pay [\"order\"]"]);
        assert_eq!(
            shown("p:pay(x=arg1:i64) fails ret < 0"),
            ["pay [\"x=arg1:i64\"]"]
        );
        assert_eq!(
            shown("p:main.(*Server).handle(id, ret)"),
            ["main.(*Server).handle [\"id\", \"ret\"]"]
        );
        assert_eq!(shown("p:F::operator()"), ["F::operator() []"]);
        assert_eq!(
            shown("p:F::operator()(int)(x)"),
            ["F::operator()(int) [\"x\"]"]
        );
        assert_eq!(
            parse("p:pay@lib.so(order.id) fails ret->code != 0").to_string(),
            "p:pay@lib.so(order.id) fails ret.code != 0"
        );
        assert!("p:pay@lib.so(1)".parse::<ProbeSpec>().is_err());
        assert!("p:pay fails x".parse::<ProbeSpec>().is_err());
    }

    #[test]
    fn what_is_refused() {
        for spec in ["", ":f", "w:", "w:f@", "w:@m", "w:f\n", "w:0xzz"] {
            assert!(spec.parse::<ProbeSpec>().is_err(), "{spec:?}");
        }
        assert!("w:".repeat(4000).parse::<ProbeSpec>().is_err());
        let shown = "w:f\x1b[2J".parse::<ProbeSpec>().unwrap_err().to_string();
        assert!(!shown.contains('\x1b'));
    }

    #[test]
    fn the_workflow_may_be_left_out() {
        let read = |spec: &str| {
            let spec = parse(spec);
            (spec.workflow.clone(), spec.function.to_string())
        };
        assert_eq!(read("create_order"), (None, "create_order".into()));
        assert_eq!(read("a::b::c"), (None, "a::b::c".into()));
        assert_eq!(read("w:a::b"), (Some("w".into()), "a::b".into()));
        // From the outermost namespace.
        assert_eq!(read("w:::b"), (Some("w".into()), "::b".into()));
        assert_eq!(read("main.(*Store).Load(id, ret)").0, None);
        let block = parse("validate@order.c:120-145");
        assert_eq!(
            (block.workflow.as_deref(), block.to_string().as_str()),
            (None, "validate@order.c:120-145")
        );
    }

    #[test]
    fn mistakes_are_told_as_what_they_are() {
        for (spec, word) in [
            ("w:handle(fd", "parenthesis"),
            ("w:handle fd)", "parenthesis"),
            ("w:f(fd,,x)", "commas"),
            ("w:f(fd,)", "commas"),
            ("w:f(fd) fail ret<0", "fails ret < 0"),
            ("w:f(fd)fails ret<0", "fails ret < 0"),
            ("w:f fail ret<0", "fails ret < 0"),
            ("w:f fails ret = 404", "=="),
            ("w:main.cpp:30", "NAME@FILE"),
            ("main.cpp:30", "NAME@FILE"),
            ("w:f@order.c:11", "NAME@FILE"),
            ("w:f@a.so(x=arg1:i65)", "no argument"),
            ("w:f(x=arg1:i65)", "no argument"),
        ] {
            let said = spec.parse::<ProbeSpec>().map_or_else(
                |error| error.to_string(),
                |spec| format!("{spec} was taken"),
            );
            assert!(said.contains(word), "{spec}: {said}");
        }
    }

    #[test]
    fn names_ignore_idle_spaces() {
        let name = FunctionPattern::Name("f(int,unsigned  long)".into());
        assert!(!name.matches("f(int, unsignedlong)"));
        let name = FunctionPattern::Name("f(int,char const*)".into());
        assert!(name.matches("f(int, char const*)"));
        assert!(!name.matches("f(int, charconst*)"));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(spec in "\\PC{0,60}") {
            let _ = spec.parse::<ProbeSpec>();
        }

        #[test]
        fn what_parses_prints_as_it_was(workflow in "[a-z]{1,8}", function in "[a-z_][a-z0-9_:]{0,20}[a-z]", module in proptest::option::of("lib[a-z]{1,8}\\.so")) {
            let spec = match &module {
                Some(module) => format!("{workflow}:{function}@{module}"),
                None => format!("{workflow}:{function}"),
            };
            prop_assert_eq!(spec.parse::<ProbeSpec>().unwrap().to_string(), spec);
        }
    }
}
