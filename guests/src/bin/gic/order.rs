//! Which interrupt comes first, which preempts, which is held back.

use crate::{SPI, SPI_2, take, take_any, take_nothing};
use rt::gic::{self, SPURIOUS, To, Trigger};
use rt::random::Random;
use rt::timer::PATIENCE;
use rt::{check, check_eq, cpu};

pub(crate) fn check() {
    mask();
    preemption();
    binary_point();
    disabled();
    switches();
    for seed in 1..=4 {
        many(seed);
    }
}

/// Makes an SPI pending with a priority.
fn raise(intid: u32, priority: u8) {
    gic::set_trigger(intid, Trigger::Edge);
    gic::set_priority(intid, priority);
    gic::enable(intid);
    gic::set_pending(intid);
    cpu::barrier();
}

fn mask() {
    check_eq!(gic::running_priority(), 0xff, "the running priority is idle");
    check_eq!(gic::acknowledge().intid, SPURIOUS, "an acknowledge of nothing is spurious");
    gic::set_mask(0x80);
    check_eq!(gic::mask(), 0x80, "the mask reads as written");
    raise(SPI, 0x80);
    check_eq!(take_nothing(), SPURIOUS, "a priority equal to the mask is held back");
    check!(!cpu::irq_pending(), "what is held back is not signalled");
    gic::set_mask(0x88);
    check_eq!(gic::highest_pending(), SPI, "the highest pending interrupt shows before it is taken");
    check!(rt::timer::wait_until(PATIENCE, cpu::irq_pending), "a lower mask lets it through");
    let taken = take();
    check_eq!(taken.intid, SPI, "and it can be taken");
    gic::end(taken);
    gic::set_mask(0);
    raise(SPI, 0);
    check_eq!(take_nothing(), SPURIOUS, "mask 0 holds back all");
    gic::clear_pending(SPI);
    gic::set_mask(gic::ALL_PRIORITIES);
    check_eq!(take_nothing(), SPURIOUS, "what was made not pending does not come");
}

fn preemption() {
    gic::set_binary_point(0);
    raise(SPI, 0x80);
    let low = take();
    check_eq!(low.intid, SPI, "the less urgent interrupt comes alone");
    check_eq!(gic::running_priority(), 0x80, "the running priority is that of what was taken");
    raise(SPI_2, 0x80);
    check_eq!(take_nothing(), SPURIOUS, "an equal priority does not preempt");
    gic::clear_pending(SPI_2);
    raise(SPI_2, 0x40);
    check!(rt::timer::wait_until(PATIENCE, cpu::irq_pending), "a more urgent one is signalled");
    let high = take();
    check_eq!(high.intid, SPI_2, "a more urgent one preempts");
    check_eq!(gic::running_priority(), 0x40, "the running priority follows");
    gic::end(high);
    check_eq!(gic::running_priority(), 0x80, "ending it drops back");
    gic::end(low);
    check_eq!(gic::running_priority(), 0xff, "ending all is idle again");
}

fn binary_point() {
    gic::set_binary_point(6); // groups of 128; for group 1 of a GICv3, of 64
    check_eq!(gic::binary_point(), 6, "the binary point reads as written");
    raise(SPI, 0x30);
    let low = take();
    raise(SPI_2, 0x10);
    check_eq!(take_nothing(), SPURIOUS, "within a group nothing preempts");
    gic::end(low);
    let next = take();
    check_eq!(next.intid, SPI_2, "it comes when the group is free");
    gic::end(next);
    // Sub-priorities still choose who comes first.
    raise(SPI, 0x30);
    raise(SPI_2, 0x10);
    for expected in [SPI_2, SPI] {
        let taken = take();
        check_eq!(taken.intid, expected, "within a group the more urgent comes first");
        gic::end(taken);
    }
    gic::set_binary_point(0);
}

fn disabled() {
    gic::disable(SPI);
    gic::set_pending(SPI);
    check_eq!(take_nothing(), SPURIOUS, "a disabled interrupt does not come");
    check!(gic::is_pending(SPI), "but it is pending");
    gic::enable(SPI);
    check!(rt::timer::wait_until(PATIENCE, cpu::irq_pending), "enabling signals it");
    gic::disable(SPI);
    check_eq!(take_nothing(), SPURIOUS, "disabling while pending takes it back");
    check!(!cpu::irq_pending(), "and the signal too");
    gic::enable(SPI);
    let taken = take();
    check_eq!(taken.intid, SPI, "it comes when enabled again");
    gic::end(taken);
    check!(!gic::is_pending(SPI), "and is pending no more");
}

/// The switches of distributor and CPU interface.
fn switches() {
    use rt::{board, mmio};
    let control = mmio::read32(board::GICD + gic::CTLR);
    mmio::write32(board::GICD + gic::CTLR, control & !3);
    raise(SPI, 0x40);
    check_eq!(take_nothing(), SPURIOUS, "a distributor that is off forwards nothing");
    mmio::write32(board::GICD + gic::CTLR, control);
    let taken = take();
    check_eq!(taken.intid, SPI, "and forwards what was pending when it is on");
    gic::end(taken);
}

/// More at once than any implementation has list registers.
fn many(seed: u64) {
    let mut random = Random::new(seed);
    let last = gic::n_interrupts().min(96);
    let mut wanted = [false; 96];
    for intid in (0..16).chain(35..last) {
        gic::set_priority(intid, random.below(31) as u8 * 8);
        gic::enable(intid);
        match intid {
            0..16 => gic::send(intid, To::Me),
            _ => gic::set_pending(intid),
        }
        wanted[intid as usize] = true;
    }
    let n = wanted.iter().filter(|w| **w).count();
    let (mut before, mut unordered, mut strange) = (0, 0u32, 0u32);
    let mut came = 0;
    loop {
        let taken = take_any();
        if taken.intid == SPURIOUS {
            break;
        }
        let priority = gic::priority(taken.intid);
        unordered += u32::from(priority < before);
        before = priority;
        strange += wanted.get_mut(taken.intid as usize).is_none_or(|w| !core::mem::take(w)) as u32;
        came += 1;
        gic::end(taken);
        if came > n {
            break;
        }
    }
    check_eq!(came, n, "seed {seed}: {n} at once all come, once each");
    check_eq!(strange, 0, "seed {seed}: nothing else comes");
    check_eq!(unordered, 0, "seed {seed}: they come in order of priority");
    for intid in (0..16).chain(35..last) {
        gic::disable(intid);
        gic::set_priority(intid, gic::DEFAULT_PRIORITY);
    }
}
