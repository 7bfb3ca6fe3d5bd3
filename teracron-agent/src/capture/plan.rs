//! The plans of a function: one for its entry site, one for its ways out.

use std::sync::Arc;

use teracron_common::plan::{Code, Compare, MAX_TEXT, PLACE_FS, PLACE_KEPT};

use super::{
    CapturePlan, Key, Meaning, Problem, Role, abi,
    builder::Builder,
    value::{Reader, Value},
};
use crate::{
    debug::{Address, Base, DebugError, FunctionInfo, Home, Piece, Type, TypeRef, not},
    site::{Origin, Prologue},
    spec::{Capture, Comparison, Condition, Kind, Literal, Path, Position, Source},
    symbol::Language,
};

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

    /// Whether the result is asked for.
    pub fn wants_result(&self) -> bool {
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
    /// Registers, by DWARF number, that the function is seen to set for its caller; `None` where that needs
    /// no proof.
    pub results: Option<u16>,
    /// Distance of `errno` from the thread's control block, where it is known.
    pub errno: Option<i64>,
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
    /// Places where the function was inlined: calls there are not seen.
    pub inlined: usize,
}

/// Registers that must be final where results are read.
pub fn result_registers(request: &Request, language: Language) -> u16 {
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
    probe: u32,
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
                Source::Position(Position::Argument(number), kind) => by_position(
                    builder,
                    abi::argument(subject.language, *number),
                    *kind,
                    role,
                ),
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
pub fn reads_kept(plan: &CapturePlan) -> bool {
    plan.steps
        .steps
        .iter()
        .any(|step| step.code == Code::Place as u8 && step.a == PLACE_KEPT)
}

/// Plans what is read where the function is left.
pub fn at_exit(
    request: &Request,
    subject: &Subject<'_>,
    probe: u32,
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
                    by_position(builder, abi::number_result(), *kind, role)
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
        Kind::Text => return super::value::c_string(builder, &value, role),
    };
    let key = builder.key(Key { role, meaning });
    let from = builder.mark();
    value.scalar(builder, size, signed, key)?;
    builder.item(Code::Item, 0, key, 0);
    builder.close(from);
    Ok(())
}

fn known<'a>(subject: &Subject<'a>) -> Result<&'a FunctionInfo<'a>, DebugError> {
    match &subject.info {
        Ok(info) => Ok(info),
        Err(reason) => not(reason.clone()),
    }
}

fn parameter(
    builder: &mut Builder,
    subject: &Subject<'_>,
    path: &Path,
    address: u64,
    role: Role,
) -> Result<(), DebugError> {
    let info = known(subject)?;
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
            format!("no parameter is called so; there are {}", names.join(", "))
        });
    };
    let reader = Reader::new(info);
    let home = match info.home(parameter, address)? {
        Home::Behind(pointer, loads) => behind(before_stored(*pointer, Some(8), subject)?, loads)?,
        home @ (Home::Spilled(_) | Home::SpilledFrom(..)) => {
            let size = match parameter.type_ref {
                Some(type_ref) => reader.size_of(type_ref)?,
                None => None,
            };
            before_stored(home, size, subject)?
        }
        home => home,
    };
    let value = Value::new(home, parameter.type_ref)?;
    follow(builder, &reader, value, &path.members, role)
}

fn in_frame(offset: i64) -> Home {
    Home::Memory(Address {
        base: Base::Frame,
        offset,
        loads: Vec::new(),
    })
}

/// Where a variable of `size` bytes is before the prologue stores it where `home` says.
fn before_stored(home: Home, size: Option<u64>, subject: &Subject<'_>) -> Result<Home, DebugError> {
    let at = match home {
        Home::Spilled(at) => Some(at),
        Home::SpilledFrom(register, at) => match register {
            6 => subject.prologue.rbp,
            7 => subject.prologue.rsp,
            _ => None,
        }
        .and_then(|base| base.checked_add(at)),
        home => return Ok(home),
    };
    match at {
        // Above the return address the caller has put it.
        Some(at) if at >= 0 => return Ok(in_frame(at)),
        Some(at) => {
            if let Some(spills) = size.and_then(|size| subject.prologue.stored(at, size))
                && !spills.is_empty()
            {
                return Ok(Home::Pieces(
                    spills
                        .into_iter()
                        .map(|spill| Piece {
                            size: spill.size.into(),
                            home: Ok(match spill.origin {
                                Origin::Register(number) => Home::Register(number),
                                Origin::Caller(at) => in_frame(at),
                            }),
                        })
                        .collect(),
                ));
            }
        }
        None => return not("where its frame will be can't be told"),
    }
    not("where it is before the function stores it can't be told")
}

