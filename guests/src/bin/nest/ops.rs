//! Instructions as words, for programs of guests.

/// HVC.
pub(crate) const fn hvc(immediate: u32) -> u32 {
    0xd400_0002 | immediate << 5
}

/// SMC.
pub(crate) const fn smc(immediate: u32) -> u32 {
    0xd400_0003 | immediate << 5
}

/// SVC.
pub(crate) const fn svc(immediate: u32) -> u32 {
    0xd400_0001 | immediate << 5
}

/// A system register, or an instruction of that space: op0, op1, CRn, CRm, op2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sys(pub(crate) u32, pub(crate) u32, pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl Sys {
    const fn bits(self) -> u32 {
        self.0 << 19 | self.1 << 16 | self.2 << 12 | self.3 << 8 | self.4 << 5
    }

    /// MRS.
    pub(crate) const fn mrs(self, rt: u32) -> u32 {
        0xd520_0000 | self.bits() | rt
    }

    /// MSR, or SYS.
    pub(crate) const fn msr(self, rt: u32) -> u32 {
        0xd500_0000 | self.bits() | rt
    }

    /// What ESR says of an access that was trapped (class 0x18).
    pub(crate) const fn iss(self, rt: u32, read: bool) -> u64 {
        (self.0 << 20 | self.4 << 17 | self.1 << 14 | self.2 << 10 | rt << 5 | self.3 << 1 | read as u32) as u64
    }
}

/// NOP.
pub(crate) const NOP: u32 = 0xd503_201f;
/// WFI.
pub(crate) const WFI: u32 = 0xd503_207f;
/// WFE.
pub(crate) const WFE: u32 = 0xd503_205f;
/// SEVL.
pub(crate) const SEVL: u32 = 0xd503_20bf;
/// ISB.
pub(crate) const ISB: u32 = 0xd503_3fdf;
/// DSB SY.
pub(crate) const DSB: u32 = 0xd503_3f9f;
/// ERET.
pub(crate) const ERET: u32 = 0xd69f_03e0;
/// UDF #0.
pub(crate) const UDF: u32 = 0;
/// BRK #1.
pub(crate) const BRK: u32 = 0xd420_0020;
/// B . (to itself)
pub(crate) const SPIN: u32 = 0x1400_0000;
/// MOV x0, sp
pub(crate) const MOV_X0_SP: u32 = 0x9100_03e0;
/// FMOV d0, xzr
pub(crate) const FMOV: u32 = 0x9e67_03e0;
/// MSR DAIFClr, #2
pub(crate) const UNMASK: u32 = 0xd503_42ff;
/// MSR DAIFClr, #7: SError, interrupts, FIQs
pub(crate) const UNMASK_ALL: u32 = 0xd503_47ff;

/// LDR xT, [xN]
pub(crate) const fn ldr(t: u32, n: u32) -> u32 {
    0xf940_0000 | n << 5 | t
}

/// STR xT, [xN]
pub(crate) const fn str(t: u32, n: u32) -> u32 {
    0xf900_0000 | n << 5 | t
}

/// BLR xN
pub(crate) const fn blr(n: u32) -> u32 {
    0xd63f_0000 | n << 5
}

/// ADD xD, xN, #immediate
pub(crate) const fn add(d: u32, n: u32, immediate: u32) -> u32 {
    0x9100_0000 | immediate << 10 | n << 5 | d
}
