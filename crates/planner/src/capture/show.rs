//! A plan as people read it: `symbols --plan`.

use std::fmt;

use teracron_common::plan::{Code, Compare, PLACE_CFA, PLACE_FS, PLACE_KEPT, PLACES_FROM, Step};

use super::{CapturePlan, Meaning, Role, x86_64::registers};

impl fmt::Display for CapturePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = self
            .steps
            .steps
            .get(..self.steps.len as usize)
            .unwrap_or(&[]);
        for (number, step) in steps.iter().enumerate() {
            writeln!(f, "  {number:>3}  {}", self.step(step))?;
        }
        Ok(())
    }
}

impl CapturePlan {
    fn item(&self, number: u8) -> String {
        match self.keys.get(usize::from(number)) {
            Some(key) => {
                let role = match &key.role {
                    Role::Parameter(name) => name.to_string(),
                    Role::ErrorType => "error type".to_owned(),
                    Role::ErrorMessage => "error message".to_owned(),
                    Role::Condition => "condition".to_owned(),
                };
                let meaning = match &key.meaning {
                    Meaning::Signed => "signed".to_owned(),
                    Meaning::Unsigned => "unsigned".to_owned(),
                    Meaning::Boolean => "boolean".to_owned(),
                    Meaning::Character => "character".to_owned(),
                    Meaning::Float(size) => format!("{size}-byte float"),
                    Meaning::Pointer => "pointer".to_owned(),
                    Meaning::Enumeration(names) => format!("one of {} names", names.known.len()),
                    Meaning::Text => "text".to_owned(),
                    Meaning::Errno => "errno".to_owned(),
                    Meaning::GoType => "Go type".to_owned(),
                };
                format!("{} ({meaning})", model::text::shown(&role))
            }
            None => "?".to_owned(),
        }
    }

    fn step(&self, step: &Step) -> String {
        let operand = step.operand;
        let codes = [
            Code::End,
            Code::Place,
            Code::Constant,
            Code::Add,
            Code::Load,
            Code::Keep,
            Code::Subtract,
            Code::Divide,
            Code::Bits,
            Code::Sign,
            Code::Jump,
            Code::AddPlace,
            Code::GoText,
            Code::Errno,
            Code::Item,
            Code::Text,
            Code::CString,
            Code::Null,
            Code::Fail,
        ];
        match codes.into_iter().find(|code| *code as u8 == step.code) {
            Some(Code::Place) => format!("value = {}", place(step.a)),
            Some(Code::Constant) => format!("value = {:#x}", operand),
            Some(Code::Add) => {
                let by = operand as i64;
                format!(
                    "value {} {}",
                    if by < 0 { "-=" } else { "+=" },
                    by.unsigned_abs()
                )
            }
            Some(Code::Load) => format!("value = {} bytes at value, else to {}", step.a, step.to),
            Some(Code::Keep) => format!("{} = value", place(step.a)),
            Some(Code::Subtract) => format!("value -= {}", place(step.a)),
            Some(Code::AddPlace) => format!("value += {}", place(step.a)),
            Some(Code::GoText) => format!(
                "value = where an error of the type at value has its text, else to {}",
                step.to
            ),
            Some(Code::Errno) => format!(
                "value = address of errno, where the process's is known, else to {}",
                step.to
            ),
            Some(Code::Divide) => format!("value /= {operand}"),
            Some(Code::Bits) => format!("value = value >> {} & {operand:#x}", step.a),
            Some(Code::Sign) => format!("value = its {} bits, signed", step.a),
            Some(Code::Jump) => match comparison(step.a) {
                Some((_, _)) if step.a == Compare::BelowEqual as u8 && operand == u64::MAX => {
                    format!("to {}", step.to)
                }
                Some((sign, true)) => format!("if value {sign} {} to {}", operand as i64, step.to),
                Some((sign, false)) => format!("if value {sign} {operand:#x} to {}", step.to),
                None => "?".to_owned(),
            },
            Some(Code::Item) => format!("send value as {}", self.item(step.key)),
            Some(Code::Text) => format!(
                "send {} bytes at value, at most {operand}, as {}",
                place(step.a),
                self.item(step.key)
            ),
            Some(Code::CString) => format!(
                "send the bytes at value up to a NUL, at most {operand}, as {}",
                self.item(step.key)
            ),
            Some(Code::Null) => format!("send nothing as {}", self.item(step.key)),
            Some(Code::Fail) => "the call has failed".to_owned(),
            Some(Code::End) | None => "end".to_owned(),
        }
    }
}

fn place(number: u8) -> String {
    match registers::NAMES.get(usize::from(number)) {
        Some(name) => (*name).to_owned(),
        None if number == PLACE_CFA => "frame address".to_owned(),
        None if number == PLACE_FS => registers::THREAD.to_owned(),
        None if number == PLACE_KEPT => "kept for the exit".to_owned(),
        None => format!("kept {}", number.saturating_sub(PLACES_FROM)),
    }
}

/// Its sign, and whether it compares signed numbers.
fn comparison(number: u8) -> Option<(&'static str, bool)> {
    const ALL: [(Compare, &str, bool); 10] = [
        (Compare::Equal, "==", true),
        (Compare::NotEqual, "!=", true),
        (Compare::Less, "<", true),
        (Compare::LessEqual, "<=", true),
        (Compare::Below, "<", false),
        (Compare::BelowEqual, "<=", false),
        (Compare::Greater, ">", true),
        (Compare::GreaterEqual, ">=", true),
        (Compare::Above, ">", false),
        (Compare::AboveEqual, ">=", false),
    ];
    ALL.iter()
        .find(|(compare, _, _)| *compare as u8 == number)
        .map(|(_, sign, signed)| (*sign, *signed))
}
