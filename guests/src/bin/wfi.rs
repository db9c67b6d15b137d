//! Do many idle vCPUs sleep and wake, each by its own timer?
//!
//! Boot argument `wakes=N` (default 50), `period=MICROSECONDS` (default 2000).

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use rt::timer::{self, Timer};
use rt::{args, check, check_eq, cpu, gic, println, smp};

rt::guest!(main);

static WOKEN: [AtomicU64; cpu::MAX] = [const { AtomicU64::new(0) }; cpu::MAX];
static EARLY: AtomicU64 = AtomicU64::new(0);

fn hook() {
    let taken = gic::acknowledge();
    if taken.intid == Timer::Virtual.irq() {
        Timer::Virtual.stop();
        WOKEN[cpu::index()].fetch_add(1, Ordering::SeqCst);
    }
    gic::end(taken);
}

fn job(index: usize) {
    gic::init_cpu();
    gic::enable(Timer::Virtual.irq());
    let period = timer::micros(args::number("period", 2000));
    for n in 1..=args::number("wakes", 50) {
        cpu::mask();
        let due = timer::now() + period + ((index as u64 * period) >> 4);
        Timer::Virtual.set_deadline(due);
        Timer::Virtual.set_control(timer::ENABLE);
        while WOKEN[index].load(Ordering::SeqCst) < n {
            cpu::wfi(); // masked: the interrupt cannot slip in between the look and the sleep
            cpu::unmask();
            cpu::mask();
        }
        EARLY.fetch_add(u64::from(timer::now() < due), Ordering::SeqCst);
    }
}

fn main() {
    gic::init();
    rt::exception::set_irq_hook(hook);
    let start = timer::now();
    smp::on_all(job);
    let ms = (timer::now() - start) * 1000 / timer::frequency();
    for index in 0..args::n_cpus() {
        let woken = WOKEN[index].load(Ordering::SeqCst);
        check_eq!(woken, args::number("wakes", 50), "CPU {index} woke each time");
    }
    check_eq!(EARLY.load(Ordering::SeqCst), 0, "nobody woke early");
    println!("wfi: {ms} ms");
    check!(ms > 0, "time went by");
}
