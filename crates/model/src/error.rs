//! What can go wrong, and the exit code that says which kind it was.

/// A failure that ends the agent. Each message says what happened, to what, and what to do next.
#[derive(Debug, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum Error {
    /// Something failed while running: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// Wrong usage or configuration: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// A privilege or a kernel feature is missing: exit code 3.
    #[error("{0}")]
    Missing(String),
    /// A target or a symbol was not found, or can't be probed: exit code 4.
    #[error("{0}")]
    NotFound(String),
}

impl Error {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Missing(_) => 3,
            Self::NotFound(_) => 4,
        }
    }
}

/// The agent's result.
pub type Result<T> = std::result::Result<T, Error>;

/// Adds to an I/O error what was being done; keeps the kind of exit code apart.
pub trait Context<T> {
    /// Exit code 1.
    fn failed(self, what: impl FnOnce() -> String) -> Result<T>;
    /// Exit code 4.
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
