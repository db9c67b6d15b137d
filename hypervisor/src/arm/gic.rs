//! GIC formats: register offsets of GICD and GICR, list registers, ICH_HCR_EL2/GICH_HCR, what an SGI register asks for.
//!
//! Follows IHI 0048B (GICv2: section 4.3 distributor, 5.3 virtual interface control) and IHI 0069H (GICv3: 12.9 to
//! 12.11 GICD and GICR, 12.4 ICH_*). Where both versions agree, one constant serves both. [`ListRegister`] is a list register
//! in words; [`ListRegister::v2`] and [`ListRegister::v3`] write it as the hardware wants it.

use crate::addr::{IntId, VcpuId};
use aarch64_cpu::registers::ICH_VTR_EL2;
use tock_registers::register_bitfields;

register_bitfields! {u64,
    /// `ICH_LR<n>_EL2` (IHI 0069H 12.4.9).
    ICH_LR [
        ACTIVE OFFSET(63) NUMBITS(1) [],
        PENDING OFFSET(62) NUMBITS(1) [],
        HW OFFSET(61) NUMBITS(1) [],
        GROUP1 OFFSET(60) NUMBITS(1) [],
        PRIORITY OFFSET(48) NUMBITS(8) [],
        /// Without HW.
        EOI OFFSET(41) NUMBITS(1) [],
        /// With HW.
        PINTID OFFSET(32) NUMBITS(13) [],
        VINTID OFFSET(0) NUMBITS(32) [],
    ],
    /// ICC_SGI0R_EL1, ICC_SGI1R_EL1, ICC_ASGI1R_EL1 (IHI 0069H 12.2.20).
    SGIR [
        AFF3 OFFSET(48) NUMBITS(8) [],
        /// Range selector.
        RS OFFSET(44) NUMBITS(4) [],
        /// To all others.
        IRM OFFSET(40) NUMBITS(1) [],
        AFF2 OFFSET(32) NUMBITS(8) [],
        INTID OFFSET(24) NUMBITS(4) [],
        AFF1 OFFSET(16) NUMBITS(8) [],
        /// A bit per Aff0.
        LIST OFFSET(0) NUMBITS(16) [],
    ],
}

register_bitfields! {u32,
    /// `GICH_LR<n>` (IHI 0048B 5.3.13).
    GICH_LR [
        HW OFFSET(31) NUMBITS(1) [],
        GROUP1 OFFSET(30) NUMBITS(1) [],
        ACTIVE OFFSET(29) NUMBITS(1) [],
        PENDING OFFSET(28) NUMBITS(1) [],
        PRIORITY OFFSET(23) NUMBITS(5) [],
        /// Without HW.
        EOI OFFSET(19) NUMBITS(1) [],
        /// With HW.
        PINTID OFFSET(10) NUMBITS(10) [],
        /// Without HW: who sent an SGI.
        CPUID OFFSET(10) NUMBITS(3) [],
        VINTID OFFSET(0) NUMBITS(10) [],
    ],
}

/// Which GIC architecture: decides the register views and the format of list registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// GICv2: banked distributor, memory-mapped CPU interface, at most 8 CPUs.
    V2,
    /// GICv3: affinity routing, redistributors, CPU interface in system registers.
    V3,
}

