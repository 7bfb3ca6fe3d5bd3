//! The plans of a function: one for its entry site, one for its ways out.

use std::sync::Arc;

use teracron_common::{
    ProbeId,
    future::STATE_BEGINS,
    plan::{Code, PLACE_KEPT},
};

use super::{
    CapturePlan, Key, Meaning, Problem, Role,
    arguments::at_entry_site,
    builder::Builder,
    failure::{errors_of_result, go_error, rule},
    locate::{
        Certainty, argument, before_stored, behind, certain, known, looked_at, passed, result_value,
    },
    reader::Reader,
    sequence::c_string,
    value::Value,
    x86_64::abi,
};
use crate::probe_spec::{Capture, Condition, Kind, Path, Position, Source, position_of};
use image::{
    debug::{DebugError, FunctionInfo, Home, Type, not},
    symbol::Language,
};
use sites::{Prologue, Reads};

/// What a probe asks to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// What is captured.
    pub captures: Vec<Capture>,
    /// When a call has failed.
    pub fails: Option<Condition>,
}

impl Request {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.captures.is_empty() && self.fails.is_none()
    }

    /// Whether something is asked for that the function is given.
    pub(crate) fn wants_arguments(&self) -> bool {
        !self.captures.iter().all(is_of_result)
    }

    /// Whether the result is asked for.
    pub(crate) fn wants_result(&self) -> bool {
        self.fails.is_some() || self.captures.iter().any(is_of_result)
    }
}

fn is_of_result(capture: &Capture) -> bool {
    match &capture.source {
        Source::Path(path) => path.root == "ret",
        Source::Position(position, _) => *position == Position::Result,
    }
}

/// What is known of a function.
pub struct Subject<'a> {
    /// Its language, by its name.
    pub language: Language,
    /// What the debug information says, or why it says nothing.
    pub info: Result<&'a FunctionInfo<'a>, String>,
    /// Its first straight line.
    pub prologue: &'a Prologue,
    /// Whether it returns what its type says.
    pub certainty: Certainty,
    /// Where the function begins.
    pub address: u64,
    /// What it reads of its arguments; `None` where that does not matter.
    pub reads: Option<&'a Reads>,
    /// Where `errno` lies may be known of the processes that are traced.
    pub errno: bool,
    /// It is the poll of a future, whose address is the second argument, or the first.
    pub future: Option<bool>,
}

/// What can be read of a function's calls.
#[derive(Debug, Default)]
pub struct SitePlans {
    /// At its entry site.
    pub entry: Option<CapturePlan>,
    /// At its ways out.
    pub exit: Option<CapturePlan>,
    /// What can't.
    pub problems: Vec<Problem>,
    /// Why the user's failure rule can't be evaluated; `None` where it can, or there is none.
    pub without_rule: Option<String>,
    /// Places where the function was inlined: calls there are not seen.
    pub inlined: InlinedPlaces,
}

/// At how many places a function was inlined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InlinedPlaces {
    /// Places that are known.
    pub count: usize,
    /// All units were looked at, not only the function's own.
    pub is_all: bool,
}

/// Registers that must be final where results are read.
pub(crate) fn result_registers(request: &Request, language: Language) -> u16 {
    if request.wants_result() || matches!(language, Language::Rust | Language::Go) {
        abi::results(language)
    } else {
        0
    }
}

/// Plans what is read at the entry site, at this address; `keeps`: the exit site reads a result where the
/// caller has made room for it.
pub fn at_entry(
    request: &Request,
    subject: &Subject<'_>,
    address: u64,
    keeps: bool,
    probe: ProbeId,
    problems: &mut Vec<Problem>,
) -> Option<CapturePlan> {
    let mut builder = Builder::default();
    for capture in request
        .captures
        .iter()
        .filter(|capture| !is_of_result(capture))
    {
        attempt(&mut builder, &capture.to_string(), problems, |builder| {
            let role = Role::Parameter(capture.key.as_str().into());
            match &capture.source {
                Source::Position(Position::Argument(number), kind) => {
                    by_position(builder, argument(subject, *number)?, *kind, role)
                }
                Source::Position(Position::Result, _) => not("it is a result"),
                Source::Path(path) => parameter(builder, subject, path, address, role),
            }
        });
    }
    if keeps {
        // Rust passes the place for a large result as the first argument.
        builder.push(Code::Place, abi::FIRST_ARGUMENT, 0);
        builder.push(Code::Keep, PLACE_KEPT, 0);
    }
    builder.finish(probe)
}

