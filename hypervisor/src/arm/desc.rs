//! Descriptors: what the 64 bits of a table entry mean, at stage 2 (ours) and stage 1 (a guest's, for reading only).
//!
//! A stage-2 descriptor is the one record of its page, valid or not. Valid: [`Desc::Leaf`] with its [`Attr`], or
//! [`Desc::Table`]. Invalid: [`Desc::Hole`], whose [`Hole`] says where the contents are. The hardware looks at bit 0 of
//! an invalid descriptor alone; the others are used so:
//!
//! ```text
//!  63              24 23      8 7     2 1 0
//! ┌──────────────────┬─────────┬───────┬───┐
//! │ payload          │ check   │ kind  │0 0│     64 kinds, 40 bits of payload, 16 to check it by
//! └──────────────────┴─────────┴───────┴───┘
//! ```
//!
//! Follows Arm ARM D8.3 (formats), D8.4 (S2AP, XN), D8.6 (MemAttr, SH), D8.6.6 (FEAT_S2FWB).

use crate::arm::vmsa::Level;
use core::ops::{BitAnd, BitOr};

const VALID: u64 = 1 << 0;
const TABLE: u64 = 1 << 1;
const MEM_ATTR: u32 = 2;
const READ: u64 = 1 << 6;
const WRITE: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 0b11 << 8;
const ACCESSED: u64 = 1 << 10;
const NO_EXEC: u64 = 1 << 54;
const SOFTWARE: u32 = 55;
/// Bits 47 to 12: the output address or the next table.
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// The four bits that are left to software in a valid descriptor. The hardware neither reads nor caches them, so they
/// alone may change without a break.
pub const SOFTWARE_BITS: u64 = 0xf << SOFTWARE;

/// Whether the hardware takes this descriptor for valid.
pub const fn is_valid(word: u64) -> bool {
    word & VALID != 0
}

/// What may be done with a page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rights(u8);

impl Rights {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Reading.
    pub const R: Self = Self(1);
    /// Writing.
    pub const W: Self = Self(2);
    /// Fetching instructions.
    pub const X: Self = Self(4);
    /// Reading and writing: what a device gets.
    pub const RW: Self = Self(3);
    /// Reading and fetching instructions.
    pub const RX: Self = Self(5);
    /// Everything: what RAM gets.
    pub const RWX: Self = Self(7);

    /// Whether all of `wanted` is allowed.
    pub const fn allows(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }
}

impl BitAnd for Rights {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitOr for Rights {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The memory type stage 2 asks for. The stricter one is the lesser, as the hardware combines the stages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MemType {
    /// Device-nGnRE.
    Device,
    /// Normal, not cacheable.
    NonCacheable,
    /// Normal write-back where stage 1 says so too. For HCR_EL2.FWB clear.
    Normal,
    /// Normal write-back whatever stage 1 says. Only for HCR_EL2.FWB set (FEAT_S2FWB).
    Forced,
}

impl MemType {
    const fn field(self) -> u64 {
        match self {
            Self::Device => 0b0001,
            Self::NonCacheable => 0b0101,
            Self::Normal => 0b1111,
            Self::Forced => 0b0110,
        }
    }

    /// Values we never write read as the next stricter type.
    const fn from_field(field: u64) -> Self {
        match field & 0xf {
            0b1111 => Self::Normal,
            0b0110 => Self::Forced,
            0b0000..=0b0011 => Self::Device,
            _ => Self::NonCacheable,
        }
    }
}

/// Four bits of a valid descriptor that are ours.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Marks(u8);

impl Marks {
    /// None set.
    pub const NONE: Self = Self(0);
    /// The frame may be named by other leaves, too, and is copied before it is written.
    pub const SHARED: Self = Self(1);
    /// The frame is not the table's: it is neither given back with it nor changed through it.
    pub const KEPT: Self = Self(2);

