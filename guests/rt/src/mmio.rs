//! Reading and writing device registers, with one plain load or store each, so that a hypervisor gets a valid syndrome.
//!
//! Safe to call with any address: what lies in RAM, where Rust objects are, is refused by an assertion. An access that
//! faults is skipped where [`crate::expect_exception`] is in force; the value read is then 0.

use crate::{board, ram};
use core::arch::asm;

/// Panics unless `address` and the 64 bytes behind it lie outside RAM.
#[inline(always)]
pub(crate) fn outside_ram(address: u64) {
    assert!(address < board::RAM - 64 || address >= ram::end(), "not a device: {address:#x}");
}

macro_rules! access {
    ($read:ident, $write:ident, $ldr:literal, $str:literal, $type:ty, $what:literal) => {
        #[doc = concat!("Reads ", $what, " at `address`.")]
        #[inline(always)]
        pub fn $read(address: u64) -> $type {
            outside_ram(address);
            let value: u64;
            // SAFETY: the address is outside RAM, so no Rust object is there.
            unsafe { asm!($ldr, a = in(reg) address, v = inout(reg) 0u64 => value, options(nostack)) };
            value as $type // the load has cleared all bits above the width
        }

        #[doc = concat!("Writes ", $what, " at `address`.")]
        #[inline(always)]
        pub fn $write(address: u64, value: $type) {
            outside_ram(address);
            // SAFETY: the address is outside RAM, so no Rust object is there.
            unsafe { asm!($str, a = in(reg) address, v = in(reg) u64::from(value), options(nostack)) };
        }
    };
}

access!(read8, write8, "ldrb {v:w}, [{a}]", "strb {v:w}, [{a}]", u8, "a byte");
access!(read16, write16, "ldrh {v:w}, [{a}]", "strh {v:w}, [{a}]", u16, "16 bits");
access!(read32, write32, "ldr {v:w}, [{a}]", "str {v:w}, [{a}]", u32, "32 bits");
access!(read64, write64, "ldr {v}, [{a}]", "str {v}, [{a}]", u64, "64 bits");
