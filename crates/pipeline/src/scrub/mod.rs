//! What is taken out of a span before anything keeps it: rules, and a program of the user's.
//!
//! Both see the metadata, the captured parameters and, unlike the reference client, the error message.
//! What fails takes the data with it: nothing passes that was not looked at.

mod child;
mod program;
mod rules;

use wire::{Fields, Span};

use std::{ffi::OsString, time::Duration};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use program::Program;
pub use rules::{RuleSettings, Rules};

/// What is done to spans before anything keeps them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ScrubSettings {
    /// Rules, in order.
    pub rules: Vec<RuleSettings>,
    /// Key of the hash rules.
    pub hash_key: Option<Zeroizing<String>>,
    /// External program with its arguments.
    pub program: Option<Vec<String>>,
    /// Names of variables that it may see.
    pub variables: Vec<String>,
    /// All variables that it sees, where they were read by another process: see [`read_variables`](Self::read_variables).
    pub environment: Option<Vec<(String, OsString)>>,
    /// For one answer of it.
    pub timeout: Duration,
}

/// Variables that every program may see.
const VARIABLES: [&str; 2] = ["PATH", "LANG"];

impl ScrubSettings {
    /// Reads the variables that the program may see, for a process that has others.
    pub fn read_variables(&mut self) {
        self.environment = Some(self.visible());
    }

    fn visible(&self) -> Vec<(String, OsString)> {
        if let Some(read) = &self.environment {
            return read.clone();
        }
        let named = self.variables.iter().map(String::as_str);
        VARIABLES
            .into_iter()
            .chain(named)
            .filter_map(|name| Some((name.to_owned(), std::env::var_os(name)?)))
            .collect()
    }
}

/// Rules and program of a run.
pub struct Scrubber {
    rules: Rules,
    program: Option<Program>,
}

impl Scrubber {
    /// With settings that were checked.
    ///
    /// # Errors
    /// Where a rule makes no sense, or the program can't be started.
    pub fn new(settings: &ScrubSettings) -> Result<Self, String> {
        Ok(Self {
            rules: Rules::new(settings)?,
            program: settings
                .program
                .as_deref()
                .map(|command| Program::start(command, settings.visible(), settings.timeout))
                .transpose()?,
        })
    }

    /// Why the program does not answer at present.
    pub fn failing(&self) -> Option<&str> {
        self.program.as_ref().and_then(Program::failing)
    }

    /// Takes out what must not leave. `false` where the program failed: everything that it would
    /// have seen is gone then.
    pub fn scrub(&mut self, span: &mut Span) -> bool {
        self.rules.apply(span);
        let nothing = span.metadata.is_empty()
            && span.captured_params.is_empty()
            && span.error_message.is_none();
        match &mut self.program {
            Some(program) if !nothing => {
                if program.scrub(span) {
                    return true;
                }
                span.metadata = Fields::default();
                span.captured_params = Fields::default();
                span.error_message = None;
                false
            }
            _ => true,
        }
    }
}