/// Memory that a pointer points to.
fn behind(pointer: Home, loads: Vec<i64>) -> Result<Home, DebugError> {
    let mut address = match pointer {
        Home::Memory(mut address) => {
            address.loads.push(0);
            address
        }
        Home::Pieces(pieces) => match pieces.as_slice() {
            [
                Piece {
                    home: Ok(Home::Register(number)),
                    size: 8,
                },
            ] => Address {
                base: Base::Register(*number),
                offset: 0,
                loads: Vec::new(),
            },
            _ => return not("its address lies across registers"),
        },
        _ => return not("where its address is can't be told"),
    };
    let mut loads = loads.into_iter();
    address.offset = address.offset.wrapping_add(loads.next().unwrap_or(0));
    address.loads.extend(loads);
    Ok(Home::Memory(address))
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

/// The result: of a Go function the one that `path` names, or the first.
fn result_value<'a>(
    subject: &Subject<'a>,
    number: usize,
) -> Result<(Reader<'a>, Value), DebugError> {
    let info = known(subject)?;
    let reader = Reader::new(info);
    if subject.language == Language::Go {
        let types = go_result_types(info);
        let Some(type_ref) = types.get(number) else {
            return not("the function returns nothing");
        };
        let home = match abi::go_results(&reader, &types)?.into_iter().nth(number) {
            Some(Ok(home)) => home,
            Some(Err(reason)) => return not(reason),
            None => return not("the function returns nothing"),
        };
        return Ok((reader, Value::new(home, Some(*type_ref))?));
    }
    let Some(type_ref) = info.result else {
        return not("the function returns nothing");
    };
    let home = abi::result(&reader, subject.language, info.rustc, type_ref)?;
    let home = seen(home, subject)?;
    let value = Value::new(home, Some(type_ref))?;
    Ok((reader, value))
}

fn go_result_types(info: &FunctionInfo<'_>) -> Vec<TypeRef> {
    info.parameters
        .iter()
        .filter(|parameter| parameter.is_result)
        .filter_map(|parameter| parameter.type_ref)
        .collect()
}

/// An error among a Go function's results fails the call, with its type and, where it is known where
/// that lies, its text.
fn go_error(builder: &mut Builder, subject: &Subject<'_>) -> Result<bool, DebugError> {
    let info = known(subject)?;
    let types = go_result_types(info);
    let Some(number) = types
        .iter()
        .rposition(|type_ref| info.name_of(*type_ref) == "error")
    else {
        return Ok(false);
    };
    let (reader, error) = result_value(subject, number)?;
    let (table, data) = (
        reader.member(&error, "tab")?,
        reader.member(&error, "data")?,
    );
    let kind = builder.key(Key {
        role: Role::ErrorType,
        meaning: Meaning::GoType,
    });
    let message = builder.key(Key {
        role: Role::ErrorMessage,
        meaning: Meaning::Text,
    });
    let (first, second) = (Builder::place(0), Builder::place(1));
    let from = builder.mark();
    table.scalar(builder, 8, false, kind)?;
    let is_nil = builder.jump(Compare::Equal, 0);
    builder.push(Code::Fail, 0, 0);
    // `runtime.itab`: the interface, then the type.
    builder.add(8);
    builder.load(8, kind);
    builder.item(Code::Item, 0, kind, 0);
    let unknown = builder.step(Code::GoText);
    builder.push(Code::Keep, first, 0);
    data.scalar(builder, 8, false, message)?;
    builder.push(Code::AddPlace, first, 0);
    builder.push(Code::Keep, second, 0);
    builder.add(8);
    builder.load(8, message);
    builder.push(Code::Keep, first, 0);
    builder.push(Code::Place, second, 0);
    builder.load(8, message);
    builder.item(Code::Text, first, message, MAX_TEXT as u64);
    builder.land(unknown);
    builder.land(is_nil);
    builder.close(from);
    Ok(true)
}

/// What a result that the compiler may have dropped is said to be.
const DROPPED: &str = "the function is not seen to return it: the compiler drops results that no caller uses, or that are always the same";

/// A result's registers, where the function is seen to set them.
fn seen(home: Home, subject: &Subject<'_>) -> Result<Home, DebugError> {
    let Some(results) = subject.results else {
        return Ok(home);
    };
    let is_set = |home: &Home| match home {
        Home::Register(number) => results >> number & 1 == 1,
        _ => true,
    };
    Ok(match home {
        home if !is_set(&home) => return not(DROPPED),
        Home::Pieces(mut pieces) => {
            for piece in &mut pieces {
                if piece.home.as_ref().is_ok_and(|home| !is_set(home)) {
                    piece.home = Err(DROPPED);
                }
            }
            Home::Pieces(pieces)
        }
        home => home,
    })
}

