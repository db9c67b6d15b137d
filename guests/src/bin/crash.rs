//! Dies after a line of output: who is harmed, and what is reported?
//!
//! Boot argument `how=`: `undefined-loop` (default): an exception whose vectors lie where no memory is; `stage1-loop`: the
//! same, but where the guest's own map ends, so that nobody outside sees a fault; `off-all`: every CPU turns itself off.

#![no_std]
#![no_main]

use rt::{args, cpu, mmu, println, psci, smp};

rt::guest!(main);

/// Where `virt` has nothing: behind the virtio slots.
const HOLE: u64 = 0x0b00_0000;
/// Outside of what the guest's tables map.
const UNMAPPED: u64 = 511 << 30;

fn off(index: usize) {
    println!("crash: CPU {index} of {} goes off", args::n_cpus());
}

fn main() {
    let how = args::value("how").unwrap_or("undefined-loop");
    println!("crash: {how}");
    match how {
        "off-all" => {
            smp::on_all(off);
            let answer = psci::cpu_off();
            println!("crash: CPU_OFF returned {answer}");
        }
        "stage1-loop" => cpu::die_with_vectors_at(UNMAPPED),
        _ => cpu::die_with_vectors_at(mmu::fetchable(HOLE)),
    }
}
