//! Geometry of stage 2 with the 4 KiB granule: levels, start level, concatenated roots, VTCR_EL2 and VTTBR_EL2.
//!
//! [`Geometry`] says how many bits an input address has and at which [`Level`] the walk starts. A table has 512
//! descriptors, the root is up to 16 tables that lie next to each other (concatenated), which saves a whole level where
//! the input has up to four bits more than the level resolves. With 40 bits the walk starts at level 1 with two root
//! tables: three loads to a page, two to a block, and leaves of 4 KiB, 2 MiB and 1 GiB all exist.
//!
//! Follows Arm ARM D8.2 (sizes, levels, concatenation), D24.2 (VTCR_EL2, VTTBR_EL2, ID_AA64MMFR0_EL1).

use crate::addr::{Addr, Pa, Size, Vmid};
use crate::arm::idreg::field::{self, mmfr1};
use aarch64_cpu::registers::{VTCR_EL2, VTTBR_EL2};
use tock_registers::register_bitfields;

register_bitfields! {u64,
    /// Of TCR_EL2 without VHE, what aarch64-cpu lacks.
    pub(crate) TCR_EL2_HPD [
        /// TBI is for data only.
        TBID OFFSET(29) NUMBITS(1) [],
        /// Attributes of tables are ignored (FEAT_HPDS).
        HPD OFFSET(24) NUMBITS(1) [],
    ],
}

/// Descriptors in one 4 KiB table.
pub const ENTRIES: u64 = 512;

/// The most tables a root may be made of.
pub const MAX_ROOT_TABLES: u64 = 16;

/// The most bits of an output address without FEAT_LPA2.
const MAX_BITS: u32 = 48;

/// The address bits of the granule that TG0 says, in TCR_EL1, TCR_EL2 and VTCR_EL2 alike; nothing where it is reserved.
#[inline(always)]
pub const fn granule_of(tg0: u64) -> Option<u32> {
    match tg0 {
        0 => Some(12),
        1 => Some(16),
        2 => Some(14),
        _ => None,
    }
}

/// A level of the walk. The number grows towards the leaves, as in the Arm ARM.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Level {
    /// 512 GiB for each descriptor; tables only.
    L0,
    /// 1 GiB for each descriptor.
    L1,
    /// 2 MiB for each descriptor.
    L2,
    /// 4 KiB for each descriptor; leaves only.
    L3,
}

impl Level {
    /// How many levels there can be: the bound of every walk.
    pub const COUNT: usize = 4;

    /// The bits of the input address below what this level resolves.
    pub const fn shift(self) -> u32 {
        match self {
            Self::L0 => 39,
            Self::L1 => 30,
            Self::L2 => 21,
            Self::L3 => 12,
        }
    }

    /// The bytes one descriptor of this level speaks for.
    pub const fn span(self) -> u64 {
        1 << self.shift()
    }

    /// The size of a leaf at this level, where there can be one.
    pub const fn leaf(self) -> Option<Size> {
        match self {
            Self::L0 => None,
            Self::L1 => Some(Size::Giant),
            Self::L2 => Some(Size::Block),
            Self::L3 => Some(Size::Page),
        }
    }

    /// The level whose leaves have this size.
    pub const fn of(size: Size) -> Self {
        match size {
            Size::Giant => Self::L1,
            Size::Block => Self::L2,
            Size::Page => Self::L3,
        }
    }

    /// The level that a table descriptor here leads to.
    pub const fn next(self) -> Option<Self> {
        match self {
            Self::L0 => Some(Self::L1),
            Self::L1 => Some(Self::L2),
            Self::L2 => Some(Self::L3),
            Self::L3 => None,
        }
    }

    /// The index of `input` in its table of this level; for a root see [`Geometry::root_index`].
    pub const fn index(self, input: u64) -> u64 {
        (input >> self.shift()) % ENTRIES
    }

    /// The number the Arm ARM gives the level.
    pub const fn number(self) -> u8 {
        match self {
            Self::L0 => 0,
            Self::L1 => 1,
            Self::L2 => 2,
            Self::L3 => 3,
        }
    }
}

/// How many bits of physical address the CPUs have: ID_AA64MMFR0_EL1.PARange.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PaRange(u8);

impl PaRange {
    /// Takes the field from the value of ID_AA64MMFR0_EL1, or from PS of TCR_EL2 or VTCR_EL2, which counts alike. Boards take the
    /// least of all their CPUs.
    pub const fn from_mmfr0(value: u64) -> Self {
        // Four bits, so the cast keeps them all.
        Self((value & 0xf) as u8)
    }