    /// These bits; only the low four exist.
    pub const fn new(bits: u8) -> Self {
        Self(bits & 0xf)
    }

    /// The bits.
    pub const fn bits(self) -> u8 {
        self.0
    }
}

/// What a valid leaf says beside the address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Attr {
    /// The memory type.
    pub mem: MemType,
    /// What the guest may do.
    pub rights: Rights,
    /// Our own bits.
    pub marks: Marks,
    /// The access flag: without it an access faults, and the leaf is in no TLB (Arm ARM D8.4.5). Set, but for pages whose
    /// next use is to be noticed.
    pub accessed: bool,
}

impl Attr {
    /// A guest's RAM: write-back, everything allowed.
    pub const RAM: Self = Self { mem: MemType::Normal, rights: Rights::RWX, marks: Marks::NONE, accessed: true };
    /// A device handed through: nGnRE, no instructions from it.
    pub const DEVICE: Self = Self { mem: MemType::Device, rights: Rights::RW, ..Self::RAM };

    /// What both allow, of the stricter type. Marks belong to one table and are not handed on.
    pub fn common(self, other: Self) -> Self {
        Self {
            mem: self.mem.min(other.mem),
            rights: self.rights & other.rights,
            marks: Marks::NONE,
            accessed: self.accessed && other.accessed,
        }
    }

    /// Whether the frame may be named by other leaves, too.
    pub const fn is_shared(self) -> bool {
        self.marks.0 & Marks::SHARED.0 != 0
    }
}

/// What an invalid descriptor says about its page (or block, or more: it speaks for the whole span of its level).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Hole {
    /// Never touched, or no RAM at all. The word 0, so that a zeroed table is a table of these.
    Absent,
    /// Given back by the guest.
    Ballooned,
    /// Full of zeroes, held nowhere.
    Zero,
    /// Compressed, in this slot.
    Packed(u32),
    /// Written out, to this block of the swap area; with 16 bits of the contents' hash.
    Swapped(u32, u16),
    /// Lost: a machine error, or a word that nobody here has written.
    Poisoned,
}

impl Hole {
    /// Whether the same hole may stand for every part of its span: one without a place of its own.
    pub const fn is_divisible(self) -> bool {
        !matches!(self, Self::Packed(_) | Self::Swapped(..))
    }

    /// The descriptor.
    pub fn encode(self) -> u64 {
        let (kind, payload, check) = match self {
            Self::Absent => (0, 0, 0),
            Self::Ballooned => (1, 0, 0),
            Self::Zero => (2, 0, 0),
            Self::Packed(slot) => (3, slot, 0),
            Self::Swapped(block, check) => (4, block, check),
            Self::Poisoned => (63, 0, 0),
        };
        kind << 2 | u64::from(check) << 8 | u64::from(payload) << 24
    }

    fn decode(word: u64) -> Self {
        // The payload's upper eight bits are never set by `encode`; one that has them is not ours.
        let payload = u32::try_from(word >> 24);
        match (word & 0xff_ffff, payload) {
            (0x00, Ok(0)) => Self::Absent,
            (0x04, Ok(0)) => Self::Ballooned,
            (0x08, Ok(0)) => Self::Zero,
            (0x0c, Ok(slot)) => Self::Packed(slot),
            (low, Ok(block)) if low & 0xff == 0x10 => Self::Swapped(block, (low >> 8) as u16),
            _ => Self::Poisoned,
        }
    }
}

/// A stage-2 descriptor, decoded. Addresses are bare numbers here; `stage2` gives them their space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Desc {
    /// Nothing the hardware could use.
    Hole(Hole),
    /// The next table lies at this physical address.
    Table(u64),
    /// A page or block: the output address, aligned to the level's span.
    Leaf(u64, Attr),
}