/// The call has failed where the condition holds.
fn rule(
    builder: &mut Builder,
    subject: &Subject<'_>,
    condition: &Condition,
) -> Result<(), DebugError> {
    let key = builder.key(Key {
        role: Role::Condition,
        meaning: Meaning::Unsigned,
    });
    let from = builder.mark();
    let over = match condition {
        Condition::Nothing => {
            let nothing = match result_value(subject, 0) {
                Ok((reader, value)) => match reader.type_of(&value)? {
                    found @ Type::Variants { .. } => {
                        Some(reader.variant_jump(builder, &value, &found, "None", key)?)
                    }
                    Type::Pointer { .. } => {
                        value.scalar(builder, 8, false, key)?;
                        None
                    }
                    _ => return not("the function returns neither a pointer nor an option"),
                },
                // A null pointer is zero without debug information, too.
                Err(_) if subject.info.is_err() => {
                    builder.push(Code::Place, 0, 0);
                    None
                }
                Err(error) => return Err(error),
            };
            match nothing {
                Some(nothing) => {
                    let over = builder.skip();
                    builder.land(nothing);
                    over
                }
                None => builder.jump(Compare::NotEqual, 0),
            }
        }
        Condition::Compare { path, how, with } => {
            let (signed, names) = match result_value(subject, 0) {
                Ok((reader, mut value)) => {
                    for member in &path.members {
                        value = reader.member(&value, member)?;
                    }
                    reader.number(builder, &value, key)?
                }
                Err(error) => return Err(error),
            };
            let with = match with {
                Literal::Number(number) => *number as u64,
                Literal::Name(name) => {
                    let last = name.rsplit("::").next().unwrap_or(name);
                    match names.iter().find(|(_, known)| known == last) {
                        Some((value, _)) => *value,
                        None => return not(format!("{name} is none of its values")),
                    }
                }
            };
            builder.jump(opposite(*how, signed), with)
        }
    };
    builder.push(Code::Fail, 0, 0);
    if subject.language != Language::Rust
        && subject.language != Language::Go
        && let Some(errno) = subject.errno
    {
        let key = builder.key(Key {
            role: Role::ErrorMessage,
            meaning: Meaning::Errno,
        });
        builder.push(Code::Place, PLACE_FS, 0);
        builder.add(errno);
        builder.load(4, key);
        builder.item(Code::Item, 0, key, 0);
    }
    builder.land(over);
    builder.close(from);
    Ok(())
}

fn opposite(how: Comparison, signed: bool) -> Compare {
    match (how, signed) {
        (Comparison::Equal, _) => Compare::NotEqual,
        (Comparison::NotEqual, _) => Compare::Equal,
        (Comparison::Less, true) => Compare::GreaterEqual,
        (Comparison::Less, false) => Compare::AboveEqual,
        (Comparison::LessEqual, true) => Compare::Greater,
        (Comparison::LessEqual, false) => Compare::Above,
        (Comparison::Greater, true) => Compare::LessEqual,
        (Comparison::Greater, false) => Compare::BelowEqual,
        (Comparison::GreaterEqual, true) => Compare::Less,
        (Comparison::GreaterEqual, false) => Compare::Below,
    }
}

/// A Rust `Result` that is an error fails the call; answers the name of the error's type, `None` where
/// the function returns something else.
fn errors_of_result(
    builder: &mut Builder,
    subject: &Subject<'_>,
    reader: &Reader<'_>,
) -> Result<Option<Arc<str>>, DebugError> {
    let info = known(subject)?;
    let Some(type_ref) = info.result else {
        return Ok(None);
    };
    let found = reader.type_of_ref(type_ref)?;
    let Type::Variants { name, variants, .. } = &found else {
        return Ok(None);
    };
    if !name.starts_with("Result<") || variants.len() != 2 {
        return Ok(None);
    }
    let (_, value) = result_value(subject, 0)?;
    let key = builder.key(Key {
        role: Role::Condition,
        meaning: Meaning::Unsigned,
    });
    let from = builder.mark();
    let failed = reader.variant_jump(builder, &value, &found, "Err", key)?;
    let over = builder.skip();
    builder.land(failed);
    builder.push(Code::Fail, 0, 0);
    // What the error is, as far as it can be read.
    let mut type_name: Arc<str> = "Err".into();
    if let Ok(error) = reader.variant_content(&value, &found, "Err") {
        if let Some(type_ref) = error.type_ref {
            type_name = info.name_of(type_ref).as_str().into();
        }
        let before = builder.mark();
        let described = match reader.type_of(&error)? {
            Type::Variants { .. } | Type::Enumeration { .. } => {
                reader.leaf(builder, &error, Role::ErrorType)
            }
            Type::Structure { .. } | Type::Pointer { .. } => {
                reader.text_leaf(builder, &error, Role::ErrorMessage)
            }
            _ => Ok(()),
        };
        if described.is_err() {
            builder.rewind(before);
        }
    }
    builder.land(over);
    builder.close(from);
    Ok(Some(type_name))
}
