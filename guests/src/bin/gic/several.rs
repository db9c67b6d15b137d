//! Interrupts between CPUs: SGIs to one, to all others, from several at once; SPIs sent to a CPU.

use crate::{SPI, take, take_any};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use rt::gic::{self, SPURIOUS, To, Trigger};
use rt::smp;
use rt::timer::PATIENCE;
use rt::{args, check, check_eq, cpu, exception, psci, timer};

const SGI: u32 = 6;
const SGI_2: u32 = 9;

static READY: AtomicUsize = AtomicUsize::new(0);
static STOP: AtomicUsize = AtomicUsize::new(0);
static GO: AtomicUsize = AtomicUsize::new(0);
static CAME: [AtomicU32; cpu::MAX] = [const { AtomicU32::new(0) }; cpu::MAX];
static LAST: [AtomicU32; cpu::MAX] = [const { AtomicU32::new(0) }; cpu::MAX];
static SOURCES: [AtomicU32; cpu::MAX] = [const { AtomicU32::new(0) }; cpu::MAX];

fn hook() {
    let taken = gic::acknowledge();
    if taken.intid == SPURIOUS {
        return;
    }
    let index = cpu::index();
    LAST[index].store(taken.intid, Ordering::SeqCst);
    SOURCES[index].fetch_or(1 << taken.source(), Ordering::SeqCst);
    gic::end(taken);
    CAME[index].fetch_add(1, Ordering::SeqCst);
}

/// Waits for interrupts, awake or asleep by turns, until told to stop; sends when told to.
fn serve(index: usize) {
    gic::init_cpu();
    gic::enable(SGI);
    gic::enable(SGI_2);
    READY.fetch_add(1, Ordering::SeqCst);
    let mut sent = false;
    while STOP.load(Ordering::SeqCst) == 0 {
        cpu::mask();
        if index.is_multiple_of(2) && GO.load(Ordering::SeqCst) == 0 {
            cpu::wfi();
        }
        cpu::unmask();
        if !sent && GO.load(Ordering::SeqCst) != 0 {
            sent = true;
            gic::send(SGI_2, To::Cpu(0));
            READY.fetch_add(1, Ordering::SeqCst);
        }
        cpu::relax();
    }
    cpu::mask();
}

fn came(index: usize) -> u32 {
    CAME[index].load(Ordering::SeqCst)
}

pub(crate) fn check() {
    exception::set_irq_hook(hook);
    let n = args::n_cpus();
    for index in 1..n {
        check_eq!(smp::start(index, serve), psci::SUCCESS, "CPU {index} comes on");
    }
    gic::enable(SGI);
    gic::enable(SGI_2);
    let ready = timer::wait_until(PATIENCE, || READY.load(Ordering::SeqCst) == n - 1);
    check!(ready, "all CPUs are ready");
    to_one(n);
    to_others(n);
    if n > 1 {
        spi_to_each(n);
        from_all(n);
    }
    STOP.store(1, Ordering::SeqCst);
    gic::send(SGI, To::Others);
    check!(timer::wait_until(PATIENCE, || (1..n).all(smp::is_done)), "all CPUs end");
    cpu::mask();
}

fn to_one(n: usize) {
    cpu::unmask();
    for index in 0..n {
        let before: u32 = (0..n).map(came).sum();
        let own = came(index);
        gic::send(SGI, To::Cpu(index));
        check!(timer::wait_until(PATIENCE, || came(index) == own + 1), "an SGI to CPU {index} comes");
        timer::delay(200);
        check_eq!((0..n).map(came).sum::<u32>(), before + 1, "an SGI to CPU {index} comes to nobody else");
        check_eq!(LAST[index].load(Ordering::SeqCst), SGI, "CPU {index} got that SGI");
    }
    let own = came(0);
    gic::send(SGI, To::Me);
    check!(timer::wait_until(PATIENCE, || came(0) == own + 1), "an SGI to itself comes");
    cpu::mask();
}

fn to_others(n: usize) {
    cpu::unmask();
    let own = came(0);
    for round in 1..=20u32 {
        let before = CAME.each_ref().map(|c| c.load(Ordering::SeqCst));
        gic::send(SGI, To::Others);
        let all = timer::wait_until(PATIENCE, || (1..n).all(|i| came(i) > before[i]));
        if !all {
            check!(false, "an SGI to all others comes to each", "not in round {round}");
        }
    }
    timer::delay(1_000);
    check_eq!(came(0), own, "an SGI to all others does not come to its sender");
    cpu::mask();
}

fn spi_to_each(n: usize) {
    gic::set_trigger(SPI, Trigger::Edge);
    gic::enable(SPI);
    for index in (1..n.min(8)).rev() {
        let before = came(index);
        gic::set_target(SPI, index);
        gic::set_pending(SPI);
        let there = timer::wait_until(PATIENCE, || came(index) == before + 1);
        check!(there, "an SPI comes to CPU {index}, its target", "{} of {}", came(index), before + 1);
        check_eq!(LAST[index].load(Ordering::SeqCst), SPI, "CPU {index} got that SPI");
    }
    // One that is pending but disabled moves with its target.
    gic::disable(SPI);
    gic::set_pending(SPI);
    gic::set_target(SPI, 0);
    gic::enable(SPI);
    let taken = take();
    check_eq!(taken.intid, SPI, "a pending SPI follows its target");
    gic::end(taken);
    gic::disable(SPI);
}

/// All others send the same SGI while CPU 0 has interrupts masked: GICv2 keeps one for each sender, GICv3 one.
fn from_all(n: usize) {
    READY.store(0, Ordering::SeqCst);
    GO.store(1, Ordering::SeqCst);
    gic::send(SGI, To::Others); // those asleep wake to see it
    let sent = timer::wait_until(PATIENCE, || READY.load(Ordering::SeqCst) == n - 1);
    check!(sent, "all others have sent");
    timer::delay(1_000);
    let (mut sources, mut times) = (0u32, 0);
    loop {
        let taken = take_any();
        if taken.intid == SPURIOUS {
            break;
        }
        check_eq!(taken.intid, SGI_2, "what comes is what was sent");
        sources |= 1 << taken.source();
        times += 1;
        gic::end(taken);
    }
    if gic::is_v2() {
        check_eq!(times, n as u32 - 1, "one for each sender");
        check_eq!(sources.count_ones(), n as u32 - 1, "each names its sender");
        check_eq!(sources & 1, 0, "the receiver sent none");
    } else {
        check_eq!(times, 1, "one for all senders");
    }
}
