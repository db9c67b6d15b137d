//! Counter ticks and nanoseconds: [`Frequency`] converts without overflow.
//!
//! CNTFRQ_EL0 has 32 bits (Arm ARM D24.10.1), so a remainder times 10^9 stays under 2^62: whole seconds are converted
//! apart from the rest, and no 128-bit division is needed. Results that do not fit saturate.

/// Nanoseconds in a second.
const NANOS: u64 = 1_000_000_000;

/// The frequency of the system counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frequency(u32);

impl Frequency {
    /// The frequency in Hz, or nothing for 0: firmware that left CNTFRQ_EL0 unset is the board's fault.
    pub const fn new(hz: u32) -> Option<Self> {
        if hz == 0 { None } else { Some(Self(hz)) }
    }

    /// What CNTFRQ_EL0 says, or that of QEMU's boards where it says nothing that can be.
    pub fn of_board(hz: u64) -> Self {
        u32::try_from(hz).ok().and_then(Self::new).unwrap_or(Self(62_500_000))
    }

    /// In Hz.
    pub const fn hz(self) -> u32 {
        self.0
    }

    /// The ticks of `nanos` nanoseconds, rounded up: a deadline is never early.
    pub const fn ticks(self, nanos: u64) -> u64 {
        let hz = self.0 as u64;
        let rest = ((nanos % NANOS) * hz).div_ceil(NANOS);
        (nanos / NANOS).saturating_mul(hz).saturating_add(rest)
    }

    /// The ticks of some microseconds, rounded down: by less code than [`Self::ticks`].
    #[inline(always)]
    pub const fn ticks_of_us(self, us: u16) -> u64 {
        // 32 bits times 16.
        self.0 as u64 * us as u64 / 1_000_000
    }

    /// The nanoseconds of `ticks`, rounded down.
    pub const fn nanos(self, ticks: u64) -> u64 {
        let hz = self.0 as u64;
        let rest = (ticks % hz) * NANOS / hz;
        (ticks / hz).saturating_mul(NANOS).saturating_add(rest)
    }
}

/// The earliest of these times, in whatever unit they have, of those that there are.
#[inline]
pub fn earliest<const N: usize>(times: [Option<u64>; N]) -> Option<u64> {
    let mut found = None;
    for time in times {
        found = match (found, time) {
            (Some(found), Some(time)) => Some(u64::min(found, time)),
            (found, time) => found.or(time),
        };
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Frequency, earliest};

    #[test]
    fn a_board_that_does_not_say_counts_as_qemus_do() {
        for (says, hz) in [(54_000_000, 54_000_000), (0, 62_500_000), (1 << 32, 62_500_000), (1, 1)] {
            assert_eq!(Frequency::of_board(says).hz(), hz);
        }
    }

    #[test]
    fn the_earliest_is_of_those_that_there_are() {
        assert_eq!(earliest([None, None]), None);
        assert_eq!(earliest([None, Some(7), Some(3), None, Some(5)]), Some(3));
    }

    #[test]
    fn conversions_agree_with_128_bit_arithmetic_and_saturate() {
        for hz in [1, 54_000_000, 62_500_000, 1_000_000_000, u32::MAX] {
            let frequency = Frequency::new(hz).unwrap();
            let wide = u128::from(hz);
            for n in [0, 1, 999, 123_456_789_012_345, u64::MAX / 3, u64::MAX] {
                let ticks = (u128::from(n) * wide).div_ceil(1_000_000_000);
                assert_eq!(u128::from(frequency.ticks(n)), ticks.min(u128::from(u64::MAX)));
                let nanos = u128::from(n) * 1_000_000_000 / wide;
                assert_eq!(u128::from(frequency.nanos(n)), nanos.min(u128::from(u64::MAX)));
            }
        }
        assert_eq!(Frequency::new(0), None);
    }
}