    /// The bits of a physical address that stage 2 may put out. More than 48 need FEAT_LPA2, which is not used.
    pub const fn bits(self) -> u32 {
        match self.0 {
            0 => 32,
            1 => 36,
            2 => 40,
            3 => 42,
            4 => 44,
            _ => MAX_BITS,
        }
    }

    /// The widest range whose addresses all fit into `bits`: what a guest with that many bits of IPA may be told. Fewer
    /// than 32 bits do not exist.
    pub const fn within(bits: u32) -> Self {
        Self(match bits {
            0..=35 => 0,
            36..=39 => 1,
            40..=41 => 2,
            42..=43 => 3,
            44..=47 => 4,
            _ => 5,
        })
    }

    /// What guests are told on CPUs with this: what all their stage 2s translate, whatever memory they have
    /// ([`Geometry::fitting`]).
    pub fn of_guests(self) -> Self {
        Geometry::fitting(0, self).map_or(self, |geometry| Self::within(geometry.bits()))
    }

    /// The field as it stands in ID_AA64MMFR0_EL1.PARange, with what needs FEAT_LPA2 taken back to 48 bits.
    pub const fn field(self) -> u64 {
        // From an octet, so it fits.
        (if self.0 > 5 { 5 } else { self.0 }) as u64
    }
}

/// How many bits a VMID has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VmidBits {
    /// 255 VMs beside number 0.
    Eight,
    /// 65 535 VMs beside number 0 (FEAT_VMID16).
    Sixteen,
}

impl VmidBits {
    /// Reads ID_AA64MMFR1_EL1.VMIDBits from the register's value.
    pub const fn from_mmfr1(value: u64) -> Self {
        if field::read(value, mmfr1::VMIDBITS) == 2 { Self::Sixteen } else { Self::Eight }
    }

    /// How many numbers there are, 0 included.
    pub const fn numbers(self) -> u32 {
        match self {
            Self::Eight => 1 << 8,
            Self::Sixteen => 1 << 16,
        }
    }
}

/// The shape of one stage-2 tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    bits: u32,
    start: Level,
}

impl Geometry {
    /// The shape for inputs of `bits` bits, started as low as concatenation allows; nothing outside 32 to 48.
    pub const fn of_bits(bits: u32) -> Option<Self> {
        let start = match bits {
            32..=34 => Level::L2,
            35..=43 => Level::L1,
            44..=MAX_BITS => Level::L0,
            _ => return None,
        };
        Some(Self { bits, start })
    }

    /// The shape for a guest whose RAM and devices end at `end` (exclusive), on CPUs with `range`; nothing where the
    /// guest needs more than the CPUs can translate (the manifest is to blame).
    ///
    /// Takes one of the sizes that PARange can name, so that the guest may be told exactly what it has, and 40 bits
    /// wherever that is enough: it costs no more loads than 36 and leaves room for devices above RAM. 32 bits would
    /// save one more level, but there are no 1 GiB leaves then; it is for CPUs that have no more.
    pub fn fitting(end: u64, range: PaRange) -> Option<Self> {
        const NAMED: [u32; 6] = [40, 42, 44, 48, 36, 32];
        let fits = |bits: u32| bits <= range.bits() && end <= 1 << bits;
        NAMED.into_iter().find(|&bits| fits(bits)).and_then(Self::of_bits)
    }

    /// The bits of an input address.
    pub const fn bits(self) -> u32 {
        self.bits
    }

    /// The first input address that is too big.
    pub const fn limit(self) -> u64 {
        1 << self.bits
    }

    /// The level at which the walk starts.
    pub const fn start(self) -> Level {
        self.start
    }

    /// How many tables the root is made of: a power of two, 1 to [`MAX_ROOT_TABLES`]. The root is aligned to its size.
    pub const fn root_tables(self) -> u64 {
        let one = self.start.shift() + 9;
        if self.bits > one { 1 << (self.bits - one) } else { 1 }
    }

    /// The index of `input` among all descriptors of the root, or nothing where `input` is too big.
    #[inline(always)]
    pub const fn root_index(self, input: u64) -> Option<u64> {
        if input >> self.bits == 0 { Some(input >> self.start.shift()) } else { None }
    }

