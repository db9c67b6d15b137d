//! Does a guest start, print and end?

#![no_std]
#![no_main]

use rt::{args, check, check_eq, println, read_register};

rt::guest!(main);

fn main() {
    println!(
        "hello from EL1: {} CPUs, GICv{}, {} MiB, bootargs \"{}\"",
        args::n_cpus(),
        args::gic_version(),
        (rt::ram::end() - rt::board::RAM) >> 20,
        args::bootargs()
    );
    check_eq!(read_register!("currentel") >> 2, 1, "the guest runs at EL1");
    check!(args::gic_version() != 0, "the tree names an interrupt controller");
    check_eq!(read_register!("mpidr_el1") & 0xff_00ff_ffff, args::mpidr(0), "this CPU is the first of the tree");
}
