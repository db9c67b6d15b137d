//! A guest's own tables: 39 bits of VA in 4 KiB pages, its RAM at the same addresses, and two more places.

use crate::l2::{BASE, SCTLR, SIZE, TABLES, Vm};
use crate::tables::AF;
use rt::el2::{El1, Register};

/// A VA whose last table lies in a page of its own, at [`APART`].
pub(crate) const VA: u64 = 0xc000_0000;
/// The IPA of that table: a page that a test maps, or does not.
pub(crate) const APART: u64 = 0x2_0000_0000;
/// The IPA of the table that leads to it.
pub(crate) const MIDDLE: u64 = TABLES + 0x3000;

/// Leaf of stage 1: Normal (attribute 0), EL1 alone, read, write, run.
pub(crate) const LEAF: u64 = AF | 3 << 8 | 3;
/// Leaf: EL0 has it too (and so EL1 cannot run it).
pub(crate) const USER: u64 = 1 << 6;
/// Leaf: read-only.
pub(crate) const READ_ONLY: u64 = 1 << 7;
/// TCR_EL1: 39 bits below, nothing above; walks cacheable; 48 bits of IPA at most.
pub(crate) fn tcr() -> u64 {
    0x80_3519 | (Register::Mmfr0.read() & 7).min(5) << 32
}

/// Writes the tables; their last one at [`APART`] is the caller's to map and to fill.
pub(crate) fn build(vm: &Vm) {
    let (root, second, last) = (TABLES, TABLES + 0x1000, TABLES + 0x2000);
    vm.write(root + (BASE >> 30) * 8, second | 3);
    vm.write(root + (VA >> 30) * 8, MIDDLE | 3);
    vm.write(second, last | 3);
    vm.write(MIDDLE, APART | 3);
    for page in 0..SIZE >> 12 {
        vm.write(last + page * 8, (BASE + (page << 12)) | LEAF);
    }
}

/// Turns stage 1 on, or off.
pub(crate) fn switch(on: bool) {
    El1::Mair.write(0x04ff);
    El1::Tcr.write(tcr());
    El1::Ttbr0.write(TABLES);
    El1::Sctlr.write(if on { SCTLR | 0x1005 } else { SCTLR });
}
