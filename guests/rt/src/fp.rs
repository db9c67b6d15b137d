//! FP and SIMD registers: filled from a seed and compared again, in assembly, since the program itself uses none.

use core::arch::{asm, global_asm};

global_asm!(
    ".arch_extension fp",
    ".arch_extension simd",
    ".section .text.fp, \"ax\"",
    // x0 = seed: q(n) = { seed * (2n + 1), ~that }
    "rt_fp_fill:",
    "mov x2, x0",
    "lsl x3, x0, #1",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    "ins v\\n\\().d[0], x2",
    "mvn x4, x2",
    "ins v\\n\\().d[1], x4",
    "add x2, x2, x3",
    ".endr",
    "ret",
    // x0 = seed; returns the number of registers that differ
    "rt_fp_differ:",
    "mov x2, x0",
    "lsl x3, x0, #1",
    "mov x0, xzr",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    "umov x5, v\\n\\().d[0]",
    "umov x6, v\\n\\().d[1]",
    "mvn x4, x2",
    "cmp x5, x2",
    "ccmp x6, x4, #0, eq",
    "cinc x0, x0, ne",
    "add x2, x2, x3",
    ".endr",
    "ret",
);

unsafe extern "C" {
    fn rt_fp_fill(seed: u64);
    fn rt_fp_differ(seed: u64) -> u64;
}

/// FPCR bits that every core has: rounding mode and flush-to-zero.
const CONTROL: u64 = 7 << 22;
/// FPSR: cumulative exception bits.
const STATUS: u64 = 0x1f;

/// Fills all 32 registers, FPCR and FPSR with what this seed stands for.
pub fn fill(seed: u64) {
    // SAFETY: writes only FP and SIMD registers, which compiled code does not use.
    unsafe {
        rt_fp_fill(seed);
        asm!(".arch_extension fp", "msr fpcr, {}", "msr fpsr, {}", in(reg) seed << 22 & CONTROL, in(reg) seed & STATUS);
    }
}

/// Returns how many registers (of 34) do not hold what [`fill`] wrote for this seed.
pub fn n_different(seed: u64) -> u64 {
    let (control, status): (u64, u64);
    // SAFETY: reads only.
    let n = unsafe {
        asm!(".arch_extension fp", "mrs {}, fpcr", "mrs {}, fpsr", out(reg) control, out(reg) status);
        rt_fp_differ(seed)
    };
    n + u64::from(control & CONTROL != seed << 22 & CONTROL) + u64::from(status & STATUS != seed & STATUS)
}
