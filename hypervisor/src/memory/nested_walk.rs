//! A guest hypervisor's stage 2: from its guest's addresses to its own, by the tables in its memory.
//!
//! Each descriptor is read once, through the VM's memory, so that a table that was merged, packed or swapped comes back.
//! Granules of 4, 16 and 64 KiB with concatenated roots (Arm ARM D8.2.8); hardware does not set its access flags, and XN
//! is one bit (no FEAT_XNX), as the ID registers of such VMs say.

pub use super::shadows::Key;
use super::{Access, Memory, Miss};
use crate::addr::{Addr, Ipa, Ipa2, Size};
use crate::arm::desc::{Attr, MemType, Rights};
use crate::arm::vmsa::{PaRange, granule_of};
use crate::frames::SharedPool;
use crate::machine::Machine;
use crate::stage2::Leaf;
use aarch64_cpu::registers::VTCR_EL2;

/// What is wrong with a translation of a guest hypervisor's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrong {
    /// The address, or a table's, has bits that nothing has.
    AddressSize = 0,
    /// There is none.
    Translation = 1,
    /// Its access flag is clear.
    AccessFlag = 2,
    /// It does not allow the access.
    Permission = 3,
    /// A table is not in RAM.
    External = 5,
}

/// A fault that is the guest hypervisor's to handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NestedFault {
    /// What is wrong.
    pub wrong: Wrong,
    /// At which level of its tables.
    pub level: u8,
}

impl NestedFault {
    /// The fault status code of a syndrome (Arm ARM D24.2.40, DFSC). External aborts on walks are at 0b0101xx.
    pub const fn status(self) -> u64 {
        (self.wrong as u64) << 2 | self.level as u64
    }
}

/// Why an address has no leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The guest hypervisor's tables say so.
    Fault(NestedFault),
    /// Its tables cannot be read just now, or ever.
    Miss(Miss),
}

/// A leaf of a guest hypervisor's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NestedLeaf {
    /// The part of it that one of our leaves could be, around the address.
    pub leaf: Leaf<Ipa2, Ipa>,
    /// How many bytes it has in all: a power of two, to which it is aligned.
    pub bytes: u64,
    /// Its level.
    pub level: u8,
}

/// The shape of a walk, from VTCR_EL2.
struct Shape {
    /// log2 of the granule.
    granule: u32,
    /// Bits of input.
    bits: u32,
    /// Where it starts.
    level: u32,
    /// Bits of output: VTCR_EL2.PS.
    outputs: u32,
}

impl Shape {
    /// Nothing where the fields are reserved or do not go together.
    fn of(vtcr: u64) -> Option<Self> {
        let granule = granule_of(VTCR_EL2::TG0.read(vtcr))?;
        // At most 63.
        let bits = 64 - VTCR_EL2::T0SZ.read(vtcr) as u32;
        let start = VTCR_EL2::SL0.read(vtcr);
        let level = match (granule, start) {
            (12, 0..=2) => 2 - start as u32,
            (14 | 16, 0..=2) => 3 - start as u32,
            _ => return None,
        };
        let outputs = PaRange::from_mmfr0(VTCR_EL2::PS.read(vtcr)).bits();
        let shape = Self { granule, bits, level, outputs };
        // The root has at least two entries and at most 16 tables of them.
        let low = shape.shift(level);
        (bits <= 48 && bits > low && bits - low <= granule - 3 + 4).then_some(shape)
    }

    /// How far an entry's index is shifted at `level`, and log2 of what it spans.
    const fn shift(&self, level: u32) -> u32 {
        self.granule + (3 - level) * (self.granule - 3)
    }

    /// Whether a level has leaves.
    const fn has_leaves(&self, level: u32) -> bool {
        match self.granule {
            12 => level >= 1,
            _ => level >= 2,
        }
    }
}

const VALID: u64 = 1;
const TABLE: u64 = 2;
const ACCESSED: u64 = 1 << 10;
const NO_EXEC: u64 = 1 << 54;
/// Bits 47 to 12.
const ADDRESS: u64 = 0xffff_ffff_f000;

