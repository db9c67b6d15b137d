//! The guest's clock: [`Rtc`], a PL031 (ARM DDI 0224, r1p4).
//!
//! DR counts seconds: the board's, which every call brings along as `now`, plus what the guest set through LR. The alarm
//! rings when DR comes to MR after MR or LR was written; 32-bit seconds wrap.

use super::{lane, prime_cell};
use core::fmt;

const DR: u64 = 0x00;
const MR: u64 = 0x04;
const LR: u64 = 0x08;
const CR: u64 = 0x0C;
const IMSC: u64 = 0x10;
const RIS: u64 = 0x14;
const MIS: u64 = 0x18;
const ICR: u64 = 0x1C;

/// A PL031.
#[derive(Clone, Debug, Default)]
pub struct Rtc {
    /// What the guest's clock is ahead of the board's, modulo 2^32.
    ahead: u32,
    match_at: u32,
    load: u32,
    imsc: u32,
    ris: u32,
    /// When DR comes to MR, in the board's seconds.
    rings_at: Option<u64>,
}

impl Rtc {
    /// A PL031 after reset, which shows the board's seconds, as QEMU's does; boards without a clock count from their start.
    pub const fn new() -> Self {
        Self { ahead: 0, match_at: 0, load: 0, imsc: 0, ris: 0, rings_at: None }
    }

    /// What the guest reads at `offset`, `size` bytes, at `now` seconds. What is not a register reads as 0.
    pub fn read(&mut self, offset: u64, size: u8, now: u64) -> u64 {
        self.tick(now);
        let word = match offset & !3 {
            DR => self.seconds(now),
            MR => self.match_at,
            LR => self.load,
            CR => 1,
            IMSC => self.imsc,
            RIS => self.ris,
            MIS => self.ris & self.imsc,
            other => prime_cell(0x0014_1031, other).unwrap_or(0),
        };
        lane(word, offset, size)
    }

    /// The guest writes `value` at `offset`, `size` bytes, at `now` seconds. What is not a register is ignored, and so is
    /// turning it off: the hardware cannot either.
    pub fn write(&mut self, offset: u64, size: u8, value: u64, now: u64) {
        self.tick(now);
        // Registers have 32 bits at most: the rest has nowhere to go.
        let value = lane(value as u32, 0, size) as u32;
        match offset {
            MR => {
                self.match_at = value;
                self.arm(now);
            }
            LR => {
                self.load = value;
                self.ahead = value.wrapping_sub(now as u32);
                self.arm(now);
            }
            IMSC => self.imsc = value & 1,
            ICR => self.ris &= !value,
            _ => {}
        }
        self.tick(now);
    }

    /// Lets time come to `now`: the alarm rings if it is due.
    pub fn tick(&mut self, now: u64) {
        if self.rings_at.is_some_and(|at| at <= now) {
            self.rings_at = None;
            self.ris = 1;
        }
    }

    /// When [`Rtc::tick`] is needed, in the board's seconds; nothing while no alarm would be heard.
    pub fn alarm(&self) -> Option<u64> {
        self.rings_at.filter(|_| self.imsc != 0)
    }

    /// Whether the interrupt line is high.
    pub const fn line(&self) -> bool {
        self.ris & self.imsc != 0
    }

    /// DR. Seconds wrap at 32 bits.
    const fn seconds(&self, now: u64) -> u32 {
        (now as u32).wrapping_add(self.ahead)
    }

    fn arm(&mut self, now: u64) {
        let wait = self.match_at.wrapping_sub(self.seconds(now));
        self.rings_at = now.checked_add(u64::from(wait));
    }
}

impl fmt::Display for Rtc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ahead, match_at, imsc, ris, .. } = self;
        write!(f, "PL031 +{ahead} s MR {match_at} IMSC {imsc} RIS {ris}")
    }
}

#[cfg(test)]
mod tests {
    use super::{DR, ICR, IMSC, LR, MIS, MR, RIS, Rtc};

    #[test]
    fn the_clock_goes_on_from_what_it_was_set_to() {
        let mut rtc = Rtc::new();
        assert_eq!(rtc.read(DR, 4, 1_700_000_000), 1_700_000_000);
        rtc.write(LR, 4, 100, 1_700_000_000);
        assert_eq!(rtc.read(DR, 4, 1_700_000_023), 123);
        rtc.write(LR, 4, u64::from(u32::MAX), 50);
        assert_eq!(rtc.read(DR, 4, 52), 1, "32 bits of seconds wrap");
    }

    #[test]
    fn the_alarm_rings_once_when_the_second_comes() {
        let mut rtc = Rtc::new();
        rtc.write(MR, 4, 20, 10);
        assert_eq!(rtc.alarm(), None, "nobody would hear it");
        rtc.write(IMSC, 4, 1, 10);
        assert_eq!(rtc.alarm(), Some(20));
        rtc.tick(19);
        assert!(!rtc.line());
        rtc.tick(20);
        assert!(rtc.line() && rtc.alarm().is_none());
        assert_eq!(rtc.read(MIS, 4, 21), 1);
        rtc.write(ICR, 4, 1, 22);
        assert!(!rtc.line());
        assert_eq!(rtc.read(RIS, 4, 1000), 0);
        rtc.write(MR, 4, 1001, 1001);
        assert!(rtc.line(), "it is that second now");
    }

    #[test]
    fn setting_the_clock_moves_the_alarm() {
        let mut rtc = Rtc::new();
        rtc.write(IMSC, 4, 1, 0);
        rtc.write(MR, 4, 500, 0);
        rtc.write(LR, 4, 490, 3);
        assert_eq!(rtc.alarm(), Some(13));
        rtc.write(MR, 4, 0, u64::MAX);
        assert_eq!(rtc.alarm(), None, "beyond the end of time");
    }

    #[test]
    fn it_says_that_it_is_a_pl031() {
        let mut rtc = Rtc::new();
        let id: [u64; 8] = core::array::from_fn(|i| rtc.read(0xFE0 + 4 * i as u64, 4, 0));
        assert_eq!(id, [0x31, 0x10, 0x14, 0x00, 0x0D, 0xF0, 0x05, 0xB1]);
    }
}
