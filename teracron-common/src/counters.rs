//! What the kernel side counts, per processor; user space adds the processors up.
//!
//! Every call that an entry site saw is in exactly one of: a span record, one of the `Lost*`
//! counts that speak of calls, those left out by sampling, or still open.

/// A counter: its place in the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Calls seen by an entry site.
    Entered = 0,
    /// Span records handed to the ring buffer.
    Sent = 1,
    /// Spans lost because the ring buffer was full.
    LostRing = 2,
    /// Calls not opened because the thread had too many open frames.
    LostFrames = 3,
    /// Calls not opened because too many threads had open frames.
    LostThreads = 4,
    /// Calls whose end could not be known: a frame on a stack of the program's own making (a
    /// fiber) that was gone when the thread was next seen.
    LostEnds = 5,
    /// Reads of user memory that failed: an exception's type or text is missing from its span.
    Unreadable = 6,
    /// Process events lost because their ring buffer or the map of targets was full.
    LostEvents = 7,
    /// Calls of traces that the sampling rate leaves out.
    Unsampled = 8,
    /// Verdicts about traces to come that were taken out of their queue; no calls.
    AheadTaken = 9,
    /// Captures that were asked for and could not be read, or found no room.
    LostCaptures = 10,
    /// Goroutines whose spans are traces of their own, although they were started inside a span that wants
    /// them: there was no room to remember it.
    LostOrigins = 11,
}

/// Number of counters.
pub const COUNTERS: u32 = 12;

/// All counters, added up over the processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters(pub [u64; COUNTERS as usize]);

impl Counters {
    /// The value of one counter.
    pub const fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// Calls of which no span will come.
    pub const fn lost(&self) -> u64 {
        self.get(Counter::LostRing)
            + self.get(Counter::LostFrames)
            + self.get(Counter::LostThreads)
            + self.get(Counter::LostEnds)
    }

    /// Everything that a user should hear of: lost calls and what is missing from spans.
    pub const fn troubles(&self) -> u64 {
        self.lost()
            + self.get(Counter::Unreadable)
            + self.get(Counter::LostEvents)
            + self.get(Counter::LostCaptures)
            + self.get(Counter::LostOrigins)
    }
}
