//! Which ID register field promises which system register (Arm ARM D24.2; each line one feature).

use rt::code::Encoding;

/// A feature: from this value of its ID field on, its register can be read at EL1.
pub(crate) struct Feature {
    /// Name of the register.
    pub(crate) name: &'static str,
    /// The ID register.
    pub(crate) id: Encoding,
    /// Lowest bit of the field.
    pub(crate) shift: u32,
    /// Lowest value that has the register.
    pub(crate) from: u64,
    /// Whether values from 8 on mean "none".
    pub(crate) signed: bool,
    /// The register.
    pub(crate) register: Encoding,
}

const PFR0: Encoding = Encoding::new(3, 0, 0, 4, 0);
const PFR1: Encoding = Encoding::new(3, 0, 0, 4, 1);
const DFR0: Encoding = Encoding::new(3, 0, 0, 5, 0);
const ISAR0: Encoding = Encoding::new(3, 0, 0, 6, 0);
const ISAR1: Encoding = Encoding::new(3, 0, 0, 6, 1);
const ISAR2: Encoding = Encoding::new(3, 0, 0, 6, 2);
const MMFR0: Encoding = Encoding::new(3, 0, 0, 7, 0);
const MMFR1: Encoding = Encoding::new(3, 0, 0, 7, 1);
const MMFR2: Encoding = Encoding::new(3, 0, 0, 7, 2);
const MMFR3: Encoding = Encoding::new(3, 0, 0, 7, 3);

/// The ID registers worth printing.
pub(crate) const ID: &[(&str, Encoding)] = &[
    ("ID_AA64PFR0_EL1", PFR0),
    ("ID_AA64PFR1_EL1", PFR1),
    ("ID_AA64DFR0_EL1", DFR0),
    ("ID_AA64ISAR0_EL1", ISAR0),
    ("ID_AA64ISAR1_EL1", ISAR1),
    ("ID_AA64ISAR2_EL1", ISAR2),
    ("ID_AA64MMFR0_EL1", MMFR0),
    ("ID_AA64MMFR1_EL1", MMFR1),
    ("ID_AA64MMFR2_EL1", MMFR2),
    ("ID_AA64MMFR3_EL1", MMFR3),
];

const fn feature(name: &'static str, id: Encoding, shift: u32, from: u64, register: Encoding) -> Feature {
    Feature { name, id, shift, from, signed: false, register }
}

const fn signed(name: &'static str, id: Encoding, shift: u32, from: u64, register: Encoding) -> Feature {
    Feature { name, id, shift, from, signed: true, register }
}