/// Whether a plan reads what the entry site keeps.
pub(crate) fn reads_kept(plan: &CapturePlan) -> bool {
    plan.steps
        .steps
        .iter()
        .any(|step| step.code == Code::Place as u8 && step.a == PLACE_KEPT)
}

/// Plans what is read where the function is left.
pub fn at_exit(
    request: &Request,
    subject: &Subject<'_>,
    probe: ProbeId,
    problems: &mut Vec<Problem>,
) -> Option<CapturePlan> {
    let mut builder = Builder::default();
    for capture in request
        .captures
        .iter()
        .filter(|capture| is_of_result(capture))
    {
        attempt(&mut builder, &capture.to_string(), problems, |builder| {
            let role = Role::Parameter(capture.key.as_str().into());
            match &capture.source {
                Source::Position(_, kind) => {
                    let home = certain(abi::number_result(), subject, None)?;
                    by_position(builder, home, *kind, role)
                }
                Source::Path(path) => {
                    let (reader, value) = result_value(subject, 0)?;
                    follow(builder, &reader, value, &path.members, role)
                }
            }
        });
    }
    let mut failure = None;
    if let Some(condition) = &request.fails {
        attempt(
            &mut builder,
            &format!("fails {condition}"),
            problems,
            |builder| {
                rule(builder, subject, condition)?;
                failure = Some(Arc::from(says(condition)));
                Ok(())
            },
        );
    } else if subject.info.is_ok() && subject.language == Language::Go {
        let before = builder.mark();
        match go_error(&mut builder, subject) {
            Ok(true) => failure = Some("error".into()),
            Ok(false) => builder.rewind(before),
            Err(error) => {
                builder.rewind(before);
                problems.push(Problem {
                    wanted: "whether it returned an error".to_owned(),
                    reason: error.to_string(),
                });
            }
        }
    } else if let Ok(info) = &subject.info
        && subject.language == Language::Rust
    {
        // A result that is no `Result` is no problem.
        let reader = Reader::new(info);
        let before = builder.mark();
        match errors_of_result(&mut builder, subject, &reader) {
            Ok(Some(name)) => failure = Some(name),
            Ok(None) => builder.rewind(before),
            Err(error) => {
                builder.rewind(before);
                problems.push(Problem {
                    wanted: "whether it returned an error".to_owned(),
                    reason: error.to_string(),
                });
            }
        }
    }
    let mut plan = builder.finish(probe)?;
    plan.failure = failure;
    plan.at_exit = true;
    Some(plan)
}

/// Writes a capture, or says why it can't be, and leaves no step of it.
fn attempt(
    builder: &mut Builder,
    wanted: &str,
    problems: &mut Vec<Problem>,
    write: impl FnOnce(&mut Builder) -> Result<(), DebugError>,
) {
    let before = builder.mark();
    let result = if builder.is_full() {
        not("a probe can't read so much at once")
    } else {
        write(builder)
    };
    if let Err(error) = result {
        builder.rewind(before);
        problems.push(Problem {
            wanted: wanted.to_owned(),
            reason: error.to_string(),
        });
    }
}

fn says(condition: &Condition) -> String {
    match condition {
        Condition::Nothing => "returned nothing".to_owned(),
        Condition::Compare { .. } => condition.to_string(),
    }
}

