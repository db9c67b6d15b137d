//! A virtual EL2's own stage 1, where the hardware cannot walk it: from its addresses to the VM's, by the tables in its memory.
//!
//! The regime is that of an EL2 without VHE: one range of addresses, no EL0, no ASID (Arm ARM D8.2, D24.2 TCR_EL2, SCTLR_EL2). Hardware
//! does not set access flags in it, as the ID registers of such VMs say. Each descriptor is read once, through the VM's memory, so that a
//! table that was merged, packed or swapped comes back. What is found is a leaf, whatever it allows ([`El2Leaf::allows`]), and
//! the descriptor by which the same is allowed to a program at EL0 ([`El2Leaf::descriptor`]), as which such an EL2 runs.

use super::nested_walk::{NestedFault, Reason, Wrong};
use super::{Access, Memory};
use crate::addr::{Addr, Ipa, Va};
use crate::arm::vmsa::{PaRange, TCR_EL2_HPD, granule_of};
use crate::frames::SharedPool;
use crate::machine::Machine;
use aarch64_cpu::registers::{SCTLR_EL2, TCR_EL2};
use tock_registers::register_bitfields;

register_bitfields! {u64,
    /// A descriptor of stage 1 (Arm ARM D8.3).
    STAGE1 [
        /// Of a table: nothing behind it is executed, nothing written.
        XN_TABLE OFFSET(60) NUMBITS(1) [],
        RO_TABLE OFFSET(62) NUMBITS(1) [],
        /// XN of a regime without EL0, UXN of one with.
        XN OFFSET(54) NUMBITS(1) [],
        PXN OFFSET(53) NUMBITS(1) [],
        /// Not global: known by the ASID.
        NG OFFSET(11) NUMBITS(1) [],
        AF OFFSET(10) NUMBITS(1) [],
        SH OFFSET(8) NUMBITS(2) [],
        /// AP[2]: read-only.
        RO OFFSET(7) NUMBITS(1) [],
        /// AP[1]: EL0 may, too.
        EL0 OFFSET(6) NUMBITS(1) [],
        ATTR_INDX OFFSET(2) NUMBITS(3) [],
        TABLE OFFSET(1) NUMBITS(1) [],
        VALID OFFSET(0) NUMBITS(1) [],
    ],
}

/// The registers of the regime, as the hypervisor wrote them, and what the CPU makes of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct El2Regime {
    /// TTBR0_EL2.
    pub ttbr0: u64,
    /// TCR_EL2.
    pub tcr: u64,
    /// SCTLR_EL2.
    pub sctlr: u64,
    /// Bits of a physical address: ID_AA64MMFR0_EL1.PARange.
    pub pa_bits: u32,
    /// FEAT_HPDS: whether TCR_EL2.HPD is one.
    pub has_hpds: bool,
}

/// Where an address leads, and all that leads there alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct El2Leaf {
    /// The IPA of the address.
    pub ipa: Addr<Ipa>,
    /// How many bytes around it have this leaf: a power of two, to which both sides are aligned.
    pub bytes: u64,
    /// Its level.
    pub level: u8,
    /// Whether it may be written.
    pub writes: bool,
    /// Whether it may be executed.
    pub executes: bool,
    /// Which byte of MAIR_EL2 says what memory it is: below 8.
    pub memory: u8,
    /// SH: below 4.
    pub shareability: u8,
}

impl El2Regime {
    /// The same with nothing in it but what decides where an address leads and what may be done there: two that are equal then
    /// translate alike.
    #[must_use]
    pub fn canonical(&self) -> Self {
        let tbi = TCR_EL2::TBI.val(TCR_EL2::TBI.read(self.tcr)).value;
        if !SCTLR_EL2::M.is_set(self.sctlr) {
            return Self { ttbr0: 0, tcr: tbi, sctlr: 0, ..*self };
        }
        let [mut sctlr, mut tcr] = [0, tbi | TCR_EL2_HPD::HPD.val(TCR_EL2_HPD::HPD.read(self.tcr)).value];
        for field in [SCTLR_EL2::M, SCTLR_EL2::WXN, SCTLR_EL2::EE] {
            sctlr |= field.val(field.read(self.sctlr)).value;
        }
        for field in [TCR_EL2::T0SZ, TCR_EL2::TG0, TCR_EL2::PS] {
            tcr |= field.val(field.read(self.tcr)).value;
        }
        Self { tcr, sctlr, ..*self }
    }

