//! Standard output of commands that print and end.

use std::io::{self, Write as _};

use model::error::{Error, Result};

/// Whether an error means that nobody reads any more.
pub fn is_closed_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// Writes a line to stdout; a closed pipe is no failure.
pub fn print_line(text: &str) -> Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if !is_closed_pipe(&error) => {
            Err(Error::Failed(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}
