//! Virtual EL2 on a CPU without FEAT_NV: what EL1's registers are while it runs as a program at EL0.
//!
//! There every privileged instruction of its is UNDEFINED and comes to us ([`crate::arm::a64`]). What is not privileged has to be as at
//! EL2, by EL1's controls over EL0: that is what is here. Its addresses are translated by a shadow of its own stage 1
//! ([`crate::memory::el2_shadow`]), by way of TTBR0_EL1; the upper range has one page of ours, the exception vectors of EL1, by which all
//! that EL0 raises comes to EL2.

use crate::addr::VcpuId;
use crate::arm::el1::SCTLR_RES1;
use crate::arm::trap::cptr;
use crate::arm::vncr::{CPTR_RESET, SCTLR_RESET};
use crate::memory::el2_vectors::{self, UPPER_BITS};
use aarch64_cpu::registers::{CNTKCTL_EL1, CPACR_EL1, SCTLR_EL1, SCTLR_EL2, TCR_EL1, TCR_EL2};

/// Whether a byte of MAIR_ELx is for Normal memory: Device memory has nothing in the upper half (Arm ARM D24.2.108).
const fn is_normal(kind: u8) -> bool {
    kind & 0xf0 != 0
}

/// Whether a byte of MAIR_ELx is for Normal memory that is write-back cacheable, inner and outer, as EL2 has it.
const fn is_write_back(kind: u8) -> bool {
    const fn is_so(half: u8) -> bool {
        // 0b01RW, RW not 0, and 0b11RW.
        half & 0b100 != 0 && half != 0b100
    }
    is_so(kind >> 4) && is_so(kind & 0xf)
}

/// An access that EL1 does for virtual EL2, and what that goes on with afterwards.
#[derive(Clone, Copy, Debug)]
pub struct InterfaceAccess {
    /// PC of the instruction, and PSTATE there.
    pub pc: u64,
    /// See [`Self::pc`].
    pub pstate: u64,
    /// X0, which the access takes.
    pub x0: u64,
    /// The register that it is read into.
    pub reads_into: Option<u8>,
}

/// What there is of a virtual EL2 at EL0 besides its registers.
#[derive(Clone, Debug)]
pub struct El0 {
    /// PSTATE.SP of virtual EL2: whether its stack pointer is SP_EL2. What it has is in SP_EL0 on the CPU while it runs.
    pub own_stack: bool,
    /// An access to its interrupt interface that EL1 does for it just now.
    pub access: Option<InterfaceAccess>,
    /// An instruction, and where, that was UNDEFINED and is tried once more.
    pub undefined: Option<(u64, u32)>,
    /// The vCPU's number, by which EL1's vectors have its page, if they do accesses to that.
    pub(super) vcpu: Option<VcpuId>,
    /// TTBR1_EL1: the tables of the vectors.
    pub(super) ttbr1: u64,
    /// ID_AA64MMFR0_EL1.PARange of the CPU.
    pub(super) pa_range: u64,
}

impl El0 {
    /// As after a reset, with the vectors by these tables, which have the page of `vcpu`, if they do accesses to it. `pa_range` is what
    /// ID_AA64MMFR0_EL1 says of the CPU.
    pub const fn new(ttbr1: u64, vcpu: Option<VcpuId>, pa_range: u64) -> Self {
        Self { own_stack: true, access: None, undefined: None, vcpu, ttbr1, pa_range }
    }

    /// The same after a reset.
    #[must_use]
    pub const fn reset(&self) -> Self {
        Self::new(self.ttbr1, self.vcpu, self.pa_range)
    }
}

/// The registers of a virtual EL2 that EL1's follow from, as it wrote them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct El2State {
    /// SCTLR_EL2.
    pub sctlr: u64,
    /// TCR_EL2.
    pub tcr: u64,
    /// MAIR_EL2.
    pub mair: u64,
    /// CPTR_EL2.
    pub cptr: u64,
}

impl El2State {
    /// After a reset.
    pub const RESET: Self = Self { sctlr: SCTLR_RESET, tcr: 0, mair: 0, cptr: CPTR_RESET };

