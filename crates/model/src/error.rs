//! What can go wrong, by kind: each has an exit code of its own (`teracron-agent/src/cli/exit.rs`).

/// A failure that ends the agent. Each message says what happened, to what, and what to do next.
#[derive(Debug, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum Error {
    /// Something failed while running.
    #[error("{0}")]
    Failed(String),
    /// Wrong usage or configuration.
    #[error("{0}")]
    Usage(String),
    /// A privilege or a kernel feature is missing.
    #[error("{0}")]
    Missing(String),
    /// A target or a symbol was not found, or can't be probed.
    #[error("{0}")]
    NotFound(String),
}

/// The agent's result.
pub type Result<T> = std::result::Result<T, Error>;

/// Adds to an I/O error what was being done; keeps the kinds apart.
pub trait Context<T> {
    /// Something failed while running.
    fn failed(self, what: impl FnOnce() -> String) -> Result<T>;
    /// A target or a symbol was not found.
    fn not_found(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: std::fmt::Display> Context<T> for std::result::Result<T, E> {
    fn failed(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::Failed(format!("{}: {error}", what())))
    }

    fn not_found(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::NotFound(format!("{}: {error}", what())))
    }
}