/// Offsets within the distributor, in bytes. Those with one field per interrupt are the first of an array.
pub mod gicd {
    /// Enables of the groups; DS and ARE on GICv3.
    pub const CTLR: u64 = 0x000;
    /// What there is.
    pub const TYPER: u64 = 0x004;
    /// Who made it.
    pub const IIDR: u64 = 0x008;
    /// Group: the first of the arrays with a bit per interrupt, each 0x80 bytes.
    pub const IGROUPR: u64 = 0x080;
    /// Pending, set: first of the four arrays that say what goes on now, not what is configured.
    pub const ISPENDR: u64 = 0x200;
    /// Priorities: a byte per interrupt.
    pub const IPRIORITYR: u64 = 0x400;
    /// Targets (GICv2): a byte per interrupt.
    pub const ITARGETSR: u64 = 0x800;
    /// Level or edge: two bits per interrupt.
    pub const ICFGR: u64 = 0xc00;
    /// The end of the configuration array.
    pub const ICFGR_END: u64 = 0xd00;
    /// Sends a software-generated interrupt (GICv2).
    pub const SGIR: u64 = 0xf00;
    /// Clears SGIs' pending sources (GICv2): a byte per SGI, a bit per source.
    pub const CPENDSGIR: u64 = 0xf10;
    /// Sets SGIs' pending sources (GICv2).
    pub const SPENDSGIR: u64 = 0xf20;
    /// The end of the SGI source registers.
    pub const SPENDSGIR_END: u64 = 0xf30;
    /// Routes (GICv3): 64 bits per interrupt, counted from INTID 0, of which the first 32 are reserved.
    pub const IROUTER: u64 = 0x6000;
    /// The end of the routes.
    pub const IROUTER_END: u64 = 0x7fe0;

    /// CTLR: Group 0 is forwarded.
    pub const CTLR_GRP0: u32 = 1 << 0;
    /// CTLR: Group 1 is forwarded.
    pub const CTLR_GRP1: u32 = 1 << 1;
    /// CTLR (GICv3, one security state): affinity routing.
    pub const CTLR_ARE: u32 = 1 << 4;
    /// CTLR (GICv3): security is disabled.
    pub const CTLR_DS: u32 = 1 << 6;
    /// TYPER (GICv3): Aff3 may be non-zero.
    pub const TYPER_A3V: u32 = 1 << 24;
    /// TYPER (GICv3): an SPI cannot be routed to any one of the CPUs.
    pub const TYPER_NO1N: u32 = 1 << 25;
}

/// Offsets within a redistributor's two frames, in bytes.
pub mod gicr {
    /// Control: nothing to control without LPIs.
    pub const CTLR: u64 = 0x0000;
    /// Who made it.
    pub const IIDR: u64 = 0x0004;
    /// Whose redistributor this is, 64 bits.
    pub const TYPER: u64 = 0x0008;
    /// Power state of the CPU interface.
    pub const WAKER: u64 = 0x0014;
    /// Where the frame of private interrupts starts; laid out as the distributor.
    pub const SGI_FRAME: u64 = 0x1_0000;
    /// The bytes of one redistributor.
    pub const SIZE: u64 = 0x2_0000;

    /// TYPER: the last of a row of redistributors.
    pub const TYPER_LAST: u64 = 1 << 4;
    /// WAKER: the CPU asks to sleep.
    pub const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
    /// WAKER: the interface sleeps.
    pub const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;
}

/// Offsets in GICH (IHI 0048B 5.3).
#[allow(missing_docs)]
pub mod gich {
    pub const HCR: u64 = 0x00;
    pub const VTR: u64 = 0x04;
    pub const VMCR: u64 = 0x08;
    pub const MISR: u64 = 0x10;
    pub const EISR0: u64 = 0x20;
    pub const ELRSR0: u64 = 0x30;
    pub const APR: u64 = 0xf0;
    pub const LR: u64 = 0x100;
}

