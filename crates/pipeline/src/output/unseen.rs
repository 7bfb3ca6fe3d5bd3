//! What was not seen though nothing was lost: calls of new processes before their probes were in place.

use std::time::Duration;

use model::text::{duration, grouped};

/// How long a new process ran before its probes were in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// It was not seen for so long.
    Lasted(Duration),
    /// It ended before.
    Ended,
}

/// What new processes (forked by a traced one, or started from a traced file) did that nobody saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unseen {
    /// Processes that were not seen from their first call on.
    pub processes: u64,
    /// Those of them that ended before their probes were in place.
    pub ended: u64,
    /// The longest time from a process's begin until its probes were in place.
    pub longest: Duration,
    /// All these times together.
    pub total: Duration,
}

impl Unseen {
    /// Counts one more.
    pub fn add(&mut self, gap: Gap) {
        self.processes += 1;
        match gap {
            Gap::Ended => self.ended += 1,
            Gap::Lasted(time) => {
                self.longest = self.longest.max(time);
                self.total += time;
            }
        }
    }

    /// For people; `None` where there is nothing to say.
    pub fn text(&self) -> Option<String> {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if self.processes == 0 {
            return None;
        }
        let new = match self.processes {
            1 => "1 new process".to_owned(),
            processes => format!("{} new processes", grouped(processes)),
        };
        let mut text = format!("calls of {new} before the probes were in place");
        if self.longest > Duration::ZERO {
            text.push_str(&format!(
                " (at most {}, {} in all)",
                duration(nanoseconds(self.longest)),
                duration(nanoseconds(self.total))
            ));
        }
        if self.ended > 0 {
            text.push_str(&format!("; {} of them ended before", grouped(self.ended)));
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_add_up() {
        let mut unseen = Unseen::default();
        assert_eq!(unseen.text(), None);
        unseen.add(Gap::Lasted(Duration::from_millis(3)));
        insta::assert_snapshot!(unseen.text().unwrap(), @"calls of 1 new process before the probes were in place (at most 3.00 ms, 3.00 ms in all)");
        unseen.add(Gap::Lasted(Duration::from_millis(2)));
        unseen.add(Gap::Ended);
        insta::assert_snapshot!(unseen.text().unwrap(), @"calls of 3 new processes before the probes were in place (at most 3.00 ms, 5.00 ms in all); 1 of them ended before");
    }
}
