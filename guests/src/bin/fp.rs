//! Do FP and SIMD registers, distinct on each CPU, survive while timers interrupt and vCPUs take turns?
//!
//! Meant to run with more vCPUs than CPUs. Boot argument `rounds=N` (default 200).

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use rt::timer::{self, Timer};
use rt::{args, check, check_eq, cpu, fp, gic, println, smp};

rt::guest!(main);

static TICKS: AtomicU64 = AtomicU64::new(0);
static DIFFERENT: [AtomicU64; cpu::MAX] = [const { AtomicU64::new(0) }; cpu::MAX];

fn tick() {
    let taken = gic::acknowledge();
    if taken.intid == Timer::Virtual.irq() {
        TICKS.fetch_add(1, Ordering::Relaxed);
        Timer::Virtual.start(timer::micros(700));
    }
    gic::end(taken);
}

fn job(index: usize) {
    gic::init_cpu();
    gic::enable(Timer::Virtual.irq());
    Timer::Virtual.start(timer::micros(700));
    cpu::unmask();
    let mut different = 0;
    for round in 0..args::number("rounds", 200) {
        let seed = (index as u64 + 1) << 32 | round << 4 | index as u64;
        fp::fill(seed);
        if round % 4 == 0 {
            cpu::wfi(); // gives the CPU away with the registers full
        } else {
            timer::delay(300 + 37 * (round % 16));
        }
        different += fp::n_different(seed);
    }
    cpu::mask();
    Timer::Virtual.stop();
    DIFFERENT[index].store(different, Ordering::SeqCst);
}

fn main() {
    gic::init();
    rt::exception::set_irq_hook(tick);
    fp::fill(5);
    check!(fp::n_different(6) >= 32, "the comparison sees a difference");
    smp::on_all(job);
    for index in 0..args::n_cpus() {
        check_eq!(DIFFERENT[index].load(Ordering::SeqCst), 0, "CPU {index} kept its registers");
    }
    let ticks = TICKS.load(Ordering::SeqCst);
    println!("fp: {ticks} timer interrupts");
    check!(ticks > args::n_cpus() as u64, "timers interrupted");
}