/// Control of the virtual CPU interface: ICH_HCR_EL2 and GICH_HCR agree on these bits.
pub mod hcr {
    /// The virtual CPU interface works.
    pub const EN: u32 = 1 << 0;
    /// Maintenance interrupt when at most one list register is valid.
    pub const UIE: u32 = 1 << 1;
    /// Maintenance interrupt when an interrupt was ended that is in no list register (EOIcount is not zero).
    pub const LRENPIE: u32 = 1 << 2;
    /// Maintenance interrupt when no list register is pending.
    pub const NPIE: u32 = 1 << 3;
    /// Maintenance interrupt while Group 0 is on in the virtual CPU interface; two bits further, the same for Group 1.
    pub const VGRP0EIE: u32 = 1 << 4;
    /// Maintenance interrupt while Group 0 is off in the virtual CPU interface; two bits further, the same for Group 1.
    pub const VGRP0DIE: u32 = 1 << 5;
    /// Traps what both groups have in common (ICH_HCR_EL2 only).
    pub const TC: u32 = 1 << 10;
    /// Traps what is Group 0's alone (ICH_HCR_EL2 only).
    pub const TALL0: u32 = 1 << 11;
    /// Traps what is Group 1's alone (ICH_HCR_EL2 only).
    pub const TALL1: u32 = 1 << 12;
    /// Traps writes of ICC_DIR_EL1 (ICH_HCR_EL2 only).
    pub const TDIR: u32 = 1 << 14;
    /// Where EOIcount starts: ends of interrupts found in no list register, 5 bits.
    pub const EOI_COUNT_SHIFT: u32 = 27;
}

/// Size of the priority field below which nothing is kept: 5 bits, as every list register has at least.
pub const PRIORITY_BITS: u8 = 0xf8;

/// The affinity of a vCPU as MPIDR_EL1 has it: Aff3 in bits 31:24 down to Aff0 in 7:0. Sixteen to a cluster, because
/// that is how many one write of ICC_SGI1R_EL1 can name.
pub const fn affinity(vcpu: VcpuId) -> u32 {
    // At most 16 bits come in, so nothing is lost.
    (vcpu.0 / 16 % 256) as u32 * 256 + (vcpu.0 % 16) as u32
}

/// The vCPU with this affinity, the inverse of [`affinity`]; nothing where there can be none.
pub const fn vcpu_at(affinity: u32) -> Option<VcpuId> {
    if affinity & 0xffff_00f0 != 0 {
        return None;
    }
    // Below 0x1000 by the mask above.
    Some(VcpuId(((affinity >> 8) * 16 + (affinity & 15)) as u16))
}

/// The virtual CPU interface's state besides the list registers.
#[derive(Clone, Debug, Default)]
pub struct Interface {
    /// ICH_VMCR_EL2 or GICH_VMCR.
    pub vmcr: u64,
    /// `ICH_AP0R<n>_EL2`.
    pub ap0r: [u32; 4],
    /// `ICH_AP1R<n>_EL2`; the first is GICH_APR on GICv2.
    pub ap1r: [u32; 4],
}

/// How many active-priority registers there are for each group, by ICH_VTR_EL2 (PREbits).
pub fn active_registers(vtr: u64) -> usize {
    match ICH_VTR_EL2::PREbits.read(vtr) {
        0..=4 => 1,
        5 => 2,
        _ => 4,
    }
}

/// One interrupt in a list register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ListRegister {
    /// What the guest sees.
    pub intid: u32,
    /// 0 is the most urgent; the low 3 bits are lost.
    pub priority: u8,
    /// Group 1 rather than Group 0.
    pub group1: bool,
    /// Waits to be taken.
    pub pending: bool,
    /// Taken, not yet deactivated.
    pub active: bool,
    /// The physical interrupt that is deactivated together with this one.
    pub physical: Option<u16>,
    /// Maintenance interrupt when it has been deactivated; not with `physical`.
    pub eoi: bool,
    /// The CPU that sent it: SGIs of GICv2 only, 0 to 7.
    pub source: u8,
}

impl ListRegister {
    /// As an `ICH_LR<n>_EL2`.
    pub fn v3(self) -> u64 {
        let tail = match self.physical {
            Some(physical) => ICH_LR::HW::SET + ICH_LR::PINTID.val(physical.into()),
            None => ICH_LR::EOI.val(self.eoi.into()),
        };
        let fields = tail
            + ICH_LR::VINTID.val(self.intid.into())
            + ICH_LR::PRIORITY.val(self.priority.into())
            + ICH_LR::GROUP1.val(self.group1.into())
            + ICH_LR::PENDING.val(self.pending.into())
            + ICH_LR::ACTIVE.val(self.active.into());
        fields.value
    }

