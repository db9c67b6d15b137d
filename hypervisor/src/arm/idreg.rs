//! The ID registers that guests see: what each field promises, field by field.
//!
//! A field is shown only if the guest can use the feature without help from EL2, or if Flatland gives that help; all
//! others read as "not implemented" and their instructions and registers trap. So a guest sees the same kind of CPU on
//! every board, and a feature that a later CPU adds stays hidden until somebody adds it here (Arm ARM D24.2, ID_*).

pub mod field;

use field::{dfr0, isar0, isar1, isar2, mmfr0, mmfr1, mmfr2, pfr0, pfr1};

/// What to do with a 4-bit field of the CPU's own value.
#[derive(Clone, Copy)]
enum Field {
    /// As the CPU has it: the feature's state is EL1's or EL0's own, which is switched or needs none.
    Raw(u32),
    /// As the CPU has it, but no newer than this level.
    AtMost(u32, u64),
    /// This value, whatever the CPU has.
    Fixed(u32, u64),
}

use Field::{AtMost, Fixed, Raw};

/// ID_AA64PFR0_EL1. EL0 as it is (AArch32 applications run), EL1 in AArch64 only, no EL2, no EL3; FP, SIMD, DIT; the first
/// level of CSV2 (later ones need SCXTNUM_EL1) and CSV3. Hidden: RAS, SVE, MPAM, AMU, secure EL2, realms.
const AA64PFR0: &[Field] = &[
    Raw(pfr0::EL0),
    Fixed(pfr0::EL1, 1),
    Raw(pfr0::FP),
    Raw(pfr0::ADVSIMD),
    Raw(pfr0::DIT),
    AtMost(pfr0::CSV2, 1),
    Raw(pfr0::CSV3),
];
/// ID_AA64PFR1_EL1: BTI and SSBS, which live in PSTATE and SCTLR_EL1. Hidden: MTE, SME, GCS, NMI and what is new.
const AA64PFR1: &[Field] = &[Raw(pfr1::BT), AtMost(pfr1::SSBS, 2)];
/// ID_AA64DFR0_EL1: the Armv8.0 debug architecture, with as many breakpoints, context-aware ones and watchpoints as the CPU
/// has and a vCPU has room for ([`super::debug`]). Hidden: PMU, SPE, trace, buffers.
const AA64DFR0: &[Field] = &[
    Fixed(dfr0::DEBUGVER, 6),
    AtMost(dfr0::BRPS, 5),
    AtMost(dfr0::WRPS, 3),
    AtMost(dfr0::CTX_CMPS, 5),
    Raw(dfr0::DOUBLELOCK),
];
/// ID_AA64ISAR0_EL1: instructions without state: AES, SHA1, SHA2, CRC32, LSE, RDM, SHA3, SM3, SM4, DP, FHM, flag
/// manipulation, TLBI ranges, RNDR. Hidden: transactions.
const AA64ISAR0: &[Field] = &[
    Raw(isar0::AES),
    Raw(isar0::SHA1),
    Raw(isar0::SHA2),
    Raw(isar0::CRC32),
    Raw(isar0::ATOMIC),
    Raw(isar0::RDM),
    Raw(isar0::SHA3),
    Raw(isar0::SM3),
    Raw(isar0::SM4),
    Raw(isar0::DP),
    Raw(isar0::FHM),
    Raw(isar0::TS),
    Raw(isar0::TLB),
    Raw(isar0::RNDR),
];
/// ID_AA64ISAR1_EL1: DPB, JSCVT, FCMA, LRCPC, FRINTTS, SB, SPECRES, BF16, DGH, I8MM. Hidden: pointer authentication (its
/// keys are not switched), XS, LS64 (HCRX_EL2).
const AA64ISAR1: &[Field] = &[
    Raw(isar1::DPB),
    Raw(isar1::JSCVT),
    Raw(isar1::FCMA),
    Raw(isar1::LRCPC),
    Raw(isar1::FRINTTS),
    Raw(isar1::SB),
    AtMost(isar1::SPECRES, 1),
    Raw(isar1::BF16),
    Raw(isar1::DGH),
    Raw(isar1::I8MM),
];
/// ID_AA64ISAR2_EL1: RPRES, BC, CLRBHB, CSSC. Hidden: WFxT (the timeout is not emulated), MOPS (HCRX_EL2), pointer
/// authentication.
const AA64ISAR2: &[Field] = &[Raw(isar2::RPRES), Raw(isar2::BC), Raw(isar2::CLRBHB), AtMost(isar2::CSSC, 1)];
/// ID_AA64MMFR0_EL1: ASID size, endianness, granules without 52-bit addresses (which stage 2 does not have); PARange is
/// set from what stage 2 offers. Hidden: FGT, ECV, ExS, stage-2 granules.
const AA64MMFR0: &[Field] = &[
    Raw(mmfr0::ASIDBITS),
    Raw(mmfr0::BIGEND),
    Raw(mmfr0::BIGENDEL0),
    AtMost(mmfr0::TGRAN16, 1),
    Raw(mmfr0::TGRAN64),
    Raw(mmfr0::TGRAN4),
];
/// ID_AA64MMFR1_EL1: hardware access flag and dirty state, HPDS, PAN, ETS, AFP, nTLBPA, ECBHB. Hidden: all of EL2.
const AA64MMFR1: &[Field] = &[
    AtMost(mmfr1::HAFDBS, 2),
    AtMost(mmfr1::HPDS, 2),
    Raw(mmfr1::PAN),
    Raw(mmfr1::ETS),
    Raw(mmfr1::AFP),
    Raw(mmfr1::NTLBPA),
    Raw(mmfr1::ECBHB),
];
/// ID_AA64MMFR2_EL1: CnP, UAO, LSM, CCIDX, small tables, LSE2, IDS, TTL, BBM, E0PD. Hidden: IESB (RAS), 52-bit VA, NV,
/// FWB, EVT.
const AA64MMFR2: &[Field] = &[
    Raw(mmfr2::CNP),
    Raw(mmfr2::UAO),
    Raw(mmfr2::LSM),
    Raw(mmfr2::CCIDX),
    Raw(mmfr2::ST),
    Raw(mmfr2::AT),
    Raw(mmfr2::IDS),
    Raw(mmfr2::TTL),
    Raw(mmfr2::BBM),
    Raw(mmfr2::E0PD),
];
/// ID_PFR1_EL1, of AArch32: the programmers' model; no security or virtualization extensions, no GIC registers.
const PFR1: &[Field] = &[Raw(0), Raw(8), Raw(16)];
/// ID_DFR0_EL1, of AArch32: the debug versions; no trace, no PMU.
const DFR0: &[Field] = &[AtMost(0, 6)];

