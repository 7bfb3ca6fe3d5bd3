//! What there is to say of the functions of a plan: what can't be read or probed, equal reasons in one line.

use super::list;
use crate::{
    capture::{InlinedPlaces, Problem},
    probe::{ModulePlan, Refused},
};
use model::{
    error::{Error, Result},
    text::{self, counted},
};

/// Lines about what can't be read, at most.
const PROBLEMS_SHOWN: usize = 20;

/// What there is to say of functions and values.
#[derive(Default)]
pub(super) struct Told {
    /// Plain names of functions, each with what can't be read of its calls.
    problems: Vec<(String, Problem)>,
    inlined: Vec<(String, InlinedPlaces)>,
    /// Functions that are not probed.
    pub refused: Vec<Refused>,
}

impl Told {
    /// Takes what there is to say of a file.
    pub(super) fn take(&mut self, plan: &ModulePlan) {
        for (function, _, captures) in &plan.functions {
            let problems = captures.problems.iter().cloned();
            self.problems
                .extend(problems.map(|problem| (function.plain.clone(), problem)));
            if captures.inlined.count > 0 {
                self.inlined
                    .push((function.plain.clone(), captures.inlined));
            }
        }
    }

    /// Says nothing of calls that were inlined of functions that are counted there.
    pub(super) fn forget_inlined(&mut self, is_counted: impl Fn(&str) -> bool) {
        self.inlined.retain(|(name, _)| !is_counted(name));
    }

    /// Sentences; an error where nothing of `total` functions is left, or what was asked for is unsafe.
    pub(super) fn sentences(mut self, total: usize) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        let inlined: Vec<String> = std::mem::take(&mut self.inlined)
            .into_iter()
            .map(|(name, places)| {
                let least = if places.is_all { "" } else { "at least " };
                format!("{name} ({least}{})", counted(places.count as u64, "place"))
            })
            .collect();
        if !inlined.is_empty() {
            notes.push(format!(
                "calls that the compiler inlined are not seen: {}",
                list(&inlined)
            ));
        }
        let problems = of_problems(&self.problems);
        let more = problems.len().saturating_sub(PROBLEMS_SHOWN);
        notes.extend(problems.into_iter().take(PROBLEMS_SHOWN));
        if more > 0 {
            notes.push(format!(
                "and {} more that can't be read; `teracron-agent symbols --plan SPEC` tells",
                counted(more as u64, "value")
            ));
        }
        if let Some(insisted) = self.refused.iter().find(|refused| refused.unsafe_request) {
            return Err(Error::Usage(format!(
                "{}: {}; --allow-unsafe-return-probes insists",
                text::shown(&insisted.function),
                insisted.reason
            )));
        }
        if self.refused.is_empty() {
            return Ok(notes);
        }
        let reasons = list(&of_refused(&self.refused));
        if self.refused.len() == total {
            return Err(Error::NotFound(format!("nothing can be probed: {reasons}")));
        }
        notes.push(format!(
            "not probed, because it would not be safe or right: {reasons}"
        ));
        Ok(notes)
    }
}

/// Things by what they have in common, in the order of their first.
fn grouped<'a, T, K: PartialEq>(
    things: &'a [T],
    common: impl Fn(&'a T) -> K,
) -> Vec<(K, Vec<&'a T>)> {
    let mut groups: Vec<(K, Vec<&'a T>)> = Vec::new();
    for thing in things {
        let key = common(thing);
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, group)) => group.push(thing),
            None => groups.push((key, vec![thing])),
        }
    }
    groups
}

/// Each name once.
fn names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for name in names {
        if !all.iter().any(|known| known == name) {
            all.push(name.to_owned());
        }
    }
    all
}

/// What can't be read; where it is the same of several functions, in one line. What a reason lists behind a semicolon
/// is one function's own.
fn of_problems(problems: &[(String, Problem)]) -> Vec<String> {
    let common = |(_, problem): &(String, Problem)| {
        let reason = problem.reason.split(';').next().unwrap_or_default();
        (problem.wanted.clone(), reason.to_owned())
    };
    let groups = grouped(problems, common).into_iter();
    groups
        .map(|((wanted, reason), group)| {
            let functions = names(group.iter().map(|(function, _)| function.as_str()));
            match (functions.as_slice(), group.first()) {
                ([function], Some((_, problem))) => {
                    format!("{}: {problem}", text::shown(function))
                }
                _ => {
                    let problem = Problem { wanted, reason };
                    let many = counted(functions.len() as u64, "function");
                    format!("{problem} ({many}: {})", list(&functions))
                }
            }
        })
        .collect()
}

/// Functions that are not probed, with the reason; those with the same together.
fn of_refused(refused: &[Refused]) -> Vec<String> {
    let groups = grouped(refused, |refused| refused.reason.as_str()).into_iter();
    groups
        .map(|(reason, group)| {
            let functions = names(group.iter().map(|refused| refused.function.as_str()));
            match functions.as_slice() {
                [function] => format!("{function} ({reason})"),
                _ => {
                    let many = counted(functions.len() as u64, "function");
                    format!("{many} ({}): {reason}", list(&functions))
                }
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(function: &str, wanted: &str, reason: &str) -> (String, Problem) {
        let problem = Problem {
            wanted: wanted.to_owned(),
            reason: reason.to_owned(),
        };
        (function.to_owned(), problem)
    }

    #[test]
    fn equal_problems_are_one_line() {
        let problems = [
            problem(
                "store::get",
                "id",
                "no parameter is called so; there are key",
            ),
            problem(
                "store::put",
                "id",
                "no parameter is called so; there are key, value",
            ),
            problem("store::put", "key", "it was optimised away"),
            // Two instances of one template.
            problem(
                "store::put",
                "id",
                "no parameter is called so; there are key, value",
            ),
        ];
        assert_eq!(
            of_problems(&problems),
            [
                "id can't be read: no parameter is called so (2 functions: store::get; store::put)",
                "store::put: key can't be read: it was optimised away",
            ]
        );
        assert_eq!(
            of_problems(&problems[..1]),
            ["store::get: id can't be read: no parameter is called so; there are key"]
        );
    }

    #[test]
    fn equal_refusals_are_one() {
        let refused = |function: &str, reason: &str| Refused {
            function: function.to_owned(),
            reason: reason.to_owned(),
            unsafe_request: false,
        };
        let all = [
            refused("f", "its size is not known"),
            refused("g", "it is a coroutine"),
            refused("h", "its size is not known"),
        ];
        assert_eq!(
            of_refused(&all),
            [
                "2 functions (f; h): its size is not known",
                "g (it is a coroutine)"
            ]
        );
        let told = Told {
            refused: all.to_vec(),
            ..Told::default()
        };
        assert!(told.sentences(3).is_err());
    }
}
