//! How late does its timer come, while others have long work done for them?
//!
//! It sleeps, and its timer wakes it each 500 us or so. The boot argument `until=MILLISECONDS` of the counter ends it. It prints
//! `bench late NANOSECONDS`, the worst; what of that is its host's only the host knows.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use rt::timer::{self, Timer};
use rt::{args, check, cpu, gic, println};

rt::guest!(main);

static CAME: AtomicU64 = AtomicU64::new(0);
static WORST: AtomicU64 = AtomicU64::new(0);
static TOTAL: AtomicU64 = AtomicU64::new(0);

fn hook() {
    let now = timer::now();
    let taken = gic::acknowledge();
    let late = now - Timer::Virtual.deadline();
    Timer::Virtual.stop();
    gic::end(taken);
    WORST.fetch_max(late, Ordering::SeqCst);
    TOTAL.fetch_add(late, Ordering::SeqCst);
    CAME.fetch_add(1, Ordering::SeqCst);
}

fn main() {
    gic::init();
    gic::init_cpu();
    rt::exception::set_irq_hook(hook);
    gic::enable(Timer::Virtual.irq());
    let until = args::number("until", 1000) * timer::frequency() / 1000;
    let mut n = 0;
    while timer::now() < until {
        cpu::mask();
        Timer::Virtual.start(timer::micros(450 + 7 * (n % 16)));
        cpu::wfi();
        cpu::unmask();
        n += 1;
        while CAME.load(Ordering::SeqCst) < n {
            cpu::relax();
        }
    }
    let ns = |ticks: u64| ticks * 1_000_000_000 / timer::frequency();
    let worst = ns(WORST.load(Ordering::SeqCst));
    println!(
        "late: {n} timers, {} ns late on average, {worst} ns at worst",
        ns(TOTAL.load(Ordering::SeqCst) / n.max(1))
    );
    println!("bench late {worst}");
    check!(CAME.load(Ordering::SeqCst) == n, "each timer came");
}
