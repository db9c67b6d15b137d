//! Tight loops around one operation each, so that what they take is what the operation takes, and two for the loop.
//!
//! Under `-icount shift=0` an instruction is a nanosecond of the board's time: [`per`] turns ticks into instructions.

use crate::{board, timer};
use core::arch::asm;

/// What `n` operations took from tick `start` on, in instructions each.
pub fn per(start: u64, n: u64) -> u64 {
    (timer::now() - start) * 1_000_000_000 / timer::frequency() / n
}

/// Calls `function` by HVC `n` times.
pub fn hypercalls(function: u64, n: u64) -> u64 {
    let start = timer::now();
    // SAFETY: used with functions that change nothing; SMCCC lets x0 to x17 change.
    unsafe {
        asm!("2: mov x0, x20", "hvc #0", "subs x21, x21, #1", "b.ne 2b", in("x20") function,
            inout("x21") n => _, clobber_abi("C"), options(nostack));
    }
    per(start, n)
}

/// Reads the interrupt distributor's GICD_IIDR `n` times.
pub fn distributor_reads(n: u64) -> u64 {
    let start = timer::now();
    // SAFETY: reads a device register that has no side effect.
    unsafe {
        asm!("2: ldr {v:w}, [{a}]", "subs {n}, {n}, #1", "b.ne 2b", a = in(reg) board::GICD + 8,
            n = inout(reg) n => _, v = out(reg) _, options(nostack));
    }
    per(start, n)
}

/// Reads ID_AA64PFR0_EL1 `n` times.
pub fn id_register_reads(n: u64) -> u64 {
    let start = timer::now();
    // SAFETY: reads a register.
    unsafe {
        asm!("2: mrs {v}, id_aa64pfr0_el1", "subs {n}, {n}, #1", "b.ne 2b", n = inout(reg) n => _, v = out(reg) _,
            options(nostack));
    }
    per(start, n)
}
