//! What the kernel side is told while it runs: it may be told anew at any time.

use crate::Sampling;

/// The one value of the map `CONTROL`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// See [`Sampling::threshold`].
    pub threshold: u64,
    /// See [`Sampling::mode`].
    pub mode: u32,
    /// Changes with the rate, never 0: what was decided ahead for another rate does not count.
    pub epoch: u32,
    /// The set of probes that counts, modulo 4; or [`OVER`].
    pub generation: u32,
    /// Changes when a process is found whose stacks are copied.
    pub copies_epoch: u32,
}

/// In place of a set of probes: none counts any more.
pub const OVER: u32 = u32::MAX;

/// How a site's set of probes stands to the one that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// It counts.
    Current,
    /// It is being attached: not yet.
    Coming,
    /// It is being detached.
    Going,
    /// The run is over.
    Over,
}

impl Control {
    /// Takes a share of traces.
    pub fn sample(&mut self, sampling: Sampling) {
        (self.mode, self.threshold) = (sampling.mode, sampling.threshold);
        self.epoch = match self.epoch.wrapping_add(1) {
            0 => 1,
            epoch => epoch,
        };
    }

    /// The set after the one that counts.
    pub const fn next_generation(self) -> u8 {
        (self.generation as u8 + 1) & 3
    }
}

impl Age {
    /// Of a site's generation where `current` counts.
    #[inline(always)]
    pub const fn of(generation: u8, current: u32) -> Self {
        if current == OVER {
            return Self::Over;
        }
        match (current as u8).wrapping_sub(generation) & 3 {
            0 => Self::Current,
            3 => Self::Coming,
            _ => Self::Going,
        }
    }
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, integers only, no padding.
unsafe impl aya::Pod for Control {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_come_and_go() {
        let mut control = Control::default();
        for _ in 0..9 {
            let next = control.next_generation();
            assert_eq!(Age::of(next, control.generation), Age::Coming);
            let old = control.generation as u8;
            control.generation = next.into();
            assert_eq!(Age::of(next, control.generation), Age::Current);
            assert_eq!(Age::of(old, control.generation), Age::Going);
        }
    }

    #[test]
    fn nothing_counts_when_it_is_over() {
        for generation in 0..4 {
            assert_eq!(Age::of(generation, OVER), Age::Over);
        }
    }

    #[test]
    fn every_rate_has_an_epoch() {
        let mut control = Control {
            epoch: u32::MAX - 1,
            ..Control::default()
        };
        for epoch in [u32::MAX, 1, 2] {
            control.sample(Sampling::of(0.5));
            assert_eq!(control.epoch, epoch);
        }
    }
}
