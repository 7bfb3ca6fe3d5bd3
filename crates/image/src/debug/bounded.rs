//! What is asked of debug information, within the budget of its file: the time counts, and what was too much is said
//! as such and not as the error that came of it.

use std::collections::HashMap;

use super::{DebugError, DebugInfo, FunctionInfo, InlinedFunction, LineCode, Lines};

impl DebugInfo {
    /// What is known of the function that begins at `address`; `None` where nothing is.
    ///
    /// # Errors
    /// Where the debug information makes no sense, or costs too much.
    pub fn function(&self, address: u64) -> Result<Option<FunctionInfo<'_>>, DebugError> {
        self.within(|| self.find_function(address))
    }

    /// Where the function at `address` was inlined in its own unit, ascending: calls there are not seen.
    ///
    /// # Errors
    /// Where the debug information makes no sense, or costs too much.
    pub fn inlined_places(&self, address: u64) -> Result<Vec<u64>, DebugError> {
        self.within(|| self.read_inlined_places(address))
    }

    /// Where functions were inlined whose symbol or name is `wanted`. It reads all of the debug information,
    /// so it is only for who asks for it.
    ///
    /// # Errors
    /// Where the debug information makes no sense, or there is too much of it.
    pub fn inlined_functions(
        &self,
        wanted: impl FnMut(&str) -> bool,
    ) -> Result<Vec<InlinedFunction>, DebugError> {
        self.within(|| self.read_inlined_functions(wanted))
    }

    /// The code of some lines. `near`: a function that is likely to have them; where it is of a unit that was
    /// compiled from that very file, no other is looked at.
    ///
    /// # Errors
    /// Where the debug information makes no sense, or too much of it would have to be read.
    pub fn lines(&self, wanted: &Lines<'_>, near: Option<u64>) -> Result<LineCode, DebugError> {
        self.within(|| self.read_lines(wanted, near))
    }

    /// Addresses of types, with the place in their values where a string lies that is the error's text:
    /// of the types with these names, as Go writes them (`*errors.errorString`, `shop.Declined`). `types`:
    /// address of `runtime.types`.
    ///
    /// # Errors
    /// Where the debug information makes no sense, or costs too much.
    pub fn go_error_texts(
        &self,
        names: &HashMap<String, Option<u64>>,
        types: u64,
    ) -> Result<Vec<(u64, u64)>, DebugError> {
        self.within(|| self.read_go_error_texts(names, types))
    }

    /// Errors of single units are passed over on the way, so an answer that came of them is none either.
    fn within<T>(&self, read: impl FnOnce() -> Result<T, DebugError>) -> Result<T, DebugError> {
        let _reading = self.budget.reading();
        let found = read();
        match self.budget.exceeded() {
            Some(exceeded) if !self.was_exceeded => Err(exceeded.into()),
            _ => found,
        }
    }
}
