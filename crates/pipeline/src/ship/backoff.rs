//! How long to wait after failures: exponential, with full jitter, so that many agents do not come
//! back at the same moment.

use std::time::Duration;

/// How waits grow.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Longest first wait.
    pub first: Duration,
    /// Longest wait of all.
    pub longest: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
        }
    }
}

/// Failures in a row.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Something worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Whether the last attempt failed.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Something failed: how long to wait, by a random number.
    pub fn failed(&mut self, pace: Pace, random: u64) -> Duration {
        let ceiling = pace
            .first
            .saturating_mul(1 << self.failures.min(20))
            .min(pace.longest);
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(random as f64 / u64::MAX as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_any_shorter_one_is_possible() {
        let mut backoff = Backoff::default();
        let longest: Vec<u64> = (0..9)
            .map(|_| backoff.failed(Pace::default(), u64::MAX).as_secs())
            .collect();
        assert_eq!(longest, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(backoff.failed(Pace::default(), 0), Duration::ZERO);
        assert_eq!(
            backoff
                .failed(Pace::default(), u64::MAX / 2)
                .as_secs_f64()
                .round(),
            30.0
        );
        backoff.reset();
        assert!(!backoff.is_failing());
        assert_eq!(backoff.failed(Pace::default(), u64::MAX).as_secs(), 1);
    }
}