    /// From an `ICH_LR<n>_EL2`.
    pub fn from_v3(bits: u64) -> Self {
        let hw = ICH_LR::HW.is_set(bits);
        Self {
            // The casts keep fields of 32, 8 and 13 bits.
            intid: ICH_LR::VINTID.read(bits) as u32,
            priority: ICH_LR::PRIORITY.read(bits) as u8,
            group1: ICH_LR::GROUP1.is_set(bits),
            pending: ICH_LR::PENDING.is_set(bits),
            active: ICH_LR::ACTIVE.is_set(bits),
            physical: hw.then_some(ICH_LR::PINTID.read(bits) as u16),
            eoi: !hw && ICH_LR::EOI.is_set(bits),
            source: 0,
        }
    }

    /// As a `GICH_LR<n>`.
    pub fn v2(self) -> u32 {
        let tail = match self.physical {
            Some(physical) => GICH_LR::HW::SET + GICH_LR::PINTID.val(physical.into()),
            None => GICH_LR::EOI.val(self.eoi.into()) + GICH_LR::CPUID.val(self.source.into()),
        };
        let fields = tail
            + GICH_LR::VINTID.val(self.intid)
            + GICH_LR::PRIORITY.val((self.priority >> 3).into())
            + GICH_LR::GROUP1.val(self.group1.into())
            + GICH_LR::PENDING.val(self.pending.into())
            + GICH_LR::ACTIVE.val(self.active.into());
        fields.value
    }

    /// From a `GICH_LR<n>`.
    pub fn from_v2(bits: u32) -> Self {
        let hw = GICH_LR::HW.is_set(bits);
        Self {
            intid: GICH_LR::VINTID.read(bits),
            // The casts keep fields of 5, 10 and 3 bits.
            priority: GICH_LR::PRIORITY.read(bits) as u8 * 8,
            group1: GICH_LR::GROUP1.is_set(bits),
            pending: GICH_LR::PENDING.is_set(bits),
            active: GICH_LR::ACTIVE.is_set(bits),
            physical: hw.then_some(GICH_LR::PINTID.read(bits) as u16),
            eoi: !hw && GICH_LR::EOI.is_set(bits),
            source: if hw { 0 } else { GICH_LR::CPUID.read(bits) as u8 },
        }
    }
}

/// What a virtual CPU interface lets through at this moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mask {
    /// Only priorities below this number (more urgent) pass.
    pub priority: u8,
    /// Bit 0: Group 0 passes; bit 1: Group 1 does.
    pub groups: u8,
}

impl Mask {
    /// From ICH_VMCR_EL2.
    pub const fn from_ich_vmcr(vmcr: u64) -> Self {
        // Fields of 8 and 2 bits.
        Self { priority: (vmcr >> 24) as u8, groups: vmcr as u8 & 3 }
    }

    /// From GICH_VMCR, which keeps the upper 5 bits of the priority.
    pub const fn from_gich_vmcr(vmcr: u32) -> Self {
        // Fields of 5 and 2 bits.
        Self { priority: (vmcr >> 27) as u8 * 8, groups: vmcr as u8 & 3 }
    }
}

/// The registers that send an SGI on GICv3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SgiRegister {
    /// ICC_SGI0R_EL1: Group 0.
    Sgi0r,
    /// ICC_SGI1R_EL1: Group 1 of the sender's security state.
    Sgi1r,
    /// ICC_ASGI1R_EL1: Group 1 of the other security state, which with one state is Group 0's place.
    Asgi1r,
}

/// What a write of ICC_SGI0R_EL1, ICC_SGI1R_EL1 or ICC_ASGI1R_EL1 asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sgi {
    /// Which, 0 to 15.
    pub intid: IntId,
    /// To whom.
    pub to: SgiTargets,
}

