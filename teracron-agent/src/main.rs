//! The `teracron-agent` program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    teracron_agent::cli::main()
}