fn present(raw: u64, fields: &[Field]) -> u64 {
    fields.iter().fold(0, |value, field| {
        value
            | match *field {
                Raw(at) => raw & 0xf << at,
                AtMost(at, most) => field::read(raw, at).min(most) << at,
                Fixed(at, what) => what << at,
            }
    })
}

/// What a VM that starts at EL2 sees besides, or instead: EL2 in AArch64, VHE, FEAT_NV2, 8-bit VMIDs. The access flag is not set by
/// hardware: that would be promised for its stage 2, too; SPECRES's instructions trap at a virtual EL2 (HCR_EL2.NV).
const NESTED: &[(u8, u8, Field)] = &[
    (4, 0, Fixed(pfr0::EL2, 1)),
    (6, 1, Fixed(isar1::SPECRES, 0)),
    (7, 1, Fixed(mmfr1::HAFDBS, 0)),
    (7, 1, Fixed(mmfr1::VMIDBITS, 0)),
    (7, 1, Fixed(mmfr1::VH, 1)),
    (7, 2, Fixed(mmfr2::NV, 2)),
];

/// What a VM sees besides, or instead, whose EL2 runs at EL0: EL2 in AArch64 without VHE. What of PSTATE or of a stage 1 is EL1's alone, and
/// would be EL2's too, is not to be had at EL0 (PAN, UAO, BTI), or by the shadow of its stage 1 (small tables, access flags).
const EL0: &[(u8, u8, Field)] = &[
    (4, 0, Fixed(pfr0::EL2, 1)),
    (4, 1, Fixed(pfr1::BT, 0)),
    (6, 1, Fixed(isar1::SPECRES, 0)),
    (7, 1, Fixed(mmfr1::HAFDBS, 0)),
    (7, 1, Fixed(mmfr1::VMIDBITS, 0)),
    (7, 1, Fixed(mmfr1::PAN, 0)),
    (7, 2, Fixed(mmfr2::UAO, 0)),
    (7, 2, Fixed(mmfr2::ST, 0)),
];

