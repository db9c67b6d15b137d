//! Resets its board again and again: is everything as on the first day each time?
//!
//! With several CPUs the others are on when one resets, and each time another number of them sleeps.
//!
//! It marks its own .data and free RAM before each reset, and must not find the marks after it. Bare QEMU
//! reloads the image but leaves other RAM as it was, so free RAM is looked at only with the boot argument `strict`. With
//! `until=MILLISECONDS` of the counter the loop ends, with a verdict; otherwise never.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use rt::{args, check_eq, cpu, println, psci, ram, smp, timer};

rt::guest!(main);

const PRISTINE: u64 = 0x0123_4567_89ab_cdef;
const MARK: u64 = 0xdead_0000_beef_0001;

static DATA: AtomicU64 = AtomicU64::new(PRISTINE);

fn main() {
    let ms = timer::now() * 1000 / timer::frequency();
    println!("reset: started at {ms} ms");
    let free = ram::largest_free();
    let places = [0, free.len() / 2, free.len() - 1];
    let marked = places.iter().filter(|&&place| free[place].load(Ordering::SeqCst) != 0).count();
    let data = DATA.load(Ordering::SeqCst);
    let last = args::value("until").is_some_and(|_| ms >= args::number("until", 0));
    let clean = data == PRISTINE && (marked == 0 || !args::strict());
    if last || !clean {
        check_eq!(data, PRISTINE, ".data is as in the image");
        if args::strict() {
            check_eq!(marked, 0, "free RAM is zero");
        }
        return;
    }
    DATA.store(MARK, Ordering::SeqCst);
    for place in places {
        free[place].store(MARK, Ordering::SeqCst);
    }
    let awake = timer::now() as usize % args::n_cpus();
    for index in 1..args::n_cpus() {
        let answer = smp::start(index, if index <= awake { spin } else { sleep });
        check_eq!(answer, psci::SUCCESS, "CPU {index} comes on");
    }
    psci::system_reset();
}

fn spin(_: usize) {
    loop {
        cpu::relax();
    }
}

fn sleep(_: usize) {
    loop {
        cpu::wfi();
    }
}
