//! The ID registers a guest sees: [`IdRegs`], the same promise on every board.
//!
//! An allow-list, field by field: what is not named here reads as 0, so a feature newer than this file is hidden. A field
//! that is named never promises more than the hardware, and never more than what works at EL1 and EL0 without EL2 having
//! to enable, save or emulate something. The values are made once, so that a trapped read is an index.
//!
//! Covered is the space op0 = 3, op1 = 0, CRn = 0, CRm = 1 to 7, which HCR_EL2.TID3 traps (Arm ARM D24.2). AArch32 exists
//! at EL0 at most, and only where the hardware has it there; then its ID registers show the instruction sets.

/// Whether the guest has the GIC CPU interface as system registers (a vGICv3) or in memory (a vGICv2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GicSysRegs {
    /// ICC_*_EL1 exist.
    Present,
    /// They do not.
    Absent,
}

/// How a field of the hardware's becomes the guest's. Fields that no rule names are 0.
#[derive(Clone, Copy)]
enum Rule {
    /// An unsigned field: the hardware's value, at most this one.
    UpTo(u64),
    /// A signed field, 0xF for absent: the hardware's absence, or its value up to this one.
    Signed(u64),
    /// This value, whatever the hardware says.
    Is(u64),
    /// All 64 bits as the hardware has them.
    Whole,
}
use Rule::{Is, Signed, UpTo, Whole};

/// A field: its lowest bit, and its rule. All are four bits wide.
type Field = (u32, Rule);

