//! The life of an interrupt: inactive, pending, active, both; edges and levels; dropping and deactivating apart.

use crate::{SPI, take, take_nothing};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::console::{self, ICR, IMSC, MIS};
use rt::gic::{self, EndMode, SPURIOUS, To, Trigger};
use rt::timer::{PATIENCE, Timer};
use rt::{board, check, check_eq, cpu, exception, timer};

/// PL011: the transmit interrupt.
const TX: u32 = 1 << 5;

pub(crate) fn check() {
    edge();
    level();
    active();
    split();
    changed();
    timer_line();
    uart();
    hook();
}

fn edge() {
    gic::set_trigger(SPI, Trigger::Edge);
    gic::enable(SPI);
    gic::set_pending(SPI);
    gic::set_pending(SPI);
    let taken = take();
    check!(gic::is_active(SPI) && !gic::is_pending(SPI), "edge: taken is active and not pending");
    gic::set_pending(SPI);
    check!(gic::is_active(SPI) && gic::is_pending(SPI), "edge: active and pending at once");
    check_eq!(take_nothing(), SPURIOUS, "edge: what is active does not come again");
    gic::end(taken);
    let again = take();
    check_eq!(again.intid, SPI, "edge: ended, it comes again");
    gic::end(again);
    check_eq!(take_nothing(), SPURIOUS, "edge: two while pending were one");
    check!(!gic::is_active(SPI), "edge: ended is inactive");

    gic::enable(7);
    gic::send(7, To::Me);
    let taken = take();
    check_eq!(taken.intid, 7, "an SGI comes");
    gic::send(7, To::Me);
    gic::end(taken);
    let again = take();
    check_eq!(again.intid, 7, "an SGI sent while active comes again");
    gic::end(again);
}

fn level() {
    gic::set_trigger(SPI, Trigger::Level);
    gic::set_pending(SPI);
    let taken = take();
    check_eq!(taken.intid, SPI, "level: can be made pending");
    gic::end(taken);
    check_eq!(take_nothing(), SPURIOUS, "level: the latch of ISPENDR goes with the acknowledge");
    gic::set_pending(SPI);
    gic::clear_pending(SPI);
    check_eq!(take_nothing(), SPURIOUS, "level: the latch can be cleared");
}

fn active() {
    gic::set_trigger(SPI, Trigger::Edge);
    gic::set_active(SPI);
    gic::set_pending(SPI);
    check_eq!(take_nothing(), SPURIOUS, "what was made active does not come");
    gic::clear_active(SPI);
    let taken = take();
    check_eq!(taken.intid, SPI, "made inactive, it comes");
    gic::clear_active(SPI);
    check!(!gic::is_active(SPI), "a taken interrupt can be made inactive");
    gic::end(taken);
    check_eq!(gic::running_priority(), 0xff, "its end still drops the priority");
}

fn split() {
    gic::set_end_mode(EndMode::DropOnly);
    gic::set_pending(SPI);
    let taken = take();
    gic::end(taken);
    check_eq!(gic::running_priority(), 0xff, "split: the end drops the priority");
    check!(gic::is_active(SPI), "split: the end leaves it active");
    gic::set_pending(SPI);
    check_eq!(take_nothing(), SPURIOUS, "split: still active, it does not come again");
    gic::deactivate(taken);
    let again = take();
    check_eq!(again.intid, SPI, "split: deactivated, it comes again");
    gic::end(again);
    gic::deactivate(again);
    check!(!gic::is_active(SPI), "split: deactivated is inactive");
    // Two dropped, deactivated in the order they came.
    gic::enable(SPI + 1);
    gic::set_trigger(SPI + 1, Trigger::Edge);
    gic::set_pending(SPI);
    let first = take();
    gic::end(first);
    gic::set_pending(SPI + 1);
    let second = take();
    gic::end(second);
    check!(gic::is_active(first.intid) && gic::is_active(second.intid), "split: two are active at once");
    gic::deactivate(first);
    check!(!gic::is_active(first.intid) && gic::is_active(second.intid), "split: each is deactivated by itself");
    gic::deactivate(second);
    gic::set_end_mode(EndMode::Both);
}

