//! From assembly to `main`: the first CPU reads the device tree and runs the guest, the others run their job.

use crate::{args, console, mmu, report, smp};
use core::arch::global_asm;

global_asm!(include_str!("start.S"));
global_asm!(include_str!("vectors.S"));

unsafe extern "Rust" {
    /// Made by [`crate::guest!`].
    safe fn rt_guest() -> (&'static str, fn());
}

#[unsafe(no_mangle)]
extern "C" fn rt_start(tree: u64, index: usize) -> ! {
    if index != 0 {
        smp::secondary(index)
    }
    let (name, main) = rt_guest();
    report::set_name(name);
    console::init();
    args::read(tree);
    mmu::complete();
    main();
    report::finish()
}