/// A register: CRm, op2, its fields.
type Register = (u8, u8, &'static [Field]);

/// What AArch64 state promises.
#[rustfmt::skip]
const AARCH64: &[Register] = &[
    // ID_AA64PFR0_EL1
    (4, 0, &[
        (0, UpTo(2)),    // EL0: AArch64, and AArch32 where the hardware has it
        (4, Is(1)),      // EL1: AArch64 alone; HCR_EL2.RW is 1
        (16, Signed(1)), // FP: half precision as the hardware has it
        (20, Signed(1)), // AdvSIMD: likewise
        (48, UpTo(1)),   // DIT: PSTATE.DIT, switched with the rest of PSTATE
        (56, UpTo(1)),   // CSV2: branch targets are not trained across contexts; 2 would promise SCXTNUM_ELx
        (60, UpTo(1)),   // CSV3: no data under a speculative fault
    ]),
    // ID_AA64PFR1_EL1
    (4, 1, &[
        (0, UpTo(1)),    // BT: branch target identification, by SCTLR_EL1.BT and the GP bit of stage 1
        (4, UpTo(2)),    // SSBS: PSTATE.SSBS, and MSR and MRS of it
        (32, UpTo(1)),   // CSV2_frac: as CSV2
    ]),
    // ID_AA64DFR0_EL1: the least an implementation may have; there is no PMU, no trace, no profiling
    (5, 0, &[
        (0, Is(6)),      // DebugVer: Armv8.0 debug
        (12, Is(1)),     // BRPs: two breakpoints
        (20, Is(1)),     // WRPs: two watchpoints
        (36, Is(0xF)),   // DoubleLock: OSDLR_EL1 does nothing
    ]),
    // ID_AA64ISAR0_EL1: instructions alone; TME is not here
    (6, 0, &[
        (4, UpTo(2)),    // AES: with PMULL
        (8, UpTo(1)),    // SHA1
        (12, UpTo(2)),   // SHA2: with SHA512
        (16, UpTo(1)),   // CRC32
        (20, UpTo(3)),   // Atomic: LSE, LSE128
        (28, UpTo(1)),   // RDM: rounding doubling multiply
        (32, UpTo(1)),   // SHA3
        (36, UpTo(1)),   // SM3
        (40, UpTo(1)),   // SM4
        (44, UpTo(1)),   // DP: dot product
        (48, UpTo(1)),   // FHM: FMLAL, FMLSL
        (52, UpTo(2)),   // TS: CFINV, RMIF, AXFLAG
        (56, UpTo(2)),   // TLB: outer shareable and range TLBI, of the guest's own VMID
        (60, UpTo(1)),   // RNDR: random numbers
    ]),
    // ID_AA64ISAR1_EL1: APA, API, GPA, GPI (pointer authentication: keys to switch), XS and LS64 (HCRX_EL2) are not here
    (6, 1, &[
        (0, UpTo(2)),    // DPB: DC CVAP, DC CVADP
        (12, UpTo(1)),   // JSCVT
        (16, UpTo(1)),   // FCMA: complex numbers
        (20, UpTo(3)),   // LRCPC: load-acquire RCpc
        (32, UpTo(1)),   // FRINTTS
        (36, UpTo(1)),   // SB: speculation barrier
        (40, UpTo(2)),   // SPECRES: CFP, DVP, CPP, COSP RCTX
        (44, UpTo(1)),   // BF16: without FPCR.EBF
        (48, UpTo(1)),   // DGH: a hint
        (52, UpTo(1)),   // I8MM
    ]),
    // ID_AA64ISAR2_EL1: WFxT (a trapped WFIT has a deadline of its own), MOPS (HCRX_EL2), APA3, GPA3 are not here
    (6, 2, &[
        (4, UpTo(1)),    // RPRES: 12-bit reciprocal estimates under FPCR.AH
        (20, UpTo(1)),   // BC: conditional branches with a hint
        (28, UpTo(1)),   // CLRBHB: a hint
        (48, UpTo(1)),   // RPRFM: a hint
        (52, UpTo(1)),   // CSSC: ABS, CNT, CTZ, MAX, MIN
    ]),
    // ID_AA64MMFR0_EL1: PARange is set apart; FGT, ECV and the granules of stage 2 are EL2's
    (7, 0, &[
        (4, UpTo(2)),    // ASIDBits: 8 or 16
        (8, UpTo(1)),    // BigEnd: SCTLR_EL1.EE
        (16, UpTo(1)),   // BigEndEL0: SCTLR_EL1.E0E
        (20, UpTo(1)),   // TGran16: without 52 bits
        (24, Signed(0)), // TGran64
        (28, Signed(0)), // TGran4: without 52 bits
        (44, UpTo(1)),   // ExS: SCTLR_EL1.EIS and EOS
    ]),
    // ID_AA64MMFR1_EL1: VMIDBits, VH, LO, XNX, TWED, HCX, TIDCP1 and CMOW are EL2's or touch it
    (7, 1, &[
        (0, UpTo(2)),    // HAFDBS: access and dirty flags of stage 1 by hardware
        (12, UpTo(2)),   // HPDS: hierarchical permissions can be off
        (20, UpTo(3)),   // PAN: up to SCTLR_EL1.EPAN
        (36, UpTo(3)),   // ETS: faults are ordered as walks are
        (44, UpTo(1)),   // AFP: FPCR.AH, FIZ, NEP
        (48, UpTo(1)),   // nTLBPA: no walk is cached by physical address
        (60, UpTo(1)),   // ECBHB: branch history is not trained across contexts
    ]),
    // ID_AA64MMFR2_EL1: NV, FWB and EVT are EL2's; IESB goes with RAS
    (7, 2, &[
        (0, UpTo(1)),    // CnP: translations shared by the CPUs of one VM
        (4, UpTo(1)),    // UAO
        (8, UpTo(1)),    // LSM: SCTLR_EL1.LSMAOE, nTLSMD
        (16, UpTo(1)),   // VARange: 52-bit addresses with the 64 KiB granule
        (20, UpTo(1)),   // CCIDX: the format of CCSIDR_EL1, which is read without a trap
        (28, UpTo(1)),   // ST: small translation tables
        (32, UpTo(1)),   // AT: unaligned accesses within 16 bytes are atomic
        (36, UpTo(1)),   // IDS: ID registers report EC 0x18 where they trap
        (48, UpTo(1)),   // TTL: TLBI may name the level
        (52, UpTo(2)),   // BBM: block sizes may change with fewer breaks
        (60, UpTo(1)),   // E0PD: TCR_EL1.E0PD
    ]),
];

/// What AArch32 at EL0 promises. EL1 of AArch32 is absent, and so is all that ID_PFR1_EL1 would say of it.
#[rustfmt::skip]
const AARCH32: &[Register] = &[
    // ID_PFR0_EL1: the instruction sets, CSV2 and DIT
    (1, 0, &[(0, UpTo(15)), (4, UpTo(15)), (8, UpTo(15)), (12, UpTo(15)), (16, UpTo(1)), (24, UpTo(1))]),
    // ID_PFR1_EL1: the generic timer
    (1, 1, &[(16, UpTo(1))]),
    // ID_DFR0_EL1: CopDbg as DebugVer
    (1, 2, &[(0, Is(6))]),
    // ID_MMFR0_EL1 to ID_MMFR3_EL1: no field is EL2's
    (1, 4, &[(0, Whole)]), (1, 5, &[(0, Whole)]), (1, 6, &[(0, Whole)]), (1, 7, &[(0, Whole)]),
    // ID_ISAR0_EL1 to ID_ISAR5_EL1: instructions alone
    (2, 0, &[(0, Whole)]), (2, 1, &[(0, Whole)]), (2, 2, &[(0, Whole)]),
    (2, 3, &[(0, Whole)]), (2, 4, &[(0, Whole)]), (2, 5, &[(0, Whole)]),
    // ID_MMFR4_EL1: CnP, HPDS, LSM, CCIDX
    (2, 6, &[(12, UpTo(1)), (16, UpTo(2)), (20, UpTo(1)), (24, UpTo(1))]),
    // ID_ISAR6_EL1: JSCVT, DP, FHM, SB, SPECRES, BF16, I8MM, CLRBHB
    (2, 7, &[
        (0, UpTo(1)), (4, UpTo(1)), (8, UpTo(1)), (12, UpTo(1)),
        (16, UpTo(2)), (20, UpTo(1)), (24, UpTo(1)), (28, UpTo(1)),
    ]),
    // MVFR0_EL1 to MVFR2_EL1: floating point and SIMD
    (3, 0, &[(0, Whole)]), (3, 1, &[(0, Whole)]), (3, 2, &[(0, Whole)]),
    // ID_PFR2_EL1: CSV3, SSBS
    (3, 4, &[(0, UpTo(1)), (4, UpTo(1))]),
    // ID_MMFR5_EL1: ETS, nTLBPA
    (3, 6, &[(0, UpTo(3)), (4, UpTo(1))]),
];

/// The physical address sizes of ID_AA64MMFR0_EL1.PARange, in bits.
const PA_BITS: [u8; 7] = [32, 36, 40, 42, 44, 48, 52];

/// The ID registers as guests see them.
#[derive(Clone, Debug)]
pub struct IdRegs {
    values: [u64; 64],
}

impl IdRegs {
    /// Makes them from the hardware's, which `raw(crm, op2)` reads. `ipa_bits` is how many bits of IPA stage 2 offers:
    /// PARange is the greatest size that neither it nor the hardware exceeds (at least 32 bits, the least there is).
    pub fn new(raw: impl Fn(u8, u8) -> u64, gic: GicSysRegs, ipa_bits: u8) -> Self {
        let mut made = Self { values: [0; 64] };
        made.apply(AARCH64, &raw);
        if made.get(4, 0) & 0xF == 2 {
            made.apply(AARCH32, &raw);
        }
        if gic == GicSysRegs::Present {
            // GIC: the CPU interface of GICv3 and v4; v4.1 would promise what only a hypervisor uses.
            *made.at(4, 0) |= 1 << 24;
        }
        let hardware = raw(7, 0) & 0xF;
        let offered = PA_BITS.iter().rposition(|&bits| bits <= ipa_bits).unwrap_or(0) as u64;
        *made.at(7, 0) |= hardware.min(offered);
        made
    }

    /// The register with these numbers; those without a name are 0. Both count modulo 8; CRm 0 (MIDR_EL1 and its kin) is
    /// not ours and reads as 0.
    pub const fn get(&self, crm: u8, op2: u8) -> u64 {
        self.values[((crm & 7) << 3 | op2 & 7) as usize]
    }

    fn at(&mut self, crm: u8, op2: u8) -> &mut u64 {
        &mut self.values[usize::from((crm & 7) << 3 | op2 & 7)]
    }

    fn apply(&mut self, registers: &[Register], raw: &impl Fn(u8, u8) -> u64) {
        for &(crm, op2, fields) in registers {
            let hardware = raw(crm, op2);
            *self.at(crm, op2) = fields.iter().fold(0, |value, &(low, rule)| value | present(hardware, low, rule));
        }
    }
}

/// The field at `low` by its rule, in its place.
const fn present(hardware: u64, low: u32, rule: Rule) -> u64 {
    let field = hardware >> low & 0xF;
    let value = match rule {
        Whole => return hardware,
        Is(value) => value,
        UpTo(most) | Signed(most) if field < most => field,
        Signed(_) if field >= 8 => 0xF,
        UpTo(most) | Signed(most) => most,
    };
    value << low
}

#[cfg(test)]
mod tests {
    use super::{AARCH32, AARCH64, GicSysRegs, IdRegs};

    fn field(value: u64, low: u32) -> u64 {
        value >> low & 0xF
    }

    /// A Cortex-A72 as in the BCM2711: Armv8.0 with AArch32 everywhere.
    fn cortex_a72(crm: u8, op2: u8) -> u64 {
        match (crm, op2) {
            (1, 0) => 0x131,
            (1, 1) => 0x1_0011,
            (1, 2) => 0x0301_0066,
            (2, 5) => 0x1_0001,
            (4, 0) => 0x2222,
            (5, 0) => 0x1030_5106,
            (6, 0) => 0x1_0000,
            (7, 0) => 0x1124,
            _ => 0,
        }
    }

    #[test]
    fn a_cortex_a72_is_shown_without_its_el2_its_pmu_and_aarch32_at_el1() {
        let regs = IdRegs::new(cortex_a72, GicSysRegs::Absent, 40);
        assert_eq!(regs.get(4, 0), 0x0012);
        assert_eq!(regs.get(5, 0), 0xF0_0010_1006);
        assert_eq!(regs.get(6, 0), 0x1_0000);
        assert_eq!(regs.get(7, 0), 0x0122);
        assert_eq!(regs.get(1, 0), 0x131);
        assert_eq!(regs.get(1, 1), 0x1_0000);
        assert_eq!(regs.get(1, 2), 6);
        assert_eq!(regs.get(2, 5), 0x1_0001);
    }

    #[test]
    fn a_core_that_has_everything_is_shown_what_needs_no_el2() {
        let regs = IdRegs::new(|_, _| 0x7777_7777_7777_7777, GicSysRegs::Present, 48);
        for (hidden, low) in [("EL2", 8), ("EL3", 12), ("RAS", 28), ("SVE", 32), ("MPAM", 40), ("AMU", 44), ("RME", 52)]
        {
            assert_eq!(field(regs.get(4, 0), low), 0, "{hidden}");
        }
        assert_eq!(field(regs.get(4, 0), 24), 1, "the GIC registers are there");
        for (hidden, low) in [("MTE", 8), ("SME", 24), ("NMI", 36), ("GCS", 44)] {
            assert_eq!(field(regs.get(4, 1), low), 0, "{hidden}");
        }
        for (hidden, low) in [("trace", 4), ("PMU", 8), ("SPE", 32), ("TRBE", 44), ("BRBE", 52)] {
            assert_eq!(field(regs.get(5, 0), low), 0, "{hidden}");
        }
        for low in [4, 8, 24, 28, 60] {
            assert_eq!(field(regs.get(6, 1), low), 0, "pointer authentication and LS64");
        }
        for low in [0, 8, 12, 16] {
            assert_eq!(field(regs.get(6, 2), low), 0, "WFxT, pointer authentication and MOPS");
        }
        assert_eq!(field(regs.get(6, 0), 24), 0, "TME");
        assert_eq!(field(regs.get(7, 0), 0), 5, "48 bits are offered");
        assert_eq!(field(regs.get(7, 2), 24), 0, "NV");
        assert_eq!((regs.get(7, 3), regs.get(7, 4), regs.get(4, 4), regs.get(4, 5)), (0, 0, 0, 0));
    }

    #[test]
    fn a_core_without_fp_or_aarch32_is_not_shown_them() {
        let bare = |crm, op2| if (crm, op2) == (4, 0) { 0xFF_0011 } else { 0x1111_1111 };
        let regs = IdRegs::new(bare, GicSysRegs::Absent, 36);
        assert_eq!(regs.get(4, 0), 0xFF_0011);
        for op2 in 0..8 {
            assert_eq!([regs.get(1, op2), regs.get(2, op2), regs.get(3, op2)], [0; 3]);
        }
    }

    #[test]
    fn pa_range_is_the_lesser_of_hardware_and_stage_2() {
        for (hardware, ipa_bits, shown) in [(5, 40, 2), (2, 48, 2), (4, 39, 1), (6, 52, 6), (0, 48, 0), (5, 31, 0)] {
            let regs = IdRegs::new(|_, _| hardware, GicSysRegs::Absent, ipa_bits);
            assert_eq!(field(regs.get(7, 0), 0), shown);
        }
    }

    #[test]
    fn each_register_and_each_field_is_named_once() {
        let mut seen = [0u64; 64];
        for &(crm, op2, fields) in AARCH64.iter().chain(AARCH32) {
            let at = &mut seen[usize::from(crm * 8 + op2)];
            assert_eq!(*at, 0, "register {crm} {op2}");
            for &(low, _) in fields {
                assert!(low % 4 == 0 && *at >> low & 0xF == 0, "field {low} of {crm} {op2}");
                *at |= 0xF << low;
            }
        }
    }
}
