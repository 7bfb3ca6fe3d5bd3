//! What is sent: three kinds.

/// What a batch holds, which decides where it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// Memory samples.
    Metrics = 1,
    /// Spans.
    Spans = 2,
    /// Workflow events.
    Events = 3,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Metrics, Self::Spans, Self::Events];

    /// Reads the number in an entry.
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// Path of its requests (wire.md, "Requests").
    pub fn path(self) -> &'static str {
        match self {
            Self::Metrics => "/api/ingest",
            Self::Spans => "/v1/traces",
            Self::Events => "/v1/events",
        }
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Metrics => "memory samples",
            Self::Spans => "spans",
            Self::Events => "events",
        }
    }
}