    /// SCTLR_EL1. PSTATE.DAIF, cache maintenance by address, DC ZVA and CTR_EL0 are EL0's, as they are EL2's; WFI and WFE are for EL2's own
    /// controls to trap. Alignment and byte order are as EL2 has them. Caches are never off: that is for [`Self::mair_el1`] to say, as walks of
    /// shadow tables are to see what is in caches (Arm ARM D24.2.174, C).
    pub fn sctlr_el1(&self) -> u64 {
        let fields = SCTLR_EL1::M::Enable
            + SCTLR_EL1::C::Cacheable
            + SCTLR_EL1::A.val(SCTLR_EL2::A.read(self.sctlr))
            + SCTLR_EL1::SA0.val(SCTLR_EL2::SA.read(self.sctlr))
            + SCTLR_EL1::UMA::DontTrap
            + SCTLR_EL1::I.val(SCTLR_EL2::I.read(self.sctlr))
            + SCTLR_EL1::DZE::DontTrap
            + SCTLR_EL1::UCT::DontTrap
            + SCTLR_EL1::NTWI::DontTrap
            + SCTLR_EL1::NTWE::DontTrap
            + SCTLR_EL1::E0E.val(SCTLR_EL2::EE.read(self.sctlr))
            + SCTLR_EL1::UCI::DontTrap;
        fields.value | SCTLR_RES1
    }

    /// TCR_EL1: 48 bits of 4 KiB below, whatever EL2's are, and the vectors above. Walks are cacheable, as our stores to the tables are.
    /// `pa_range` is what ID_AA64MMFR0_EL1 says of the CPU.
    pub fn tcr_el1(&self, pa_range: u64) -> u64 {
        let lower = TCR_EL1::T0SZ.val(16)
            + TCR_EL1::IRGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable
            + TCR_EL1::ORGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable
            + TCR_EL1::SH0::Inner
            + TCR_EL1::TG0::KiB_4
            + TCR_EL1::TBI0.val(TCR_EL2::TBI.read(self.tcr));
        let upper = TCR_EL1::T1SZ.val((64 - UPPER_BITS).into())
            + TCR_EL1::IRGN1::WriteBack_ReadAlloc_WriteAlloc_Cacheable
            + TCR_EL1::ORGN1::WriteBack_ReadAlloc_WriteAlloc_Cacheable
            + TCR_EL1::SH1::Inner
            + TCR_EL1::TG1::KiB_4;
        (lower + upper + TCR_EL1::IPS.val(pa_range)).value
    }

    /// VBAR_EL1: the vectors as Normal memory, of the first kind that is that.
    pub fn vbar_el1(&self) -> u64 {
        let kinds = self.mair_el1().to_le_bytes();
        // Below 8.
        el2_vectors::vectors(kinds.iter().position(|kind| is_normal(*kind)).unwrap_or(0) as u8)
    }

    /// VBAR_EL1 and SP_EL1 for vectors that do accesses to the page of `vcpu`. EL2 has that page in caches, so this takes memory of that kind;
    /// nothing where there is none.
    pub fn register_vectors(&self, vcpu: VcpuId) -> Option<(u64, u64)> {
        // Below 8.
        let kind = self.mair_el1().to_le_bytes().iter().position(|kind| is_write_back(*kind))? as u8;
        Some((el2_vectors::register_vectors(kind), el2_vectors::registers(kind, vcpu)?))
    }

    /// MAIR_EL1: EL2's; where its MMU or its caches are off, what it has as Normal is not cacheable. With its MMU off all of its memory is of
    /// the first kind, Normal: EL2's own data would be Device then, which differs in nothing that a program relies on but in what is
    /// forbidden.
    pub fn mair_el1(&self) -> u64 {
        const NON_CACHEABLE: u64 = 0x44;
        // Without any Normal memory it has nothing to run from, nor have we.
        if !SCTLR_EL2::M.is_set(self.sctlr) || !self.mair.to_le_bytes().into_iter().any(is_normal) {
            return NON_CACHEABLE;
        }
        if SCTLR_EL2::C.is_set(self.sctlr) {
            return self.mair;
        }
        let kinds = self.mair.to_le_bytes().map(|kind| if is_normal(kind) { NON_CACHEABLE as u8 } else { kind });
        u64::from_le_bytes(kinds)
    }

    /// CPACR_EL1: FP is EL0's, unless EL2 traps its own.
    pub fn cpacr_el1(&self) -> u64 {
        if self.cptr & cptr::TFP != 0 { 0 } else { CPACR_EL1::FPEN::TrapNothing.value }
    }

    /// CNTKCTL_EL1: EL0 reads the counters. Timers come to us: those of EL1's are its guest's.
    pub fn cntkctl_el1() -> u64 {
        (CNTKCTL_EL1::EL0VCTEN::SET + CNTKCTL_EL1::EL0PCTEN::SET).value
    }
}
