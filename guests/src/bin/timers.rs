//! Do the virtual and the physical timer keep time, fire once a deadline, show as a level and wake a waiting CPU?

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use rt::timer::{self, ENABLE, IMASK, ISTATUS, PATIENCE, Timer};
use rt::{check, check_eq, cpu, exception, gic, println};

rt::guest!(main);

static COUNT: AtomicU64 = AtomicU64::new(0);
static LAST: AtomicU64 = AtomicU64::new(0);

/// Counts, and stops the timer whose interrupt it is, so that its level goes down.
fn hook() {
    let taken = gic::acknowledge();
    LAST.store(u64::from(taken.intid), Ordering::SeqCst);
    for timer in [Timer::Virtual, Timer::Physical] {
        // As drivers do: one whose line is down again is spurious. A hypervisor that has handed an interrupt to the list
        // registers cannot take it back before the next exit.
        if taken.intid == timer.irq() && timer.control() & timer::ISTATUS != 0 {
            COUNT.fetch_add(1, Ordering::SeqCst);
            timer.stop();
        }
    }
    gic::end(taken);
}

fn main() {
    gic::init();
    exception::set_irq_hook(hook);
    println!("timers: {} Hz", timer::frequency());
    check!(timer::frequency() >= 1_000_000, "CNTFRQ_EL0 is set", "{}", timer::frequency());
    for timer in [Timer::Virtual, Timer::Physical] {
        gic::enable(timer.irq());
        registers(timer);
        level(timer);
        fires(timer);
        wakes(timer);
        gic::disable(timer.irq());
        timer.stop();
    }
    both();
}

fn registers(timer: Timer) {
    timer.stop();
    let (a, b) = (timer.count(), timer.count());
    check!(b >= a, "{timer:?}: the counter does not go back", "{a} then {b}");
    let far = timer.count() + (1 << 40);
    timer.set_deadline(far);
    check_eq!(timer.deadline(), far, "{timer:?}: CVAL reads as written");
    timer.set_left(1_000_000_000);
    let (left, now) = (i64::from(timer.left()), timer.count());
    check!(left > 0 && left <= 1_000_000_000, "{timer:?}: TVAL counts down", "{left}");
    let deadline = timer.deadline();
    check!(deadline > now && deadline <= now + 1_000_000_000, "{timer:?}: TVAL sets CVAL", "{deadline} at {now}");
    timer.set_left(-1000);
    check!(timer.left() <= -1000, "{timer:?}: TVAL goes below zero", "{}", timer.left());
    timer.set_control(ENABLE | IMASK);
    check_eq!(timer.control(), ENABLE | IMASK | ISTATUS, "{timer:?}: ISTATUS after the deadline, though masked");
    timer.set_deadline(timer.count() + (1 << 40));
    check_eq!(timer.control(), ENABLE | IMASK, "{timer:?}: no ISTATUS before the deadline");
    timer.stop();
    check_eq!(timer.control() & (ENABLE | IMASK), 0, "{timer:?}: stops");
}

/// The line goes up at the deadline and down when the deadline moves, without any acknowledge.
fn level(timer: Timer) {
    let irq = timer.irq();
    cpu::mask();
    timer.stop();
    check!(!gic::is_pending(irq), "{timer:?}: not pending when stopped");
    timer.set_deadline(timer.count());
    timer.set_control(ENABLE | IMASK);
    check!(!gic::is_pending(irq), "{timer:?}: IMASK keeps the line down");
    timer.set_control(ENABLE);
    check!(timer::wait_until(PATIENCE, || gic::is_pending(irq)), "{timer:?}: pending in ISPENDR while masked");
    check!(cpu::irq_pending(), "{timer:?}: pending in ISR_EL1 while masked");
    timer.set_deadline(timer.count() + (1 << 40));
    check!(
        timer::wait_until(PATIENCE, || !gic::is_pending(irq)),
        "{timer:?}: not pending when the deadline moved away"
    );
    check!(!cpu::irq_pending(), "{timer:?}: not in ISR_EL1 when the deadline moved away");
    timer.stop();
}

fn fires(timer: Timer) {
    COUNT.store(0, Ordering::SeqCst);
    cpu::unmask();
    for n in 1..=20u64 {
        let end = timer.count() + timer::micros(500);
        timer.set_deadline(end);
        timer.set_control(ENABLE);
        let came = timer::wait_until(PATIENCE, || COUNT.load(Ordering::SeqCst) >= n);
        if !came || timer.count() < end {
            check!(false, "{timer:?}: fires at its deadline", "deadline {n}: came {came}");
            break;
        }
    }
    timer::delay(2_000);
    cpu::mask();
    check_eq!(COUNT.load(Ordering::SeqCst), 20, "{timer:?}: fires once for each deadline");
    check_eq!(LAST.load(Ordering::SeqCst), u64::from(timer.irq()), "{timer:?}: has its own interrupt");
    // A deadline that has passed fires at once.
    cpu::unmask();
    timer.set_left(-1);
    timer.set_control(ENABLE);
    check!(
        timer::wait_until(PATIENCE, || COUNT.load(Ordering::SeqCst) == 21),
        "{timer:?}: a deadline in the past fires at once"
    );
    cpu::mask();
}

/// WFI ends at the deadline, whether the interrupt is masked in PSTATE or taken.
fn wakes(timer: Timer) {
    for masked in [true, false] {
        let before = COUNT.load(Ordering::SeqCst);
        if !masked {
            cpu::unmask();
        }
        let start = timer.count();
        timer.start(timer::micros(20_000));
        if masked {
            while !cpu::irq_pending() {
                cpu::wfi();
            }
        } else {
            while COUNT.load(Ordering::SeqCst) == before {
                cpu::wfi();
            }
        }
        let slept = timer.count() - start;
        let how = if masked { "masked" } else { "unmasked" };
        check!(slept >= timer::micros(20_000), "{timer:?}: WFI wakes at the deadline, {how}", "after {slept} ticks");
        timer.stop();
        cpu::mask();
    }
}

/// Both at once: two interrupts, whichever comes first.
fn both() {
    COUNT.store(0, Ordering::SeqCst);
    for timer in [Timer::Virtual, Timer::Physical] {
        gic::enable(timer.irq());
        timer.start(timer::micros(300));
    }
    timer::delay(1_000);
    cpu::unmask();
    check!(
        timer::wait_until(PATIENCE, || COUNT.load(Ordering::SeqCst) == 2),
        "both timers fire when both are due",
        "{}",
        COUNT.load(Ordering::SeqCst)
    );
    cpu::mask();
}