fn by_position(
    builder: &mut Builder,
    home: Home,
    kind: Kind,
    role: Role,
) -> Result<(), DebugError> {
    let value = Value::new(home, None)?;
    let (size, signed, meaning) = match kind {
        Kind::Integer { bits, signed: true } => (bits / 8, true, Meaning::Signed),
        Kind::Integer {
            bits,
            signed: false,
        } => (bits / 8, false, Meaning::Unsigned),
        Kind::Boolean => (1, false, Meaning::Boolean),
        Kind::Character => (1, false, Meaning::Character),
        Kind::Pointer => (8, false, Meaning::Pointer),
        Kind::Text => return c_string(builder, &value, role),
    };
    let key = builder.key(Key { role, meaning });
    let from = builder.mark();
    value.scalar(builder, size, signed, key)?;
    builder.item(Code::Item, 0, key, 0);
    builder.close(from);
    Ok(())
}

fn parameter(
    builder: &mut Builder,
    subject: &Subject<'_>,
    path: &Path,
    address: u64,
    role: Role,
) -> Result<(), DebugError> {
    let info = known(subject)?;
    if let Some(is_second) = subject.future {
        return of_future(builder, info, path, is_second, role);
    }
    let arguments = || {
        info.parameters
            .iter()
            .filter(|parameter| !parameter.is_result)
    };
    let Some(parameter) = arguments().find(|parameter| parameter.name == path.root) else {
        let names: Vec<&str> = arguments()
            .map(|parameter| parameter.name.as_str())
            .filter(|name| !name.is_empty())
            .collect();
        return not(if names.is_empty() {
            "the function has no parameter with a name".to_owned()
        } else {
            format!(
                "no parameter is called so; there are {}{}",
                names.join(", "),
                if position_of(&path.root).is_some() {
                    "; by position with a type: NAME=arg1:i64"
                } else {
                    ""
                }
            )
        });
    };
    let reader = Reader::new(info);
    let size = match parameter.type_ref {
        Some(type_ref) => reader.size_of(type_ref)?,
        None => None,
    };
    let home = match at_entry_site(info, subject, parameter, address)? {
        Home::Behind(pointer, loads) => behind(before_stored(*pointer, Some(8), subject)?, loads)?,
        home @ (Home::Spilled(_) | Home::SpilledFrom(..)) => before_stored(home, size, subject)?,
        home => home,
    };
    let home = passed(home, parameter.type_ref, &reader, subject)?;
    looked_at(&home, size, subject)?;
    let value = Value::new(home, parameter.type_ref)?;
    follow(builder, &reader, value, &path.members, role)
}

/// A parameter of an async function: it lies in the future, which has not begun at the first poll.
fn of_future(
    builder: &mut Builder,
    info: &FunctionInfo<'_>,
    path: &Path,
    is_second: bool,
    role: Role,
) -> Result<(), DebugError> {
    let found = match info.future_type() {
        Some(type_ref) => info.type_of(type_ref)?,
        None => return not("the type of its future is not known"),
    };
    let Type::Variants { variants, .. } = found else {
        return not("its future is no state machine");
    };
    let begins = variants
        .iter()
        .find(|variant| variant.value == Some(STATE_BEGINS.into()));
    let Some(content) = begins.and_then(|variant| variant.content.as_ref()) else {
        return not("what its future holds at first is not known");
    };
    let home = abi::behind_argument(usize::from(is_second), content.offset);
    let value = Value::new(home, Some(content.type_ref))?;
    let reader = Reader::new(info);
    let value = reader.member(&value, &path.root)?;
    follow(builder, &reader, value, &path.members, role)
}

/// Goes through members, and reads what is there.
fn follow(
    builder: &mut Builder,
    reader: &Reader<'_>,
    mut value: Value,
    members: &[String],
    role: Role,
) -> Result<(), DebugError> {
    let mut members = members.iter().peekable();
    while let Some(name) = members.next() {
        match reader.member(&value, name) {
            Ok(member) => value = member,
            // What has a length has no member to say so that a user would know.
            Err(_) if name == "len" && members.peek().is_none() => {
                return reader.length(builder, &value, role);
            }
            Err(error) => return Err(error),
        }
    }
    reader.leaf(builder, &value, role)
}
