//! Is the interrupt controller, GICv2 or GICv3, what its specification says? Registers, order, life cycle, other CPUs.
//!
//! Most of it polls: with interrupts masked in PSTATE, acknowledge and end work as in a hook, one step at a time.

#![no_std]
#![no_main]

mod cycle;
mod order;
mod registers;
mod several;

use rt::gic;
use rt::timer::{self, PATIENCE};

rt::guest!(main);

/// An SPI that no device of the board drives.
pub(crate) const SPI: u32 = 42;
/// Another one.
pub(crate) const SPI_2: u32 = 43;

/// Acknowledges what must come; it may still be on its way, or wait for another CPU that is not running just now.
pub(crate) fn take() -> gic::Taken {
    take_within(PATIENCE)
}

/// Acknowledges what may come, waiting a little for what may still be on its way.
pub(crate) fn take_any() -> gic::Taken {
    take_within(20_000)
}

fn take_within(micros: u64) -> gic::Taken {
    let mut taken = gic::acknowledge();
    timer::wait_until(micros, || {
        if taken.intid == gic::SPURIOUS {
            taken = gic::acknowledge();
        }
        taken.intid != gic::SPURIOUS
    });
    taken
}

/// Acknowledges what must not come: waits for a time in which it would have.
pub(crate) fn take_nothing() -> u32 {
    timer::delay(200);
    gic::acknowledge().intid
}

fn main() {
    gic::init();
    registers::check();
    gic::quiesce();
    order::check();
    gic::quiesce();
    cycle::check();
    gic::quiesce();
    several::check();
}