impl Desc {
    /// Decodes a descriptor found at `level`. What the architecture reserves (a block at level 0, a block at level 3)
    /// faults in hardware as an invalid descriptor does, and reads as poisoned.
    pub fn decode(word: u64, level: Level) -> Self {
        if !is_valid(word) {
            return Self::Hole(Hole::decode(word));
        }
        let leaf = || Self::Leaf(word & ADDRESS & !(level.span() - 1), attr(word));
        match (word & TABLE != 0, level) {
            (true, Level::L3) | (false, Level::L1 | Level::L2) => leaf(),
            (true, _) => Self::Table(word & ADDRESS),
            (false, Level::L0 | Level::L3) => Self::Hole(Hole::Poisoned),
        }
    }

    /// The word to write at `level`. There are no leaves at level 0: one would come out poisoned.
    pub fn encode(self, level: Level) -> u64 {
        match self {
            Self::Hole(hole) => hole.encode(),
            Self::Table(next) => next & ADDRESS | TABLE | VALID,
            Self::Leaf(_, _) if level == Level::L0 => Hole::Poisoned.encode(),
            Self::Leaf(output, attr) => {
                let page = if level == Level::L3 { TABLE } else { 0 };
                output & ADDRESS | attr_bits(attr) | page | VALID
            }
        }
    }
}

fn attr(word: u64) -> Attr {
    let read = if word & READ != 0 { Rights::R.0 } else { 0 };
    let write = if word & WRITE != 0 { Rights::W.0 } else { 0 };
    let fetch = if word & NO_EXEC == 0 { Rights::X.0 } else { 0 };
    Attr {
        mem: MemType::from_field(word >> MEM_ATTR),
        rights: Rights(read | write | fetch),
        // Masked to four bits by the constructor; what the cast drops is above them.
        marks: Marks::new((word >> SOFTWARE & 0xf) as u8),
        accessed: word & ACCESSED != 0,
    }
}

/// SH is inner shareable for RAM; for a device the hardware ignores it.
fn attr_bits(attr: Attr) -> u64 {
    let bit = |right: Rights, bit: u64| if attr.rights.allows(right) { bit } else { 0 };
    attr.mem.field() << MEM_ATTR
        | bit(Rights::R, READ)
        | bit(Rights::W, WRITE)
        | if attr.rights.allows(Rights::X) { 0 } else { NO_EXEC }
        | INNER_SHAREABLE
        | if attr.accessed { ACCESSED } else { 0 }
        | u64::from(attr.marks.0) << SOFTWARE
}

/// A stage-1 descriptor as a crash report needs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage1 {
    /// Invalid or reserved.
    Fault,
    /// The next table's address.
    Table(u64),
    /// A leaf; its output address, with `shift` low bits clear.
    Leaf(u64),
}

