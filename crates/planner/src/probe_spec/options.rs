//! What a probe does beside making spans: only a configuration file has words for it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What becomes of calls that the compiler put into the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InlinedCalls {
    /// They are not seen; at the start it is told how many places there are.
    #[default]
    Ignore,
    /// They are counted, place by place.
    Count,
}

/// What the spans of a goroutine belong to that was started inside a span of the probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GoSpawn {
    /// Traces of their own.
    #[default]
    Trace,
    /// The call that was innermost when the goroutine was started.
    Child,
}

/// All of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeOptions {
    /// `inlined`.
    pub inlined: InlinedCalls,
    /// `go_spawn`.
    pub go_spawn: GoSpawn,
}

impl fmt::Display for ProbeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.inlined == InlinedCalls::Count {
            f.write_str(" inlined=count")?;
        }
        if self.go_spawn == GoSpawn::Child {
            f.write_str(" go_spawn=child")?;
        }
        Ok(())
    }
}
