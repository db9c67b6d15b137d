//! The guest's clock: [`Rtc`], a PL031 (ARM DDI 0224, r1p4).
//!
//! DR counts seconds: the board's, which every call brings along as `now`, plus what the guest set through LR. The alarm
//! rings when DR comes to MR after MR or LR was written; 32-bit seconds wrap.

use super::device::{Board, Device};
use super::{lane, prime_cell};

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

    /// Lets time come to `now`: the alarm rings if it is due.
    fn catch_up(&mut self, now: u64) {
        if self.rings_at.is_some_and(|at| at <= now) {
            self.rings_at = None;
            self.ris = 1;
        }
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

impl Device for Rtc {
    /// What is not a register reads as 0.
    fn read(&mut self, offset: u64, bytes: u8, board: &mut dyn Board) -> u64 {
        let now = board.seconds();
        self.catch_up(now);
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
        lane(word, offset, bytes)
    }

    /// What is not a register is ignored, and so is turning it off: the hardware cannot either.
    fn write(&mut self, offset: u64, bytes: u8, value: u64, board: &mut dyn Board) {
        let now = board.seconds();
        self.catch_up(now);
        // Registers have 32 bits at most: the rest has nowhere to go.
        let value = lane(value as u32, 0, bytes) as u32;
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
        self.catch_up(now);
        board.tick_again();
    }

    fn line(&self) -> bool {
        self.ris & self.imsc != 0
    }

    fn reset(&mut self) {
        *self = Self::new();
    }

    fn tick(&mut self, now: u64) -> Option<u64> {
        self.catch_up(now);
        // Nobody would hear it otherwise.
        self.rings_at.filter(|_| self.imsc != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::{DR, ICR, IMSC, LR, MIS, MR, RIS, Rtc};
    use crate::devices::device::Device;
    use crate::devices::device::tests::Bench;

    fn read(rtc: &mut Rtc, offset: u64, now: u64) -> u64 {
        rtc.read(offset, 4, &mut Bench { now, ..Bench::default() })
    }

    fn write(rtc: &mut Rtc, offset: u64, value: u64, now: u64) {
        rtc.write(offset, 4, value, &mut Bench { now, ..Bench::default() });
    }

    #[test]
    fn the_clock_goes_on_from_what_it_was_set_to() {
        let mut rtc = Rtc::new();
        assert_eq!(read(&mut rtc, DR, 1_700_000_000), 1_700_000_000);
        write(&mut rtc, LR, 100, 1_700_000_000);
        assert_eq!(read(&mut rtc, DR, 1_700_000_023), 123);
        write(&mut rtc, LR, u64::from(u32::MAX), 50);
        assert_eq!(read(&mut rtc, DR, 52), 1, "32 bits of seconds wrap");
    }

    #[test]
    fn the_alarm_rings_once_when_the_second_comes() {
        let mut rtc = Rtc::new();
        write(&mut rtc, MR, 20, 10);
        assert_eq!(rtc.tick(10), None, "nobody would hear it");
        write(&mut rtc, IMSC, 1, 10);
        assert_eq!(rtc.tick(10), Some(20));
        assert_eq!(rtc.tick(19), Some(20));
        assert!(!rtc.line());
        assert_eq!(rtc.tick(20), None);
        assert!(rtc.line());
        assert_eq!(read(&mut rtc, MIS, 21), 1);
        write(&mut rtc, ICR, 1, 22);
        assert!(!rtc.line());
        assert_eq!(read(&mut rtc, RIS, 1000), 0);
        write(&mut rtc, MR, 1001, 1001);
        assert!(rtc.line(), "it is that second now");
    }

    #[test]
    fn setting_the_clock_moves_the_alarm() {
        let mut rtc = Rtc::new();
        write(&mut rtc, IMSC, 1, 0);
        write(&mut rtc, MR, 500, 0);
        write(&mut rtc, LR, 490, 3);
        assert_eq!(rtc.tick(3), Some(13));
        write(&mut rtc, MR, 0, u64::MAX);
        assert_eq!(rtc.tick(u64::MAX), None, "beyond the end of time");
    }

    #[test]
    fn it_says_that_it_is_a_pl031() {
        let mut rtc = Rtc::new();
        let id: [u64; 8] = core::array::from_fn(|i| read(&mut rtc, 0xFE0 + 4 * i as u64, 0));
        assert_eq!(id, [0x31, 0x10, 0x14, 0x00, 0x0D, 0xF0, 0x05, 0xB1]);
    }
}