/// What the board adds to the CPU's own values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Whether guests have the GICv3 CPU interface as system registers.
    pub gic_registers: bool,
    /// ID_AA64MMFR0_EL1.PARange of the guests' physical address space.
    pub pa_range: u64,
}

/// The presented values: the ID space is op0 3, op1 0, CRn 0, CRm 1 to 7, op2 0 to 7.
#[derive(Clone, Debug)]
pub struct IdRegs {
    values: [u64; 64],
}

impl IdRegs {
    /// Presents what `raw(CRm, op2)` reads on the CPU.
    pub fn new(raw: impl Fn(u64, u64) -> u64, offer: Offer) -> Self {
        let mut values = [0; 64];
        for (at, value) in values.iter_mut().enumerate() {
            // Below 64: both fit.
            let (crm, op2) = (at as u64 >> 3, at as u64 & 7);
            *value = Self::register(crm, op2, &raw, offer);
        }
        Self { values }
    }

    fn register(crm: u64, op2: u64, raw: &impl Fn(u64, u64) -> u64, offer: Offer) -> u64 {
        let of = |fields: &[Field]| present(raw(crm, op2), fields);
        match (crm, op2) {
            (1, 1) => of(PFR1),
            (1, 2) => of(DFR0),
            // AArch32 instruction sets, memory model and FP, for applications: no state beyond what is switched.
            (1, 0 | 4..=7) | (2, _) | (3, 0..=2 | 6) => raw(crm, op2),
            // ID_PFR2_EL1: CSV3 and SSBS; not RAS_frac.
            (3, 4) => raw(crm, op2) & 0xff,
            (4, 0) => of(AA64PFR0) | if offer.gic_registers { 1 << pfr0::GIC } else { 0 },
            (4, 1) => of(AA64PFR1),
            (5, 0) => of(AA64DFR0),
            (6, 0) => of(AA64ISAR0),
            (6, 1) => of(AA64ISAR1),
            (6, 2) => of(AA64ISAR2),
            (7, 0) => Self::without_52_bit(of(AA64MMFR0)) | offer.pa_range,
            (7, 1) => of(AA64MMFR1),
            (7, 2) => of(AA64MMFR2),
            _ => 0,
        }
    }

    /// TGran4 1 and TGran16 2 mean 52-bit addresses (FEAT_LPA2).
    const fn without_52_bit(value: u64) -> u64 {
        if field::read(value, mmfr0::TGRAN4) == 1 { value & !(0xf << mmfr0::TGRAN4) } else { value }
    }

    /// The same for a VM that starts at EL2; nothing if the CPU, by its own ID_AA64MMFR2_EL1, lacks FEAT_NV2.
    pub fn nested(&self, mmfr2: u64) -> Option<Self> {
        if field::read(mmfr2, mmfr2::NV) < 2 {
            return None;
        }
        Some(self.with(NESTED))
    }

    /// The same for a VM that starts at EL2, which runs at EL0.
    #[must_use]
    pub fn at_el0(&self) -> Self {
        self.with(EL0)
    }

    fn with(&self, fields: &[(u8, u8, Field)]) -> Self {
        let mut values = self.values;
        for (crm, op2, field) in fields {
            if let (Some(value), Fixed(at, what)) =
                (values.get_mut(usize::from(crm & 7) * 8 + usize::from(op2 & 7)), *field)
            {
                *value = *value & !(0xf << at) | what << at;
            }
        }
        Self { values }
    }

    /// What the register CRm, op2 reads as.
    #[inline(always)]
    pub fn get(&self, crm: u8, op2: u8) -> u64 {
        let at = usize::from(crm & 7) * 8 + usize::from(op2 & 7);
        self.values.get(at).copied().unwrap_or(0)
    }

    /// Whether PSTATE.PAN exists.
    pub fn has_pan(&self) -> bool {
        field::read(self.get(7, 1), mmfr1::PAN) != 0
    }

