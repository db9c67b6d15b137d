//! Masks interrupts and spins for ever on all CPUs: does anybody else notice?

#![no_std]
#![no_main]

use rt::{args, cpu, println, psci, smp};

rt::guest!(main);

fn spin(_: usize) {
    cpu::mask();
    loop {
        core::hint::black_box(());
    }
}

fn main() {
    println!("spin: {} CPUs, interrupts masked", args::n_cpus());
    for index in 1..args::n_cpus() {
        let answer = smp::start(index, spin);
        assert!(answer == psci::SUCCESS, "CPU_ON of CPU {index}: {answer}");
    }
    spin(0);
}
