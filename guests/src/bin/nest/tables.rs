//! Stage-2 tables of any granule, size and starting level (Arm ARM D8.2.2, D8.3).

use crate::memory;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::el2::{self, Register};

/// Leaf: it may be read.
pub(crate) const READ: u64 = 1 << 6;
/// Leaf: it may be written.
pub(crate) const WRITE: u64 = 2 << 6;
/// Leaf: the access flag.
pub(crate) const AF: u64 = 1 << 10;
/// Leaf: nothing may be run.
pub(crate) const XN: u64 = 2 << 53;
/// Leaf: EL1 may not run it (FEAT_XNX).
pub(crate) const PXN: u64 = 1 << 53;
/// Leaf: EL0 may not run it (FEAT_XNX).
pub(crate) const UXN: u64 = 3 << 53;
/// Leaf: Normal, write-back, inner shareable, read, write, run.
pub(crate) const ALL: u64 = MEMORY | READ | WRITE | AF;
/// Leaf: Normal, write-back, inner shareable.
pub(crate) const MEMORY: u64 = 0xf << 2 | 3 << 8;

/// The shape of a set of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Bits of a page: 12, 14 or 16.
    pub(crate) granule: u32,
    /// Bits of an IPA.
    pub(crate) ipa: u32,
    /// The level of the root, of which up to 16 tables are concatenated.
    pub(crate) start: u32,
}

/// 4 KiB pages, 36 bits: what most tests use.
pub(crate) const PLAIN: Geometry = Geometry { granule: 12, ipa: 36, start: 1 };

impl Geometry {
    fn stride(self) -> u32 {
        self.granule - 3
    }

    /// The bits below an entry of this level.
    pub(crate) fn shift(self, level: u32) -> u32 {
        self.granule + self.stride() * (3 - level)
    }

    /// The bytes an entry of this level stands for.
    pub(crate) fn size(self, level: u32) -> u64 {
        1 << self.shift(level)
    }

    /// The first level that has blocks.
    pub(crate) fn first_leaf(self) -> u32 {
        if self.granule == 12 { self.start.max(1) } else { self.start.max(2) }
    }

    /// VTCR_EL2 for this shape.
    pub(crate) fn vtcr(self) -> u64 {
        let (tg0, sl0) = match self.granule {
            12 => (0, [2, 1, 0, 3][self.start as usize]),
            14 => (2, 3 - u64::from(self.start)),
            _ => (1, 3 - u64::from(self.start)),
        };
        let vs = u64::from(vmid_bits() == 16);
        1 << 31 | vs << 19 | pa_range().min(5) << 16 | tg0 << 14 | 0x3500 | sl0 << 6 | u64::from(64 - self.ipa)
    }
}

/// ID_AA64MMFR0_EL1.PARange.
pub(crate) fn pa_range() -> u64 {
    Register::Mmfr0.read() & 15
}

/// How many bits a physical address has.
pub(crate) fn pa_bits() -> u32 {
    [32, 36, 40, 42, 44, 48, 52, 56][(pa_range() & 7) as usize]
}

/// How many bits a VMID has.
pub(crate) fn vmid_bits() -> u32 {
    if Register::Mmfr1.read() >> 4 & 15 == 2 { 16 } else { 8 }
}

/// A set of stage-2 tables.
pub(crate) struct Stage2 {
    /// Its shape.
    pub(crate) shape: Geometry,
    root: &'static [AtomicU64],
}

impl Stage2 {
    /// Makes tables that map nothing.
    pub(crate) fn new(shape: Geometry) -> Self {
        let bytes = 8 << (shape.ipa - shape.shift(shape.start));
        Self { shape, root: memory::take(bytes, bytes.max(0x1000)) }
    }

    /// The tables whose root lies at an address.
    pub(crate) fn at(shape: Geometry, root: u64) -> Self {
        Self { shape, root: memory::at(root, 8 << (shape.ipa - shape.shift(shape.start))) }
    }

    /// VTTBR_EL2 for these tables and this VMID.
    pub(crate) fn vttbr(&self, vmid: u64) -> u64 {
        memory::address(self.root) | vmid << 48
    }

    /// The entry of `ipa` at `level`; tables above it are made where there are none.
    pub(crate) fn slot(&self, ipa: u64, level: u32) -> &'static AtomicU64 {
        let shape = self.shape;
        let mut table = self.root;
        for at in shape.start..level {
            let slot = &table[(ipa >> shape.shift(at)) as usize & (table.len() - 1)];
            let bytes = 1 << shape.granule;
            let mut entry = slot.load(Ordering::SeqCst);
            if entry & 3 != 3 {
                entry = memory::address(memory::take(bytes, bytes)) | 3;
                el2::put(slot, entry, bytes);
            }
            table = memory::at(entry & 0xffff_ffff_f000, bytes);
        }
        &table[(ipa >> shape.shift(level)) as usize & (table.len() - 1)]
    }

    /// Puts a descriptor, whatever it says.
    pub(crate) fn put(&self, ipa: u64, level: u32, descriptor: u64) {
        let leaf = level == 3 || descriptor & 2 == 0;
        let size = if leaf { self.shape.size(level) } else { 1 << self.shape.granule };
        el2::put(self.slot(ipa, level), descriptor, size);
    }

    /// Maps the page or block of `level` at `ipa` to `pa`.
    pub(crate) fn map(&self, ipa: u64, pa: u64, level: u32, flags: u64) {
        let kind = if level == 3 { 3 } else { 1 };
        self.put(ipa, level, pa & !(self.shape.size(level) - 1) | flags | kind);
    }

    /// Maps `bytes` by pages, all accesses admitted.
    pub(crate) fn map_pages(&self, ipa: u64, pa: u64, bytes: u64) {
        for offset in (0..bytes).step_by(1 << self.shape.granule) {
            self.map(ipa + offset, pa + offset, 3, ALL);
        }
    }
}
