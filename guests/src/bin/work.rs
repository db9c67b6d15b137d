//! A fixed amount of work on all CPUs, with a checksum: how long does it take beside others?
//!
//! Boot argument `units=N` for each CPU (default 100). A unit is about 2 million instructions.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use rt::{args, check_eq, cpu, println, smp, timer};

rt::guest!(main);

const STEPS: u64 = 1 << 18;
/// What one unit comes to.
const CHECKSUM: u64 = 0x2aac_7feb_ee53_adf8;

static WRONG: AtomicU64 = AtomicU64::new(0);
static DONE: [AtomicU64; cpu::MAX] = [const { AtomicU64::new(0) }; cpu::MAX];

/// One unit: a chain in which every step needs the one before.
fn unit() -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325u64;
    for step in 0..STEPS {
        sum = (sum ^ step).wrapping_mul(0x100_0000_01b3).rotate_left(7);
        core::hint::black_box(&mut sum);
    }
    sum
}

fn job(index: usize) {
    for _ in 0..args::number("units", 100) {
        WRONG.fetch_add(u64::from(unit() != CHECKSUM), Ordering::Relaxed);
        DONE[index].fetch_add(1, Ordering::Relaxed);
    }
}

fn main() {
    let start = timer::now();
    smp::on_all(job);
    let ticks = timer::now() - start;
    let units = args::number("units", 100) * args::n_cpus() as u64;
    let done: u64 = DONE.iter().map(|n| n.load(Ordering::SeqCst)).sum();
    check_eq!(WRONG.load(Ordering::SeqCst), 0, "every unit has the right checksum");
    check_eq!(done, units, "all work is done");
    println!(
        "work: {units} units on {} CPUs in {ticks} ticks = {} us",
        args::n_cpus(),
        ticks / (timer::frequency() / 1_000_000).max(1)
    );
}
