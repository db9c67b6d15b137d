//! A timer that no hardware counts for: its registers, by whose counter they are read, and what follows (Arm ARM D12.2.4).

use crate::arm::el1::El1;
use crate::machine::Machine;

/// `CNTx_CTL`: ENABLE, IMASK, ISTATUS.
const ENABLE: u64 = 1;
const IMASK: u64 = 2;
/// Its condition is met.
pub const ISTATUS: u64 = 4;

/// Whether the CPU's virtual timer raises its line.
pub fn is_firing_on_cpu<M: Machine>(m: &M) -> bool {
    m.get(El1::CntvCtl) & (ENABLE | IMASK | ISTATUS) == ENABLE | ISTATUS
}

/// CTL and CVAL of a timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timer {
    /// ENABLE and IMASK.
    pub ctl: u64,
    /// CVAL, in ticks of its counter.
    pub cval: u64,
}

impl Timer {
    /// A timer with these registers; what of CTL is not kept is dropped.
    pub const fn new(ctl: u64, cval: u64) -> Self {
        Self { ctl: ctl & (ENABLE | IMASK), cval }
    }

    /// Whether it is to fire some time.
    pub const fn is_armed(self) -> bool {
        self.ctl & (ENABLE | IMASK) == ENABLE
    }

    /// Whether its condition is met at counter value `now`, masked or not (ISTATUS).
    pub const fn is_met(self, now: u64) -> bool {
        self.ctl & ENABLE != 0 && now >= self.cval
    }

    /// Its line at counter value `now`.
    pub const fn is_firing(self, now: u64) -> bool {
        self.is_armed() && now >= self.cval
    }

    /// What CTL reads as.
    pub const fn control(self, now: u64) -> u64 {
        self.ctl & (ENABLE | IMASK) | if self.is_met(now) { ISTATUS } else { 0 }
    }

    /// Does what a write of CTL does.
    pub const fn set_control(&mut self, value: u64) {
        self.ctl = value & (ENABLE | IMASK);
    }

    /// What TVAL reads as: the low 32 bits of the difference.
    pub const fn tval(self, now: u64) -> u64 {
        self.cval.wrapping_sub(now) & 0xffff_ffff
    }

    /// Does what a write of TVAL does: a signed 32-bit distance from now.
    pub fn set_tval(&mut self, value: u64, now: u64) {
        self.cval = now.wrapping_add_signed(i64::from((value & 0xffff_ffff) as u32 as i32));
    }
}

#[cfg(test)]
mod tests {
    use super::Timer;

    #[test]
    fn status_is_that_of_the_condition_and_the_line_is_masked() {
        let mut timer = Timer { ctl: 0, cval: 100 };
        for (ctl, now, control, fires) in
            [(0, 100, 0, false), (1, 99, 1, false), (1, 100, 5, true), (7, 100, 7, false), (3, 99, 3, false)]
        {
            timer.set_control(ctl);
            assert_eq!((timer.control(now), timer.is_firing(now)), (control, fires), "CTL {ctl} at {now}");
        }
    }

    #[test]
    fn distances_have_32_bits_and_a_sign() {
        let mut timer = Timer::default();
        timer.set_tval(0x1_0000_0010, 1000);
        assert_eq!((timer.cval, timer.tval(1000)), (1016, 16));
        timer.set_tval(0xffff_ffff, 1000);
        assert_eq!((timer.cval, timer.tval(1000)), (999, 0xffff_ffff));
    }
}