impl Stage1 {
    /// Decodes a stage-1 descriptor of a granule with `granule` address bits, at the level with the architecture's number
    /// `level`, where one descriptor resolves `shift` low bits. Reads 48-bit output addresses.
    pub const fn decode(word: u64, granule: u32, level: u8, shift: u32) -> Self {
        let table = word & TABLE != 0;
        // Arm ARM table D8-14: blocks at levels 1 and 2 of 4 KiB, at level 2 of 16 and 64 KiB.
        let block = level == 2 || level == 1 && granule == 12;
        let whole = word & 0x0000_ffff_ffff_ffff;
        match (is_valid(word), table) {
            (true, true) if level < 3 => Self::Table(whole >> granule << granule),
            (true, true) => Self::Leaf(whole >> shift << shift),
            (true, false) if block => Self::Leaf(whole >> shift << shift),
            _ => Self::Fault,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Attr, Desc, Hole, Marks, MemType, Rights, Stage1, is_valid};
    use crate::arm::vmsa::Level;

    #[test]
    fn bits_that_are_left_to_software_are_those_of_the_book() {
        // Arm ARM D8.3.2: bits 58 to 55.
        assert_eq!(super::SOFTWARE_BITS, 0x0780_0000_0000_0000);
    }

    #[test]
    fn leaves_have_the_words_worked_out_by_hand() {
        let ram = Desc::Leaf(0x8000_0000, Attr::RAM);
        // AF, inner shareable, S2AP read and write, MemAttr write-back, block.
        assert_eq!(ram.encode(Level::L2), 0x8000_07fd);
        assert_eq!(ram.encode(Level::L3), 0x8000_07ff);
        assert_eq!(Desc::Leaf(0x0804_0000, Attr::DEVICE).encode(Level::L3), 0x0040_0000_0804_07c7);
        assert_eq!(Desc::Table(0x1000).encode(Level::L1), 0x1003);
        assert_eq!(Desc::Hole(Hole::Absent).encode(Level::L3), 0);
    }

    #[test]
    fn every_attribute_comes_back() {
        for mem in [MemType::Device, MemType::NonCacheable, MemType::Normal, MemType::Forced] {
            for bits in 0..128 {
                let marks = Marks::new(bits >> 3);
                let attr = Attr { mem, rights: Rights(bits & 7), marks, accessed: bits % 3 != 0 };
                for level in [Level::L1, Level::L2, Level::L3] {
                    let leaf = Desc::Leaf(0x7fff_c000_0000, attr);
                    assert_eq!(Desc::decode(leaf.encode(level), level), leaf);
                }
            }
        }
    }

    #[test]
    fn holes_come_back_and_are_never_valid() {
        let holes = [
            Hole::Absent,
            Hole::Ballooned,
            Hole::Zero,
            Hole::Packed(u32::MAX),
            Hole::Swapped(1, 0xffff),
            Hole::Packed(0),
            Hole::Poisoned,
        ];
        for hole in holes {
            assert!(!is_valid(hole.encode()));
            assert_eq!(Desc::decode(hole.encode(), Level::L2), Desc::Hole(hole));
        }
        assert_eq!(Desc::decode(1 << 40, Level::L3), Desc::Hole(Hole::Poisoned));
    }

    #[test]
    fn reserved_encodings_are_no_leaves() {
        assert_eq!(Desc::decode(0x1001, Level::L3), Desc::Hole(Hole::Poisoned));
        assert_eq!(Desc::decode(0x1001, Level::L0), Desc::Hole(Hole::Poisoned));
        assert_eq!(Desc::Leaf(0, Attr::RAM).encode(Level::L0), Hole::Poisoned.encode());
    }

    #[test]
    fn the_common_of_two_is_the_stricter() {
        let device = Attr::RAM.common(Attr::DEVICE);
        assert_eq!((device.mem, device.rights), (MemType::Device, Rights::RW));
    }

    #[test]
    fn blocks_of_stage_1_are_at_the_levels_that_a_granule_has_them_at() {
        const OUTPUT: u64 = 0x1234_5678_9000;
        for (granule, level, shift, has_blocks) in [
            (12, 1, 30, true),
            (12, 2, 21, true),
            (12, 0, 39, false),
            (12, 3, 12, false),
            (14, 1, 36, false),
            (14, 2, 25, true),
            (14, 3, 14, false),
            (16, 1, 42, false),
            (16, 2, 29, true),
            (16, 3, 16, false),
        ] {
            let what = alloc::format!("granule {granule}, level {level}");
            let leaf = Stage1::Leaf(OUTPUT >> shift << shift);
            let block = Stage1::decode(OUTPUT & !0x3 | 1, granule, level, shift);
            assert_eq!(block, if has_blocks { leaf } else { Stage1::Fault }, "{what}");
            let table = Stage1::decode(OUTPUT | 3, granule, level, shift);
            assert_eq!(table, if level == 3 { leaf } else { Stage1::Table(OUTPUT >> granule << granule) }, "{what}");
            assert_eq!(
                [0, 2].map(|low| Stage1::decode(OUTPUT | low, granule, level, shift)),
                [Stage1::Fault; 2],
                "{what}"
            );
        }
    }
}
