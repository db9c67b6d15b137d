//! The generic timer: counters, the virtual and the EL1 physical timer, delays.
//!
//! Follows Arm ARM D12.2. A timer's interrupt is a level: it stays until the deadline is moved or the timer stopped.

use crate::cpu::{self, write_register};
use crate::{board, read_register};

/// CTL: the timer runs.
pub const ENABLE: u64 = 1;
/// CTL: its interrupt is masked.
pub const IMASK: u64 = 2;
/// CTL: its condition is met.
pub const ISTATUS: u64 = 4;

/// One of the two timers of EL1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// CNTV.
    Virtual,
    /// CNTP.
    Physical,
}

macro_rules! both {
    ($self:ident, read $virtual:literal, $physical:literal) => {
        match $self {
            Timer::Virtual => read_register!($virtual),
            Timer::Physical => read_register!($physical),
        }
    };
    ($self:ident, write $virtual:literal, $physical:literal, $value:expr) => {
        // SAFETY: a timer register changes no memory; its interrupt has a hook or is reported.
        unsafe {
            match $self {
                Timer::Virtual => write_register!($virtual, $value),
                Timer::Physical => write_register!($physical, $value),
            }
            cpu::isb();
        }
    };
}

impl Timer {
    /// Returns the interrupt of this timer.
    pub fn irq(self) -> u32 {
        match self {
            Timer::Virtual => board::VIRTUAL_TIMER_IRQ,
            Timer::Physical => board::PHYSICAL_TIMER_IRQ,
        }
    }

    /// Reads the counter the timer compares with, not before earlier instructions are done.
    #[inline(always)]
    pub fn count(self) -> u64 {
        cpu::isb();
        both!(self, read "cntvct_el0", "cntpct_el0")
    }

    /// Reads the control register.
    pub fn control(self) -> u64 {
        both!(self, read "cntv_ctl_el0", "cntp_ctl_el0")
    }

    /// Writes the control register.
    #[inline(always)]
    pub fn set_control(self, value: u64) {
        both!(self, write "cntv_ctl_el0", "cntp_ctl_el0", value);
    }

    /// Reads the deadline.
    pub fn deadline(self) -> u64 {
        both!(self, read "cntv_cval_el0", "cntp_cval_el0")
    }

    /// Writes the deadline, in ticks of the counter.
    #[inline(always)]
    pub fn set_deadline(self, value: u64) {
        both!(self, write "cntv_cval_el0", "cntp_cval_el0", value);
    }

    /// Reads the time left, signed, in ticks.
    pub fn left(self) -> i32 {
        both!(self, read "cntv_tval_el0", "cntp_tval_el0") as u32 as i32 // TVAL is 32 bits
    }

    /// Sets the time left, in ticks.
    pub fn set_left(self, ticks: i32) {
        both!(self, write "cntv_tval_el0", "cntp_tval_el0", u64::from(ticks as u32));
    }

    /// Starts the timer: its interrupt comes `ticks` from now.
    pub fn start(self, ticks: u64) {
        self.set_deadline(self.count() + ticks);
        self.set_control(ENABLE);
    }

    /// Stops the timer.
    #[inline(always)]
    pub fn stop(self) {
        self.set_control(0);
    }
}

/// Returns the virtual counter.
#[inline(always)]
pub fn now() -> u64 {
    Timer::Virtual.count()
}

/// Returns how many ticks a second has.
pub fn frequency() -> u64 {
    read_register!("cntfrq_el0").max(1)
}

/// Returns how many ticks so many microseconds have.
pub fn micros(n: u64) -> u64 {
    n * frequency() / 1_000_000
}

/// How long to wait for what must come, in microseconds: half a minute, as whoever it comes from may not be running just now.
pub const PATIENCE: u64 = 30_000_000;

/// Spins until `condition` holds or so many microseconds are over; returns whether it held.
pub fn wait_until(micros: u64, mut condition: impl FnMut() -> bool) -> bool {
    let end = now() + self::micros(micros);
    loop {
        if condition() {
            return true;
        }
        if now() > end {
            return condition();
        }
        cpu::relax();
    }
}

/// Spins for so many microseconds.
pub fn delay(micros: u64) {
    wait_until(micros, || false);
}

/// Lets the virtual counter send an event to this CPU about every `2^(bit + 1)` ticks, so that no WFE waits for ever.
pub fn event_stream(bit: u64) {
    // SAFETY: EVNTEN and EVNTI; EL0 is not used.
    unsafe { write_register!("cntkctl_el1", 1 << 2 | (bit & 15) << 4) };
    cpu::isb();
}
