//! How long EL2 keeps interrupts masked at worst: counted in an image of its own (feature `masked`), for `scripts/bench`.
//!
//! A stretch begins where a guest is left or interrupts were let in, and ends where a guest is entered or they are let in again: EL2
//! runs with interrupts masked, and takes them where it asks for them alone. In the image that users run nothing of this is left.

use super::percpu;
use super::timer;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use flatland::host::Host;
use flatland::machine::Machine;

/// Where a stretch began on each CPU, by the system counter; zero before the first.
static BEGAN: [AtomicU64; super::smp::MAX] = [const { AtomicU64::new(0) }; super::smp::MAX];
/// The longest so far, in ticks, and the ESR_EL2 that there was at its end: mostly of the exit that it began with.
static WORST: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Interrupts are masked from here on.
#[inline(always)]
pub(crate) fn begin() {
    if cfg!(feature = "masked") {
        BEGAN[usize::from(percpu::cpu().0)].store(super::machine::El2.now(), Relaxed);
    }
}

/// They are let in.
#[inline(always)]
pub(crate) fn end() {
    if cfg!(feature = "masked") {
        let began = BEGAN[usize::from(percpu::cpu().0)].swap(0, Relaxed);
        let ticks = super::machine::El2.now().wrapping_sub(began);
        if began != 0 && ticks > WORST[0].load(Relaxed) {
            WORST[0].store(ticks, Relaxed);
            WORST[1].store(super::sysreg::read!("esr_el2"), Relaxed);
        }
    }
}

/// They are let in and masked again.
#[inline(always)]
pub(crate) fn between() {
    end();
    begin();
}

/// Says what was worst, in nanoseconds: instructions, under -icount.
pub(crate) fn sum_up(host: &Host) {
    if cfg!(feature = "masked") {
        let [ticks, esr] = [0, 1].map(|n| WORST[n].load(Relaxed));
        let nanos = flatland::sched::Frequency::of_board(timer::frequency()).nanos(ticks);
        host.console.say(format_args!("masked: {nanos} ns at worst, esr {esr:#x}"));
    }
}
