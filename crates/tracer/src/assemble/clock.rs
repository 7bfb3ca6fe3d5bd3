//! Wall-clock time of monotonic instants, right across steps of the clock.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use rustix::{
    io::Errno,
    time::{
        ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec,
        clock_gettime, timerfd_create, timerfd_settime,
    },
};

/// Steps that are remembered.
const MAX_STEPS: usize = 256;
/// Smaller differences are the clock being slewed, or the time between two readings.
const NOISE_NS: i64 = 200_000;

/// The distance between the two clocks, over time.
#[derive(Debug, Default)]
pub struct ClockMap {
    /// (monotonic instant from which it holds, wall − monotonic), ascending.
    offsets: Vec<(u64, i64)>,
}

impl ClockMap {
    /// Reads both clocks now.
    pub fn update(&mut self) {
        let before = read(ClockId::Monotonic);
        let wall = read(ClockId::Realtime);
        let after = read(ClockId::Monotonic);
        self.learn(before + (after - before) / 2, wall);
    }

    /// Takes a reading of both clocks at the same instant.
    pub(crate) fn learn(&mut self, monotonic_ns: u64, wall_ns: u64) {
        let offset = wall_ns as i64 - monotonic_ns as i64;
        match self.offsets.last() {
            Some((_, last)) if (offset - last).abs() < NOISE_NS => {}
            Some(_) => {
                if self.offsets.len() >= MAX_STEPS {
                    self.offsets.remove(0);
                }
                self.offsets.push((monotonic_ns, offset));
            }
            None => self.offsets.push((0, offset)),
        }
    }

    /// Wall-clock time of a monotonic instant, nanoseconds since 1970.
    pub fn wall(&self, monotonic_ns: u64) -> u64 {
        let later = self
            .offsets
            .partition_point(|(from, _)| *from <= monotonic_ns);
        let offset = self
            .offsets
            .get(later.saturating_sub(1))
            .map_or(0, |(_, offset)| *offset);
        monotonic_ns.saturating_add_signed(offset)
    }
}

/// Monotonic nanoseconds.
pub fn monotonic_ns() -> u64 {
    read(ClockId::Monotonic)
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Becomes readable when the wall clock is set.
pub struct StepWatch(OwnedFd);

impl StepWatch {
    /// Starts to watch.
    pub fn new() -> io::Result<Self> {
        let watch = Self(timerfd_create(
            TimerfdClockId::Realtime,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?);
        watch.arm()?;
        Ok(watch)
    }

    /// Watches for the next step: a timer in the far future, cancelled when the clock is set.
    pub fn arm(&self) -> io::Result<()> {
        let never = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: i64::MAX / 4_000_000_000,
                tv_nsec: 0,
            },
        };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        match timerfd_settime(&self.0, flags, &never) {
            // Cancelled: the clock was set between two calls; armed all the same.
            Ok(_) | Err(Errno::CANCELED) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for StepWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for StepWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_changes_only_what_starts_after_it() {
        let mut clock = ClockMap::default();
        clock.learn(1_000, 5_000_000_001_000);
        clock.learn(2_000_000, 5_000_002_000_100); // noise
        clock.learn(10_000_000, 3_000_010_000_000); // set back
        assert_eq!(clock.wall(500), 5_000_000_000_500);
        assert_eq!(clock.wall(9_999_999), 5_000_009_999_999);
        assert_eq!(clock.wall(10_000_000), 3_000_010_000_000);
        assert_eq!(clock.wall(11_000_000), 3_000_011_000_000);
    }

    #[test]
    fn agrees_with_the_clock() {
        let mut clock = ClockMap::default();
        clock.update();
        let wall = clock.wall(monotonic_ns());
        let real = read(ClockId::Realtime);
        assert!(wall.abs_diff(real) < 1_000_000_000);
    }

    #[test]
    fn steps_are_bounded() {
        let mut clock = ClockMap::default();
        for step in 0..10_000u64 {
            clock.learn(step * 1_000_000_000, step * 7_000_000_000);
        }
        assert!(clock.offsets.len() <= MAX_STEPS);
    }
}
