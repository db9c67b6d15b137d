//! Calls to the firmware: SMCCC by HVC and SMC, PSCI function identifiers and results.
//!
//! Follows DEN0022 (PSCI 1.1) and DEN0028 (SMCCC 1.1). A call can harm the program only by giving a CPU an entry point;
//! [`call`] admits none but the program's own or one outside RAM.

use crate::{board, ram};
use core::arch::asm;

/// PSCI_VERSION.
pub const VERSION: u64 = 0x8400_0000;
/// CPU_SUSPEND, 64-bit.
pub const CPU_SUSPEND: u64 = 0xc400_0001;
/// CPU_OFF.
pub const CPU_OFF: u64 = 0x8400_0002;
/// CPU_ON, 64-bit.
pub const CPU_ON: u64 = 0xc400_0003;
/// AFFINITY_INFO, 64-bit.
pub const AFFINITY_INFO: u64 = 0xc400_0004;
/// MIGRATE_INFO_TYPE.
pub const MIGRATE_INFO_TYPE: u64 = 0x8400_0006;
/// SYSTEM_OFF.
pub const SYSTEM_OFF: u64 = 0x8400_0008;
/// SYSTEM_RESET.
pub const SYSTEM_RESET: u64 = 0x8400_0009;
/// PSCI_FEATURES.
pub const FEATURES: u64 = 0x8400_000a;
/// SYSTEM_SUSPEND, 64-bit.
pub const SYSTEM_SUSPEND: u64 = 0xc400_000e;
/// SMCCC_VERSION.
pub const SMCCC_VERSION: u64 = 0x8000_0000;
/// SMCCC_ARCH_FEATURES.
pub const SMCCC_ARCH_FEATURES: u64 = 0x8000_0001;
/// Done.
pub const SUCCESS: i64 = 0;
/// No such function.
pub const NOT_SUPPORTED: i64 = -1;
/// An argument is wrong.
pub const INVALID_PARAMETERS: i64 = -2;
/// The CPU is on.
pub const ALREADY_ON: i64 = -4;
/// The CPU is about to be on.
pub const ON_PENDING: i64 = -5;
/// The entry point is wrong.
pub const INVALID_ADDRESS: i64 = -9;

/// The instruction that carries a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// HVC #0.
    Hvc,
    /// SMC #0.
    Smc,
}

unsafe extern "C" {
    fn secondary_start();
}

/// Returns the entry point of every CPU but the first.
pub fn entry() -> u64 {
    secondary_start as *const () as u64
}

/// Panics if `args` would make a CPU run something in RAM that is not this program's entry.
pub(crate) fn admit(args: [u64; 4]) {
    let at = match args[0] & !(1 << 30) & 0xffff_ffff {
        0x8400_0001 | 0x8400_0003 => args[2],
        0x8400_000e => args[1],
        _ => return,
    };
    // A 32-bit call uses the lower halves.
    let low = at & 0xffff_ffff;
    let harmless = |at: u64| at == entry() || at < board::RAM || at >= ram::end();
    assert!(harmless(at) && harmless(low), "entry point {at:#x} is not this program's");
}

/// Makes a call and returns x0 to x3. Where the instruction is UNDEFINED and expected, the arguments come back.
#[inline(always)]
pub fn call(conduit: Conduit, args: [u64; 4]) -> [u64; 4] {
    admit(args);
    let [mut x0, mut x1, mut x2, mut x3] = args;
    // SAFETY: `admit` has seen the only functions that make firmware touch this program; clobbers as SMCCC 1.0 has them.
    unsafe {
        match conduit {
            Conduit::Hvc => asm!("hvc #0", inout("x0") x0, inout("x1") x1, inout("x2") x2, inout("x3") x3,
                out("x4") _, out("x5") _, out("x6") _, out("x7") _, out("x8") _, out("x9") _, out("x10") _,
                out("x11") _, out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _),
            Conduit::Smc => asm!("smc #0", inout("x0") x0, inout("x1") x1, inout("x2") x2, inout("x3") x3,
                out("x4") _, out("x5") _, out("x6") _, out("x7") _, out("x8") _, out("x9") _, out("x10") _,
                out("x11") _, out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _),
        }
    }
    [x0, x1, x2, x3]
}

/// Returns the conduit of this Exception level: at EL2, HVC comes back to EL2.
#[inline(always)]
pub fn conduit() -> Conduit {
    if crate::read_register!("currentel") == 8 { Conduit::Smc } else { Conduit::Hvc }
}

/// Calls by HVC; returns the signed result. 32-bit functions answer in w0, which is sign-extended.
#[inline(always)]
pub fn hvc(function: u64, a: u64, b: u64, c: u64) -> i64 {
    signed(Conduit::Hvc, function, [a, b, c])
}

/// Calls by the conduit of this Exception level; returns the signed result.
pub fn ask(function: u64, a: u64, b: u64, c: u64) -> i64 {
    signed(conduit(), function, [a, b, c])
}

#[inline(always)]
fn signed(conduit: Conduit, function: u64, [a, b, c]: [u64; 3]) -> i64 {
    let result = call(conduit, [function, a, b, c])[0];
    if function & (1 << 30) != 0 { result as i64 } else { i64::from(result as u32 as i32) }
}

/// Turns the board off.
pub fn system_off() -> ! {
    ask(SYSTEM_OFF, 0, 0, 0);
    crate::cpu::park()
}

/// Resets the board.
pub fn system_reset() -> ! {
    ask(SYSTEM_RESET, 0, 0, 0);
    crate::cpu::park()
}

/// Turns this CPU off; returns the error if firmware refuses.
pub fn cpu_off() -> i64 {
    ask(CPU_OFF, 0, 0, 0)
}

/// Returns the state of a CPU: 0 on, 1 off, 2 pending, or an error.
pub fn affinity_info(mpidr: u64, level: u64) -> i64 {
    ask(AFFINITY_INFO, mpidr, level, 0)
}
