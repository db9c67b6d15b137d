//! Self-hosted debug: breakpoints, watchpoints and single steps of this CPU, at EL1 and EL0, and what they are to hit.
//!
//! Debug exceptions of EL1 itself are unmasked (PSTATE.D) only within the functions here that are to meet them. Follows
//! Arm ARM D2 (self-hosted debug), D24.3 (its registers).

use crate::cpu::{self, isb, write_register};
use crate::{mmu, read_register};
use core::arch::{asm, global_asm};
use core::sync::atomic::AtomicU64;

global_asm!(
    ".section .text.debug, \"ax\"",
    ".balign 64",
    // x1 = a word to load. What EL0 runs ends with SVC, what EL1 runs with RET.
    "rt_debug_user:",
    "nop",
    "nop",
    "nop",
    "nop",
    "ldr x2, [x1]",
    "nop",
    "svc #0",
    "rt_debug_kernel:",
    "nop",
    "nop",
    "nop",
    "nop",
    "ret",
    // x0 = MDSCR_EL1 with SS, x1 = without. Two of the instructions between may trap.
    "rt_debug_steps:",
    "msr mdscr_el1, x0",
    "isb",
    "rt_debug_first:",
    "nop",
    "add x2, x2, #1",
    "mrs x3, id_aa64pfr0_el1",
    "b 1f",
    "nop",
    "1: nop",
    "rt_debug_last:",
    "msr mdscr_el1, x1",
    "isb",
    "ret",
);

unsafe extern "C" {
    static rt_debug_user: u32;
    static rt_debug_kernel: u32;
    static rt_debug_first: u32;
    static rt_debug_last: u32;
}

/// MDSCR_EL1: single steps.
pub const SS: u64 = 1;
/// MDSCR_EL1: debug exceptions of EL1 itself.
pub const KDE: u64 = 1 << 13;
/// MDSCR_EL1: breakpoints and watchpoints.
pub const MDE: u64 = 1 << 15;

/// Control of a breakpoint or watchpoint: at EL1.
pub const AT_EL1: u64 = 1 << 1;
/// At EL0.
pub const AT_EL0: u64 = 2 << 1;
/// Enabled, for an instruction of four bytes.
pub const BREAK: u64 = 1 | 0xf << 5;
/// Enabled, for loads from eight bytes.
pub const LOAD: u64 = 1 | 0xff << 5 | 1 << 3;
/// Enabled, for stores to eight bytes.
pub const STORE: u64 = 1 | 0xff << 5 | 2 << 3;

/// Exception class of a breakpoint, from EL0; one more from the same level.
pub const BREAKPOINT: u64 = 0x30;
/// Of a single step.
pub const STEP: u64 = 0x32;
/// Of a watchpoint.
pub const WATCHPOINT: u64 = 0x34;

macro_rules! points {
    ($($what:ident $set:ident $get:ident: $($n:literal $control:literal $value:literal)*;)*) => {$(
        #[doc = concat!("Sets ", stringify!($what), " `n`: value, then control.")]
        pub fn $set(n: usize, value: u64, control: u64) {
            match n {
                // SAFETY: what hits is an exception, which is expected or reported.
                $($n => unsafe { write_register!($value, value); write_register!($control, control); })*
                _ => {}
            }
            isb();
        }

        #[doc = concat!("Reads ", stringify!($what), " `n`: value and control.")]
        pub fn $get(n: usize) -> (u64, u64) {
            match n {
                $($n => (read_register!($value), read_register!($control)),)*
                _ => (0, 0),
            }
        }
    )*};
}

points! {
    breakpoint set_breakpoint breakpoint: 0 "dbgbcr0_el1" "dbgbvr0_el1" 1 "dbgbcr1_el1" "dbgbvr1_el1"
        2 "dbgbcr2_el1" "dbgbvr2_el1" 3 "dbgbcr3_el1" "dbgbvr3_el1" 4 "dbgbcr4_el1" "dbgbvr4_el1"
        5 "dbgbcr5_el1" "dbgbvr5_el1";
    watchpoint set_watchpoint watchpoint: 0 "dbgwcr0_el1" "dbgwvr0_el1" 1 "dbgwcr1_el1" "dbgwvr1_el1"
        2 "dbgwcr2_el1" "dbgwvr2_el1" 3 "dbgwcr3_el1" "dbgwvr3_el1";
}

