//! What planning has to know of a process, collected by whoever may look at it: planning itself looks at none.

/// Facts of a process.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct ProcessFacts {
    /// Process id, for sentences.
    pub pid: u32,
    /// Why not all code that it has mapped is known, or will stay as it is: a sentence. `None` where it is.
    pub unknown_code: Option<String>,
    /// It runs under a seccomp filter.
    pub has_seccomp_filter: bool,
}