    /// The value of VTCR_EL2: 4 KiB granule, tables walked as write-back inner-shareable memory (as EL2 writes them),
    /// no hardware update of access flags.
    pub fn vtcr(self, range: PaRange, vmids: VmidBits) -> u64 {
        let start = match self.start {
            Level::L0 => VTCR_EL2::SL0::Granule4KBLevel0,
            Level::L1 => VTCR_EL2::SL0::Granule4KBLevel1,
            Level::L2 | Level::L3 => VTCR_EL2::SL0::Granule4KBLevel2,
        };
        let width = match vmids {
            VmidBits::Eight => VTCR_EL2::VS::Bits8,
            VmidBits::Sixteen => VTCR_EL2::VS::Bits16,
        };
        (VTCR_EL2::RES1::SET
            + width
            + VTCR_EL2::PS.val(range.field())
            + VTCR_EL2::TG0::Granule4KB
            + VTCR_EL2::SH0::Inner
            + VTCR_EL2::ORGN0::NormalWBRAWA
            + VTCR_EL2::IRGN0::NormalWBRAWA
            + start
            + VTCR_EL2::T0SZ.val(u64::from(64 - self.bits)))
        .value
    }
}

/// The value of VTTBR_EL2 for a tree at `root` under `vmid`. CnP stays clear: CPUs pass through VMID changes one by one.
pub fn vttbr(root: Addr<Pa>, vmid: Vmid) -> u64 {
    (VTTBR_EL2::VMID.val(u64::from(vmid.0)) + VTTBR_EL2::BADDR.val(root.bits() >> 1)).value
}

#[cfg(test)]
mod tests {
    use super::{Geometry, Level, PaRange, VmidBits, vttbr};
    use crate::addr::{Addr, Vmid};

    const A72: PaRange = PaRange::from_mmfr0(0x1124);

    #[test]
    fn forty_bits_are_two_root_tables_at_level_1() {
        let shape = Geometry::fitting(0x2_0000_0000, A72).unwrap();
        assert_eq!((shape.bits(), shape.start(), shape.root_tables()), (40, Level::L1, 2));
        assert_eq!(Geometry::of_bits(39).unwrap().root_tables(), 1);
    }

    #[test]
    fn guests_are_told_what_their_stage_2_translates() {
        for (field, told) in [(0, 0), (1, 1), (2, 2), (3, 2), (4, 2), (5, 2), (6, 2)] {
            let range = PaRange::from_mmfr0(field);
            assert_eq!(range.of_guests().field(), told, "{field}");
            // A manifest's most memory behind the devices' 1 GiB, or the most that such a CPU has.
            let end = (256_u64 << 30).min(1 << range.bits());
            for end in [0x4020_0000, end] {
                assert_eq!(Geometry::fitting(end, range).unwrap().bits(), range.of_guests().bits());
            }
        }
    }

    #[test]
    fn a_root_has_up_to_sixteen_tables() {
        for bits in 32..=48 {
            let shape = Geometry::of_bits(bits).unwrap();
            let tables = shape.root_tables();
            assert!((1..=16).contains(&tables));
            assert_eq!(shape.root_index(shape.limit()), None);
            assert!(shape.root_index(shape.limit() - 1).unwrap() < tables * 512);
        }
        assert_eq!(Geometry::of_bits(31), None);
        assert_eq!(Geometry::of_bits(49), None);
    }

    #[test]
    fn a_guest_beyond_the_cpus_is_refused() {
        assert_eq!(Geometry::fitting(1 << 45, A72), None);
        assert_eq!(Geometry::fitting(1 << 33, PaRange::from_mmfr0(0)), None);
        assert_eq!(Geometry::fitting(1 << 32, PaRange::from_mmfr0(0)).unwrap().root_tables(), 4);
        assert_eq!(Geometry::fitting(1 << 43, PaRange::from_mmfr0(6)).unwrap().start(), Level::L0);
    }

    #[test]
    fn what_a_guest_is_told_of_its_range_fits_its_table() {
        for bits in 32..=48 {
            assert!(PaRange::within(bits).bits() <= bits);
        }
        assert_eq!(PaRange::within(40).field(), 2);
    }

    #[test]
    fn registers_have_the_values_worked_out_by_hand() {
        let shape = Geometry::of_bits(40).unwrap();
        // RES1, PS = 44 bits, SH0 inner, ORGN0 and IRGN0 write-back, SL0 = 1, T0SZ = 24.
        assert_eq!(shape.vtcr(A72, VmidBits::Eight), 0x8004_3558);
        assert_eq!(shape.vtcr(A72, VmidBits::Sixteen), 0x800c_3558);
        assert_eq!(vttbr(Addr::new(0x4_0000_2000), Vmid(0xabcd)), 0xabcd_0004_0000_2000);
    }
}