/// To whom an SGI goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SgiTargets {
    /// To everybody but the sender.
    Others,
    /// Within one cluster (Aff3.Aff2.Aff1), to those whose Aff0 is a set bit.
    Cluster {
        /// Aff3 in bits 23:16 down to Aff1 in 7:0.
        cluster: u32,
        /// A bit per Aff0.
        list: u16,
    },
    /// To nobody: a range selector that this GIC does not have (GICD_TYPER.RSS is 0).
    Nobody,
}

impl Sgi {
    /// Decodes the value written.
    pub fn from_register(value: u64) -> Self {
        // All casts keep fields of at most 24 bits.
        let intid = IntId(SGIR::INTID.read(value) as u32);
        let to = if SGIR::IRM.is_set(value) {
            SgiTargets::Others
        } else if SGIR::RS.read(value) != 0 {
            SgiTargets::Nobody
        } else {
            let cluster = SGIR::AFF3.read(value) << 16 | SGIR::AFF2.read(value) << 8 | SGIR::AFF1.read(value);
            SgiTargets::Cluster { cluster: cluster as u32, list: SGIR::LIST.read(value) as u16 }
        };
        Self { intid, to }
    }
}

#[cfg(test)]
mod tests {
    use super::{ListRegister, Mask, Sgi, SgiTargets, affinity, vcpu_at};
    use crate::addr::{IntId, VcpuId};

    #[test]
    fn list_registers_have_the_bits_of_the_books() {
        let sgi =
            ListRegister { intid: 5, priority: 0xa0, pending: true, source: 3, eoi: true, ..ListRegister::default() };
        assert_eq!(sgi.v2(), 0x1000_0000 | 0x14 << 23 | 1 << 19 | 3 << 10 | 5);
        let timer = ListRegister { intid: 27, priority: 0x80, active: true, group1: true, physical: Some(27), ..sgi };
        assert_eq!(timer.v3(), 0xf080_001b_0000_001b);
        let level = ListRegister { intid: 33, priority: 8, active: true, eoi: true, ..ListRegister::default() };
        assert_eq!(level.v3(), 0x8008_0200_0000_0021);
        for entry in [sgi, level] {
            assert_eq!(ListRegister::from_v2(entry.v2()), entry);
        }
        assert_eq!(ListRegister::from_v3(level.v3()), level);
        assert_eq!(ListRegister::from_v3(timer.v3()).physical, Some(27));
    }

    #[test]
    fn what_an_interface_lets_through_is_in_its_control_register() {
        for (groups, priority) in (0..4).flat_map(|groups| [0, 0x80, 0xf8].map(|priority| (groups, priority))) {
            let mask = Mask { priority, groups };
            // VENG0 and VENG1 or VMGrp0En and VMGrp1En; VBPR, VCBPR, VEOIM and the like are not of it.
            assert_eq!(Mask::from_ich_vmcr(u64::from(priority) << 24 | 0xff_fffc | u64::from(groups)), mask);
            assert_eq!(Mask::from_gich_vmcr(u32::from(priority) << 24 | 0x7ff_fffc | u32::from(groups)), mask);
        }
    }

    #[test]
    fn an_affinity_leads_back_to_its_vcpu() {
        for id in 0..64 {
            assert_eq!(vcpu_at(affinity(VcpuId(id))), Some(VcpuId(id)));
        }
        assert_eq!(affinity(VcpuId(17)), 0x101);
        assert_eq!(vcpu_at(0x10), None);
        assert_eq!(vcpu_at(0x0001_0000), None);
    }

    #[test]
    fn sgi_writes_name_a_cluster_or_everybody_else() {
        let list = Sgi::from_register(0x0700_0000 | 1 << 16 | 0x8001);
        assert_eq!(list, Sgi { intid: IntId(7), to: SgiTargets::Cluster { cluster: 1, list: 0x8001 } });
        assert_eq!(Sgi::from_register(1 << 40).to, SgiTargets::Others);
        assert_eq!(Sgi::from_register(1 << 44 | 1).to, SgiTargets::Nobody);
    }
}