    /// Whether PSTATE.SSBS exists.
    pub fn has_ssbs(&self) -> bool {
        field::read(self.get(4, 1), pfr1::SSBS) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::field::{self, dfr0, isar1, mmfr0, mmfr2, pfr0};
    use super::{IdRegs, Offer};

    #[test]
    fn a_cpu_with_everything_shows_only_what_is_listed() {
        let ids = IdRegs::new(|_, _| 0x1111_1111_1111_1111, Offer { gic_registers: true, pa_range: 2 });
        let value = ids.get(4, 0);
        assert_eq!(value >> pfr0::EL2 & 0xff, 0, "EL2 and EL3");
        assert_eq!(field::read(value, pfr0::GIC), 1);
        assert_eq!(value >> pfr0::RAS & 0xff, 0, "RAS and SVE");
        assert_eq!(ids.get(6, 1) >> isar1::APA & 0xff, 0, "APA and API");
        assert_eq!(ids.get(6, 1) >> isar1::GPA & 0xff, 0, "GPA and GPI");
        assert_eq!(field::read(ids.get(5, 0), dfr0::PMUVER), 0);
        assert_eq!(field::read(ids.get(7, 0), mmfr0::PARANGE), 2);
        assert_eq!(field::read(ids.get(7, 0), mmfr0::TGRAN4), 0, "no 52-bit addresses");
        assert_eq!(field::read(ids.get(7, 2), mmfr2::NV), 0);
        assert_eq!(ids.get(4, 4), 0, "ZFR0");
        assert_eq!(ids.get(1, 1), 0x1_0101, "of AArch32's PFR1 no security, virtualization and GIC");
        assert!(ids.has_pan() && ids.has_ssbs());
    }

    /// What is shown of a CPU whose fields are all one, and of one whose fields are all ones, register by register. A number higher than
    /// the last that we know of is shown as that.
    #[test]
    fn each_register_shows_these_fields_and_no_others() {
        const ALL: u64 = u64::MAX;
        const ONES: u64 = ALL / 15;
        // CRm, op2, and what is shown of ones and of all ones. What is AArch32's is shown as it is.
        let shown: [(u8, u8, u64, u64); 16] = [
            (1, 1, 0x1_0101, 0xf_0f0f),
            (1, 2, 1, 6),
            (1, 3, 0, 0),
            (3, 3, 0, 0),
            (3, 4, 0x11, 0xff),
            (3, 5, 0, 0),
            (3, 7, 0, 0),
            (4, 0, 0x1101_0000_0111_0011, 0xf10f_0000_01ff_001f),
            (4, 1, 0x11, 0x2f),
            (5, 0, 0x10_1010_1006, 0xf0_5030_5006),
            (6, 0, 0x1111_1111_1011_1110, 0xffff_ffff_f0ff_fff0),
            (6, 1, 0x0011_1111_0011_1001, 0x00ff_f1ff_00ff_f00f),
            (6, 2, 0x0010_0000_1010_0010, 0x0010_0000_f0f0_00f0),
            (7, 0, 0x0111_0112, 0xff1f_0ff2),
            (7, 1, 0x1001_1010_0010_1001, 0xf00f_f0f0_00f0_2002),
            (7, 2, 0x1011_0011_1010_0111, 0xf0ff_00ff_f0f0_0fff),
        ];
        for (raw, of_ones) in [(ONES, true), (ALL, false)] {
            let ids = IdRegs::new(|_, _| raw, Offer { gic_registers: true, pa_range: 2 });
            for (crm, op2) in (0..8).flat_map(|crm| (0..8).map(move |op2| (crm, op2))) {
                let listed = shown.iter().find(|(m, n, ..)| (*m, *n) == (crm, op2));
                let expected = match listed {
                    Some((.., ones, all)) => *(if of_ones { ones } else { all }),
                    None if (1..4).contains(&crm) => raw,
                    None => 0,
                };
                assert_eq!(ids.get(crm, op2), expected, "CRm {crm}, op2 {op2} of {raw:#x}");
            }
        }
    }

    #[test]
    fn what_pstate_has_is_said_by_fields_of_their_own() {
        let offer = || Offer { gic_registers: true, pa_range: 2 };
        let without = |register: (u64, u64), at: u64| {
            let raw = |crm: u64, op2: u64| {
                if (crm, op2) == register { !(0xf << at) & 0x1111_1111_1111_1111 } else { 0x1111_1111_1111_1111 }
            };
            let ids = IdRegs::new(raw, offer());
            (ids.has_pan(), ids.has_ssbs())
        };
        assert_eq!(without((7, 1), 20), (false, true));
        assert_eq!(without((4, 1), 4), (true, false));
        let nothing = IdRegs::new(|_, _| 0, offer());
        assert!(!nothing.has_pan() && !nothing.has_ssbs());
    }
}