/// What is looked at. Registers whose reading has effects beyond a value are left out.
pub(crate) const FEATURES: &[Feature] = &[
    feature("ZCR_EL1", PFR0, 32, 1, Encoding::new(3, 0, 1, 2, 0)),
    feature("SMCR_EL1", PFR1, 24, 1, Encoding::new(3, 0, 1, 2, 6)),
    feature("SMPRI_EL1", PFR1, 24, 1, Encoding::new(3, 0, 1, 2, 4)),
    feature("SVCR", PFR1, 24, 1, Encoding::new(3, 3, 4, 2, 2)),
    feature("TPIDR2_EL0", PFR1, 24, 1, Encoding::new(3, 3, 13, 0, 5)),
    feature("ERRIDR_EL1", PFR0, 28, 1, Encoding::new(3, 0, 5, 3, 0)),
    feature("DISR_EL1", PFR0, 28, 1, Encoding::new(3, 0, 12, 1, 1)),
    feature("MPAM0_EL1", PFR0, 40, 1, Encoding::new(3, 0, 10, 5, 1)),
    feature("MPAM1_EL1", PFR0, 40, 1, Encoding::new(3, 0, 10, 5, 0)),
    feature("AMCFGR_EL0", PFR0, 44, 1, Encoding::new(3, 3, 13, 2, 1)),
    feature("DIT", PFR0, 48, 1, Encoding::new(3, 3, 4, 2, 5)),
    feature("SCXTNUM_EL1", PFR0, 56, 2, Encoding::new(3, 0, 13, 0, 7)),
    feature("ICC_SRE_EL1", PFR0, 24, 1, Encoding::new(3, 0, 12, 12, 5)),
    feature("ICC_PMR_EL1", PFR0, 24, 1, Encoding::new(3, 0, 4, 6, 0)),
    feature("ICC_CTLR_EL1", PFR0, 24, 1, Encoding::new(3, 0, 12, 12, 4)),
    feature("SSBS", PFR1, 4, 2, Encoding::new(3, 3, 4, 2, 6)),
    feature("TFSR_EL1", PFR1, 8, 2, Encoding::new(3, 0, 5, 6, 0)),
    feature("GCR_EL1", PFR1, 8, 2, Encoding::new(3, 0, 1, 0, 6)),
    feature("ALLINT", PFR1, 36, 1, Encoding::new(3, 0, 4, 3, 0)),
    feature("GCSCR_EL1", PFR1, 44, 1, Encoding::new(3, 0, 2, 5, 0)),
    signed("PMCR_EL0", DFR0, 8, 1, Encoding::new(3, 3, 9, 12, 0)),
    signed("PMCCNTR_EL0", DFR0, 8, 1, Encoding::new(3, 3, 9, 13, 0)),
    signed("PMINTENSET_EL1", DFR0, 8, 1, Encoding::new(3, 0, 9, 14, 1)),
    feature("PMSIDR_EL1", DFR0, 32, 1, Encoding::new(3, 0, 9, 9, 7)),
    signed("OSDLR_EL1", DFR0, 36, 0, Encoding::new(2, 0, 1, 3, 4)),
    feature("TRFCR_EL1", DFR0, 40, 1, Encoding::new(3, 0, 1, 2, 1)),
    feature("TRBIDR_EL1", DFR0, 44, 1, Encoding::new(3, 0, 9, 11, 7)),
    feature("BRBCR_EL1", DFR0, 52, 1, Encoding::new(2, 1, 9, 0, 0)),
    feature("MDSCR_EL1", DFR0, 0, 6, Encoding::new(2, 0, 0, 2, 2)),
    feature("DBGBCR0_EL1", DFR0, 0, 6, Encoding::new(2, 0, 0, 0, 5)),
    feature("DBGWCR0_EL1", DFR0, 0, 6, Encoding::new(2, 0, 0, 0, 7)),
    feature("OSLSR_EL1", DFR0, 0, 6, Encoding::new(2, 0, 1, 1, 4)),
    feature("RNDR", ISAR0, 60, 1, Encoding::new(3, 3, 2, 4, 0)),
    feature("APIAKeyLo_EL1", ISAR1, 4, 1, Encoding::new(3, 0, 2, 1, 0)),
    feature("APIAKeyLo_EL1", ISAR1, 8, 1, Encoding::new(3, 0, 2, 1, 0)),
    feature("APIAKeyLo_EL1", ISAR2, 12, 1, Encoding::new(3, 0, 2, 1, 0)),
    feature("APGAKeyLo_EL1", ISAR1, 24, 1, Encoding::new(3, 0, 2, 3, 0)),
    feature("APGAKeyLo_EL1", ISAR1, 28, 1, Encoding::new(3, 0, 2, 3, 0)),
    feature("APGAKeyLo_EL1", ISAR2, 8, 1, Encoding::new(3, 0, 2, 3, 0)),
    feature("ACCDATA_EL1", ISAR1, 60, 3, Encoding::new(3, 0, 13, 0, 5)),
    feature("CNTPCTSS_EL0", MMFR0, 60, 1, Encoding::new(3, 3, 14, 0, 5)),
    feature("CNTVCTSS_EL0", MMFR0, 60, 1, Encoding::new(3, 3, 14, 0, 6)),
    feature("LORID_EL1", MMFR1, 16, 1, Encoding::new(3, 0, 10, 4, 7)),
    feature("PAN", MMFR1, 20, 1, Encoding::new(3, 0, 4, 2, 3)),
    feature("UAO", MMFR2, 4, 1, Encoding::new(3, 0, 4, 2, 4)),
    feature("TCR2_EL1", MMFR3, 0, 1, Encoding::new(3, 0, 2, 0, 3)),
    feature("SCTLR2_EL1", MMFR3, 4, 1, Encoding::new(3, 0, 1, 0, 3)),
    feature("PIR_EL1", MMFR3, 8, 1, Encoding::new(3, 0, 10, 2, 3)),
    feature("S2POR_EL1", MMFR3, 20, 1, Encoding::new(3, 0, 10, 2, 5)),
    feature("POR_EL1", MMFR3, 16, 1, Encoding::new(3, 0, 10, 2, 4)),
    feature("MAIR2_EL1", MMFR3, 24, 1, Encoding::new(3, 0, 10, 2, 1)),
];