impl Memory {
    /// The guest hypervisor's leaf for `at`, which any number may be, whatever it allows.
    pub fn walk_nested<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        key: Key,
        at: Addr<Ipa2>,
    ) -> Result<NestedLeaf, Reason> {
        let fault = |wrong, level: u32| {
            // Levels are 0 to 3.
            Err(Reason::Fault(NestedFault { wrong, level: level as u8 }))
        };
        let Some(shape) = Shape::of(key.vtcr) else { return fault(Wrong::Translation, 0) };
        // Where the walk does not come to read an entry, the level is 0 (Arm ARM J1.1 AArch64.S2Walk).
        if at.bits() >> shape.bits != 0 {
            return fault(Wrong::Translation, 0);
        }
        let mut table = key.vttbr & ADDRESS & !1;
        if table >> shape.outputs != 0 {
            return fault(Wrong::AddressSize, 0);
        }
        // The root's index has all the bits that are left.
        let mut mask = u64::MAX;
        for level in shape.level..=3 {
            let place = Addr::new(table | (at.bits() >> shape.shift(level) & mask) << 3);
            mask = (1 << (shape.granule - 3)) - 1;
            if !self.is_ram(place, 8) {
                return fault(Wrong::External, level);
            }
            let desc = self.read_word(m, pool, place).map_err(Reason::Miss)?;
            if desc & VALID == 0 || desc & TABLE == 0 && (level == 3 || !shape.has_leaves(level)) {
                return fault(Wrong::Translation, level);
            }
            let output = desc & ADDRESS & !((1 << shape.granule) - 1);
            if output >> shape.outputs != 0 {
                return fault(Wrong::AddressSize, level);
            }
            if level < 3 && desc & TABLE != 0 {
                table = output;
                continue;
            }
            if desc & ACCESSED == 0 {
                return fault(Wrong::AccessFlag, level);
            }
            return Ok(leaf(&shape, level, at, desc, output));
        }
        fault(Wrong::Translation, 3)
    }

    /// Where `at` is to the guest hypervisor, if it allows the access.
    pub fn nested_ipa<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        key: Key,
        at: Addr<Ipa2>,
        access: Access,
    ) -> Result<(NestedLeaf, Addr<Ipa>), Reason> {
        let nested = self.walk_nested(m, pool, key, at)?;
        if !nested.leaf.attr.rights.allows(access.rights()) {
            return Err(Reason::Fault(NestedFault { wrong: Wrong::Permission, level: nested.level }));
        }
        match nested.leaf.output_of(at) {
            Some(ipa) => Ok((nested, ipa)),
            None => Err(Reason::Fault(NestedFault { wrong: Wrong::AddressSize, level: nested.level })),
        }
    }
}

/// The leaf that a descriptor makes, and the part of it around `at` that one of our sizes fits.
fn leaf(shape: &Shape, level: u32, at: Addr<Ipa2>, desc: u64, output: u64) -> NestedLeaf {
    let bytes = 1 << shape.shift(level);
    let size = [Size::Giant, Size::Block].into_iter().find(|size| size.bytes() <= bytes).unwrap_or(Size::Page);
    let mut rights = Rights::NONE;
    for (set, right) in
        [(desc >> 6 & 1 != 0, Rights::R), (desc >> 7 & 1 != 0, Rights::W), (desc & NO_EXEC == 0, Rights::X)]
    {
        if set {
            rights = rights | right;
        }
    }
    let mem = match desc >> 2 & 0xf {
        0b1111 => MemType::Normal,
        0b0000..=0b0011 => MemType::Device,
        _ => MemType::NonCacheable,
    };
    let attr = Attr { mem, rights, ..Attr::RAM };
    let start = output & !(bytes - 1) | at.bits() & (bytes - 1);
    // Levels are 0 to 3.
    NestedLeaf { leaf: Leaf::new(at, Addr::new(start), size, attr), bytes, level: level as u8 }
}