/// What is active gets another priority, and its end is still its end.
fn changed() {
    const TIMER: Timer = Timer::Virtual;
    gic::set_trigger(SPI, Trigger::Edge);
    gic::enable(7);
    for (intid, name) in [(SPI, "an SPI"), (7, "an SGI"), (TIMER.irq(), "a PPI")] {
        for priority in [gic::DEFAULT_PRIORITY - 0x20, gic::DEFAULT_PRIORITY + 0x20] {
            gic::enable(intid);
            match intid {
                7 => gic::send(7, To::Me),
                SPI => gic::set_pending(SPI),
                _ => TIMER.start(0),
            }
            let taken = take();
            check_eq!(taken.intid, intid, "changed: {name} comes");
            gic::set_priority(intid, priority);
            check!(gic::is_active(intid), "changed: {name} stays active while its priority is written");
            TIMER.stop();
            gic::end(taken);
            check!(!gic::is_active(intid), "changed: {name} whose priority was written while active is ended");
            check_eq!(gic::running_priority(), 0xff, "changed: the end drops the priority it was taken with");
            gic::set_priority(intid, gic::DEFAULT_PRIORITY);
        }
        gic::disable(intid);
    }
    gic::enable(SPI);
    gic::enable(7);
}

/// A PPI with a real line.
fn timer_line() {
    let irq = Timer::Virtual.irq();
    gic::enable(irq);
    Timer::Virtual.start(0);
    let taken = take();
    check_eq!(taken.intid, irq, "timer: comes");
    gic::end(taken);
    // QEMU's GICv2 does not look at physical levels again when a virtual interrupt's end deactivates the physical one; any
    // access of the distributor makes it.
    let _ = gic::is_pending(irq);
    let again = take();
    check_eq!(again.intid, irq, "timer: comes again while its line is up");
    Timer::Virtual.stop();
    gic::end(again);
    check_eq!(take_nothing(), SPURIOUS, "timer: does not come when its line went down before the end");
    Timer::Virtual.start(0);
    check!(timer::wait_until(PATIENCE, || gic::is_pending(irq)), "timer: pending");
    Timer::Virtual.stop();
    // A hypervisor may have handed it to the list registers by then, and cannot take it back before the next exit: then
    // it comes once, and its line is down.
    let late = take_nothing();
    check!(
        late == SPURIOUS || late == irq,
        "timer: at most comes once more when its line went down before the acknowledge",
        "got {late:#x}"
    );
    if late == irq {
        gic::end(gic::Taken { raw: late, intid: late });
    }
    check_eq!(take_nothing(), SPURIOUS, "timer: and not again");
    gic::disable(irq);
}

/// An SPI with a real line: the UART's transmitter.
fn uart() {
    let irq = board::UART_IRQ;
    gic::set_trigger(irq, Trigger::Level);
    gic::set_target(irq, 0);
    gic::enable(irq);
    console::write(ICR, 0x7ff);
    console::write(IMSC, TX);
    console::put(b'\r'); // the line may go up with the first byte sent only
    let taken = take();
    check_eq!(taken.intid, irq, "uart: the transmit interrupt comes");
    check_eq!(console::read(MIS) & TX, TX, "uart: MIS says which");
    gic::end(taken);
    let again = take();
    check_eq!(again.intid, irq, "uart: comes again while its line is up");
    console::write(IMSC, 0);
    gic::end(again);
    check_eq!(take_nothing(), SPURIOUS, "uart: masked in the device, it does not come");
    check!(!gic::is_pending(irq), "uart: nor is it pending");
    gic::disable(irq);
    console::init();
}

static HOOKED: AtomicU64 = AtomicU64::new(0);

fn count() {
    let taken = gic::acknowledge();
    if taken.intid < 1020 {
        HOOKED.fetch_add(1 << (taken.intid % 64), Ordering::SeqCst);
        gic::end(taken);
    }
}

/// The same by real exceptions, and from a sleep.
fn hook() {
    exception::set_irq_hook(count);
    HOOKED.store(0, Ordering::SeqCst);
    cpu::unmask();
    gic::set_pending(SPI);
    check!(
        timer::wait_until(PATIENCE, || HOOKED.load(Ordering::SeqCst) == 1 << SPI),
        "an SPI interrupts",
        "{:#x}",
        HOOKED.load(Ordering::SeqCst)
    );
    gic::send(7, To::Me);
    check!(
        timer::wait_until(PATIENCE, || HOOKED.load(Ordering::SeqCst) == 1 << SPI | 1 << 7),
        "an SGI interrupts",
        "{:#x}",
        HOOKED.load(Ordering::SeqCst)
    );
    cpu::mask();
    gic::set_pending(SPI);
    cpu::wfi();
    check!(cpu::irq_pending(), "WFI does not sleep on a pending interrupt");
    cpu::unmask();
    cpu::mask();
    check_eq!(HOOKED.load(Ordering::SeqCst), 2 << SPI | 1 << 7, "unmasking takes it at once");
}
