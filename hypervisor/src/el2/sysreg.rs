//! System registers by name, for those `aarch64-cpu` lacks or has only in part.
//!
//! `read!` and `write!` take a register's name or its `S<op0>_<op1>_C<n>_C<m>_<op2>` encoding. The instruction itself
//! is all they do; order against what follows is the caller's (`isb`).

use tock_registers::register_bitfields;

register_bitfields! {u64,
    /// Cache type (Arm ARM D24.2.34).
    pub CTR_EL0 [
        /// The logarithm of the words in the smallest line of the data caches.
        DMINLINE OFFSET(16) NUMBITS(4) [],
    ],
    /// DC ZVA (Arm ARM D24.2.36).
    pub DCZID_EL0 [
        /// It is forbidden.
        DZP OFFSET(4) NUMBITS(1) [],
        /// The logarithm of the words that it zeroes.
        BS OFFSET(0) NUMBITS(4) [],
    ],
    /// The PMU (Arm ARM D24.5.10).
    pub PMCR_EL0 [
        /// How many event counters there are.
        N OFFSET(11) NUMBITS(5) [],
    ],
}

/// Reads a system register.
macro_rules! read {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: MRS of a register that exists at EL2 on every core this is reached on has no effect on memory.
        unsafe { core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }};
}

/// Writes a system register. Writing is as unsafe as what the register governs: each use stands in a function that says
/// why the value is sound, and no register that governs EL2's own map is written through it outside of `mmu.rs`.
macro_rules! write {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: registers written here govern EL1, the interrupt interface or timers; EL2's own memory map and stack
        // do not depend on them. Not `nomem`: memory accesses must not be moved across.
        unsafe { core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags)) };
    }};
}

pub(crate) use {read, write};

/// Waits until earlier register writes have their effect (Arm ARM: context synchronization event).
#[inline(always)]
pub(crate) fn isb() {
    aarch64_cpu::asm::barrier::isb(aarch64_cpu::asm::barrier::SY);
}

/// Data synchronization barrier for all, the whole system.
#[inline(always)]
pub(crate) fn dsb() {
    aarch64_cpu::asm::barrier::dsb(aarch64_cpu::asm::barrier::SY);
}