/// How many breakpoints and watchpoints there are (ID_AA64DFR0_EL1), of those that can be set here.
pub fn n_points() -> (usize, usize) {
    let dfr0 = read_register!("id_aa64dfr0_el1");
    ((dfr0 >> 12 & 15).min(5) as usize + 1, (dfr0 >> 20 & 15).min(3) as usize + 1)
}

/// Clears all of them, and MDSCR_EL1.
pub fn clear() {
    set_mdscr(0);
    let (breakpoints, watchpoints) = n_points();
    (0..breakpoints).for_each(|n| set_breakpoint(n, 0, 0));
    (0..watchpoints).for_each(|n| set_watchpoint(n, 0, 0));
}

/// Writes MDSCR_EL1; without SS, which only [`step`] and [`user`] set.
pub fn set_mdscr(value: u64) {
    // SAFETY: what hits is an exception, which is expected or reported.
    unsafe { write_register!("mdscr_el1", value & !SS) };
    isb();
}

/// Sets or clears the OS lock.
pub fn lock(held: bool) {
    // SAFETY: it lets debug exceptions come, or not.
    unsafe { write_register!("oslar_el1", u64::from(held)) };
    isb();
}

/// Sets claim tags.
pub fn set_claims(tags: u64) {
    // SAFETY: nothing depends on them.
    unsafe { write_register!("dbgclaimset_el1", tags) };
}

/// Clears claim tags.
pub fn clear_claims(tags: u64) {
    // SAFETY: as above.
    unsafe { write_register!("dbgclaimclr_el1", tags) };
}

/// Writes CONTEXTIDR_EL1 for breakpoints that ask for it.
pub fn set_context(id: u64) {
    cpu::write_contextidr(id);
}

/// The address of instruction `n`, below 4, of what [`kernel`] runs.
pub fn kernel_at(n: usize) -> u64 {
    &raw const rt_debug_kernel as u64 + n as u64 * 4
}

/// The same of what [`user`] runs; the load is instruction 4.
pub fn user_at(n: usize) -> u64 {
    mmu::for_user(&raw const rt_debug_user as u64) + n as u64 * 4
}

/// Runs four instructions at EL1, debug exceptions unmasked.
pub fn kernel() {
    // SAFETY: a call of NOPs; an exception comes back.
    unsafe { asm!("msr daifclr, #8", "bl rt_debug_kernel", "msr daifset, #8", out("x30") _, options(nostack)) };
}

/// Loads a word and stores it again at EL1, debug exceptions unmasked.
pub fn touch(word: &AtomicU64) {
    let at = word.as_ptr();
    // SAFETY: the word keeps its value, if nobody else writes to it; a load that was skipped stores nothing new.
    unsafe {
        asm!("ldr {v}, [{a}]", "msr daifclr, #8", "ldr {w}, [{a}]", "str {v}, [{a}]", "msr daifset, #8",
            a = in(reg) at, v = out(reg) _, w = out(reg) _, options(nostack));
    }
}

/// Runs instructions at EL0 that load a word; with `step`, each a single step.
pub fn user(word: &AtomicU64, step: bool) {
    let at = mmu::for_user(word.as_ptr() as u64);
    let before = read_register!("mdscr_el1");
    let (mdscr, spsr): (u64, u64) = if step { (before | SS, 1 << 21) } else { (before, 0) };
    // SAFETY: EL0 runs the few instructions above, which change x2 alone, and comes back by SVC, to the address in x10
    // (see `exception`).
    unsafe {
        asm!("msr mdscr_el1, {mdscr}", "isb", "adr x10, 2f", "msr elr_el1, {entry}", "msr spsr_el1, {spsr}", "eret",
            "2: msr mdscr_el1, {before}", "isb",
            mdscr = in(reg) mdscr, entry = in(reg) user_at(0), spsr = in(reg) spsr | 0x1c0, before = in(reg) before,
            in("x1") at, out("x2") _, out("x10") _, options(nostack));
    }
}

/// Steps through some instructions of EL1, two of which may trap to a hypervisor, and returns the addresses of the first
/// and of the last; the third from last is jumped over.
pub fn step() -> (u64, u64) {
    let before = read_register!("mdscr_el1");
    // SAFETY: a call that changes x2 and x3 alone; steps come back.
    unsafe {
        asm!("msr daifclr, #8", "bl rt_debug_steps", "msr daifset, #8", in("x0") before | SS | KDE, in("x1") before,
            out("x2") _, out("x3") _, out("x30") _, options(nostack));
    }
    (&raw const rt_debug_first as u64, &raw const rt_debug_last as u64)
}