    /// The address without its tag (TCR_EL2.TBI).
    pub fn untagged(&self, va: u64) -> u64 {
        let top = if TCR_EL2::TBI.is_set(self.tcr) { 8 } else { 0 };
        va << top >> top
    }
}

impl El2Leaf {
    /// Whether the hypervisor may have this.
    pub const fn allows(&self, access: Access) -> bool {
        match access {
            Access::Read | Access::Maintain => true,
            Access::Write => self.writes,
            Access::Execute => self.executes,
        }
    }

    /// A descriptor of EL1's and EL0's regime that lets EL0 have the same and EL1 execute nothing: all of it but the output address, for
    /// a leaf at level 3 (`is_page`) or above. It is not global, though EL2 has no ASIDs: regimes are told apart by those
    /// ([`super::el2_shadow`]).
    pub fn descriptor(&self, is_page: bool) -> u64 {
        let fields = STAGE1::VALID::SET
            + STAGE1::TABLE.val(is_page.into())
            + STAGE1::ATTR_INDX.val(self.memory.into())
            + STAGE1::EL0::SET
            + STAGE1::RO.val((!self.writes).into())
            + STAGE1::SH.val(self.shareability.into())
            + STAGE1::AF::SET
            + STAGE1::NG::SET
            + STAGE1::PXN::SET
            + STAGE1::XN.val((!self.executes).into());
        fields.value
    }
}

/// Whether a descriptor is one for EL0 alone and for one ASID, as [`El2Leaf::descriptor`] makes them.
pub fn is_for_el0(descriptor: u64) -> bool {
    let is_so = STAGE1::EL0::SET + STAGE1::AF::SET + STAGE1::NG::SET + STAGE1::PXN::SET;
    is_so.matches_all(descriptor)
}

/// The descriptor of a page that EL1 may execute and nobody write or reach from EL0, all of it but the address: memory of MAIR_EL1's byte
/// `memory`, below 8.
pub fn vector_leaf(memory: u64) -> u64 {
    let fields = STAGE1::VALID::SET
        + STAGE1::TABLE::SET
        + STAGE1::ATTR_INDX.val(memory)
        + STAGE1::RO::SET
        + STAGE1::SH.val(0b11)
        + STAGE1::AF::SET
        + STAGE1::XN::SET;
    fields.value
}

/// The descriptor of a page that EL1 may write and nobody execute or reach from EL0: the same otherwise.
pub fn register_leaf(memory: u64) -> u64 {
    vector_leaf(memory) & !STAGE1::RO::SET.value | STAGE1::PXN::SET.value
}

/// Bits 47 to 12: the most that an output address or a table's has without FEAT_LPA.
const ADDRESS: u64 = 0xffff_ffff_f000;
/// The fewest bits of address without FEAT_TTST.
const LEAST_BITS: u32 = 64 - 39;

/// The shape of a walk.
struct Shape {
    /// log2 of the granule.
    granule: u32,
    /// Bits of input.
    bits: u32,
    /// Where it starts.
    level: u32,
    /// Bits of output.
    outputs: u32,
}

impl Shape {
    /// Nothing where the fields are reserved.
    fn of(regime: &El2Regime) -> Option<Self> {
        let granule = granule_of(TCR_EL2::TG0.read(regime.tcr))?;
        // At most 64.
        let bits = 64 - TCR_EL2::T0SZ.read(regime.tcr) as u32;
        if !(LEAST_BITS..=48).contains(&bits) {
            return None;
        }
        let outputs = PaRange::from_mmfr0(TCR_EL2::PS.read(regime.tcr)).bits();
        // 1 to 4 levels, by the limits on `bits`.
        let level = 4 - (bits - granule).div_ceil(granule - 3);
        Some(Self { granule, bits, level, outputs: outputs.min(regime.pa_bits) })
    }

    /// How far an entry's index is shifted at `level`, and log2 of what it spans.
    const fn shift(&self, level: u32) -> u32 {
        self.granule + (3 - level) * (self.granule - 3)
    }

    /// Where the root is, which is aligned to its own size and to 64 bytes.
    fn root(&self, ttbr: u64) -> u64 {
        let bytes = 8_u64 << (self.bits - self.shift(self.level));
        ttbr & 0xffff_ffff_ffff & !(bytes.max(64) - 1)
    }
}

