//! Storms: waiting again and again with and without a reason to wake, SGIs to everybody without end.

use crate::Tally;
use rt::gic::{self, To};
use rt::random::Random;
use rt::timer::{self, Timer};
use rt::{cpu, psci};

/// WFI and WFE, each with something that ends it: a pending interrupt, a deadline, an event.
pub(crate) fn waits(random: &mut Random, rounds: u64) -> Tally {
    let mut tally = Tally::default();
    gic::init();
    gic::enable(Timer::Virtual.irq());
    timer::event_stream(10);
    for _ in 0..rounds {
        let kind = random.below(4);
        let ahead = random.one(&[0, 1, 1000, 20_000]);
        tally.attempt(|| {
            Timer::Virtual.start(ahead);
            match kind {
                0 => {
                    while !cpu::irq_pending() {
                        cpu::wfi();
                    }
                }
                1 => cpu::wfe(),
                2 => {
                    cpu::sev();
                    cpu::wfe();
                }
                _ => _ = psci::hvc(psci::CPU_SUSPEND, 0, 0, 0),
            }
        });
    }
    tally
}

/// SGIs of all numbers to itself and others, of whom most are off; some are taken, some are left.
pub(crate) fn sgis(random: &mut Random, rounds: u64) -> Tally {
    let mut tally = Tally::default();
    gic::init();
    for intid in 0..16 {
        gic::enable(intid);
    }
    for _ in 0..rounds {
        let intid = random.below(16) as u32; // four bits
        let to = random.one(&[To::Me, To::Others, To::Cpu(0)]);
        let take = random.below(2) == 0;
        tally.attempt(|| {
            gic::send(intid, to);
            if take {
                let taken = gic::acknowledge();
                if taken.intid < 1020 {
                    gic::end(taken);
                }
            }
        });
    }
    tally
}
