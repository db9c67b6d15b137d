//! Does what is below give a guest hypervisor all it needs? This is one: it starts at EL2 and has guests of its own.
//!
//! On bare QEMU (`-machine virt,virtualization=on`) EL2 is real, and this is a test of the test. Boot arguments: `vhe` runs
//! with HCR_EL2.E2H set, `only=GROUP` one group alone, `bench` measures instead. Prints the checks that fail, and at last
//! `nest: OK checks=N` or `nest: FAIL n of m`.

#![no_std]
#![no_main]
mod clocks;
mod costs;
mod cpus;
mod faults;
mod interrupts;
mod l2;
mod levels;
mod lists;
mod many;
mod memory;
mod ops;
mod registers;
mod remap;
mod spread;
mod stage1;
mod tables;
mod translate;
mod traps;

use rt::{args, check, el2, println, report};

rt::guest!(main);

const GROUPS: &[(&str, fn())] = &[
    ("registers", registers::run),
    ("levels", levels::run),
    ("faults", faults::run),
    ("granules", faults::granules),
    ("remap", remap::run),
    ("traps", traps::run),
    ("interrupts", interrupts::run),
    ("timers", clocks::run),
    ("translate", translate::run),
    ("cpus", cpus::run),
    ("many", many::run),
    ("spread", spread::run),
];

fn main() {
    report::be_quiet();
    if !el2::is_here() {
        check!(false, "the program starts at EL2");
        return;
    }
    if args::flag("vhe") {
        el2::become_vhe();
    }
    check!(el2::is_vhe() == args::flag("vhe"), "HCR_EL2.E2H is as it was set");
    let only = args::value("only");
    check!(only.is_none_or(|only| GROUPS.iter().any(|(name, _)| *name == only)), "the group is known");
    for (name, run) in GROUPS {
        if only.is_some_and(|only| only != *name) || only.is_none() && args::flag("bench") {
            continue;
        }
        let before = report::counts().0;
        memory::reset();
        run();
        println!("nest: {name}: {} checks", report::counts().0 - before);
    }
    if args::flag("bench") {
        memory::reset();
        costs::run();
    }
    match report::counts() {
        (checks, 0) => println!("nest: OK checks={checks}"),
        (checks, failed) => println!("nest: FAIL {failed} of {checks}"),
    }
}