/// A fault at one of levels 0 to 3.
const fn fault<T>(wrong: Wrong, level: u32) -> Result<T, Reason> {
    Err(Reason::Fault(NestedFault { wrong, level: level as u8 }))
}

impl Memory {
    /// The hypervisor's leaf for `va`, which any number may be, whatever that allows.
    pub fn walk_el2<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        regime: &El2Regime,
        va: Addr<Va>,
    ) -> Result<El2Leaf, Reason> {
        let va = regime.untagged(va.bits());
        if !SCTLR_EL2::M.is_set(regime.sctlr) {
            return off(regime, va);
        }
        let Some(shape) = Shape::of(regime) else { return fault(Wrong::Translation, 0) };
        if va >> shape.bits != 0 {
            return fault(Wrong::Translation, 0);
        }
        let mut table = shape.root(regime.ttbr0);
        if table >> shape.outputs != 0 {
            return fault(Wrong::AddressSize, 0);
        }
        let ignores_tables = regime.has_hpds && TCR_EL2_HPD::HPD.is_set(regime.tcr);
        let wxn = SCTLR_EL2::WXN.is_set(regime.sctlr);
        let (mut read_only, mut no_exec) = (false, false);
        // The root's index has all the bits that are left.
        let mut mask = u64::MAX;
        for level in shape.level..=3 {
            let shift = shape.shift(level);
            let desc = self.descriptor(m, pool, regime, table | (va >> shift & mask) << 3, level)?;
            mask = (1 << (shape.granule - 3)) - 1;
            let is_table = STAGE1::TABLE.is_set(desc);
            let has_blocks = level == 2 || level == 1 && shape.granule == 12;
            if !STAGE1::VALID.is_set(desc) || !is_table && !has_blocks {
                return fault(Wrong::Translation, level);
            }
            let output = desc & ADDRESS & !((1 << shape.granule) - 1);
            if output >> shape.outputs != 0 {
                return fault(Wrong::AddressSize, level);
            }
            if is_table && level < 3 {
                read_only |= STAGE1::RO_TABLE.is_set(desc) && !ignores_tables;
                no_exec |= STAGE1::XN_TABLE.is_set(desc) && !ignores_tables;
                table = output;
                continue;
            }
            if !STAGE1::AF.is_set(desc) {
                return fault(Wrong::AccessFlag, level);
            }
            let bytes = 1 << shift;
            let writes = !read_only && !STAGE1::RO.is_set(desc);
            return Ok(El2Leaf {
                ipa: Addr::new(output & !(bytes - 1) | va & (bytes - 1)),
                bytes,
                // 0 to 3; three bits; two.
                level: level as u8,
                writes,
                executes: !(no_exec || STAGE1::XN.is_set(desc) || wxn && writes),
                memory: STAGE1::ATTR_INDX.read(desc) as u8,
                shareability: STAGE1::SH.read(desc) as u8,
            });
        }
        fault(Wrong::Translation, 3)
    }

    /// Reads a descriptor of the hypervisor's, as its tables have their bytes (SCTLR_EL2.EE).
    fn descriptor<M: Machine>(
        &mut self,
        m: &M,
        pool: &SharedPool<'_>,
        regime: &El2Regime,
        at: u64,
        level: u32,
    ) -> Result<u64, Reason> {
        let at = Addr::new(at);
        if !self.is_ram(at, 8) {
            return fault(Wrong::External, level);
        }
        let desc = self.read_word(m, pool, at).map_err(Reason::Miss)?;
        Ok(if SCTLR_EL2::EE.is_set(regime.sctlr) { desc.swap_bytes() } else { desc })
    }
}

/// Stage 1 is off: addresses are the same, as far as there are any (Arm ARM D8.2.10, J1.1 AArch64.S1DisabledOutput).
fn off(regime: &El2Regime, va: u64) -> Result<El2Leaf, Reason> {
    if va >> regime.pa_bits != 0 {
        return fault(Wrong::AddressSize, 0);
    }
    let bytes = 1 << regime.pa_bits;
    Ok(El2Leaf {
        ipa: Addr::new(va),
        bytes,
        level: 0,
        writes: true,
        executes: true,
        memory: 0,
        // Outer shareable, as all Device memory is.
        shareability: 0b10,
    })
}
