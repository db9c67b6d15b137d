//! Which system registers and system instructions there are, who may use them, and which ID register field announces them
//! (Arm ARM C5.3 to C5.5, D24.2 and the lists before them; GIC architecture specification, chapter 12).
//!
//! A row is all that op0, op1, CRn and CRm have in common: a bit for each op2 that can be read, and one for each that can be
//! written. What is in no row is UNDEFINED.

use rt::code::Encoding;

/// When a row's registers are there.
#[derive(Clone, Copy)]
pub(crate) enum When {
    /// Always.
    Always,
    /// If one of these fields announces it.
    If(&'static [Field]),
    /// If one of these fields announces it, then perhaps: it depends on more.
    Perhaps(&'static [Field]),
    /// Perhaps: IMPLEMENTATION DEFINED, or of whichever Exception level is the highest, or of AArch32, or left out by QEMU 10.
    Free,
}

/// Who may use them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// EL1.
    El1,
    /// EL2.
    El2,
    /// EL2 with HCR_EL2.E2H.
    Vhe,
}

/// An ID register's field: the register's CRm and op2, the field's lowest bit, the lowest value that announces.
#[derive(Clone, Copy)]
pub(crate) struct Field(pub(crate) u32, pub(crate) u32, pub(crate) u32, pub(crate) u64);

/// Registers or instructions.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// op0, op1, CRn, CRm.
    pub(crate) at: (u32, u32, u32, u32),
    /// A bit for each op2 of MRS or SYSL.
    pub(crate) reads: u8,
    /// A bit for each op2 of MSR or SYS.
    pub(crate) writes: u8,
    /// When.
    pub(crate) when: When,
    /// Who.
    pub(crate) level: Level,
    /// Whether a hypervisor may leave them in reach where they are not announced: they do not trap, or FEAT_NV2 gives a virtual
    /// EL2 memory in place of them, or they only tell which CPU it is.
    pub(crate) open: bool,
}

impl Row {
    const fn new(op0: u32, op1: u32, crn: u32, crm: u32, reads: u8, writes: u8) -> Self {
        let level = match op1 {
            4 => Level::El2,
            5 => Level::Vhe,
            _ => Level::El1,
        };
        Self { at: (op0, op1, crn, crm), reads, writes, when: When::Always, level, open: false }
    }

    const fn only(self, when: When) -> Self {
        Self { when, ..self }
    }

    const fn when(self, fields: &'static [Field]) -> Self {
        Self { when: When::If(fields), ..self }
    }

    const fn perhaps(self, fields: &'static [Field]) -> Self {
        Self { when: When::Perhaps(fields), ..self }
    }

    const fn open(self) -> Self {
        Self { open: true, ..self }
    }

    /// Whether it speaks of this encoding.
    pub(crate) fn has(&self, encoding: Encoding) -> bool {
        let (op0, op1, crn, crm, op2) = encoding.fields();
        self.at == (op0, op1, crn, crm) && (self.reads | self.writes) >> op2 & 1 != 0
    }
}

/// Registers that are read and written.
const fn rw(op1: u32, crn: u32, crm: u32, ops: u8) -> Row {
    Row::new(3, op1, crn, crm, ops, ops)
}

/// Registers that are read.
const fn ro(op1: u32, crn: u32, crm: u32, ops: u8) -> Row {
    Row::new(3, op1, crn, crm, ops, 0)
}

/// Instructions.
const fn sys(op1: u32, crn: u32, crm: u32, ops: u8) -> Row {
    Row::new(1, op1, crn, crm, 0, ops)
}

const PAN2: &[Field] = &[Field(7, 1, 20, 2)];
const PAN: &[Field] = &[Field(7, 1, 20, 1)];
const VHE: &[Field] = &[Field(7, 1, 8, 1)];
const LOR: &[Field] = &[Field(7, 1, 16, 1)];
const HCX: &[Field] = &[Field(7, 1, 40, 1)];
const UAO: &[Field] = &[Field(7, 2, 4, 1)];
const NV2: &[Field] = &[Field(7, 2, 24, 2)];
const CCIDX: &[Field] = &[Field(7, 2, 20, 1)];
const TCR2: &[Field] = &[Field(7, 3, 0, 1)];
const SCTLR2: &[Field] = &[Field(7, 3, 4, 1)];
const S1PIE: &[Field] = &[Field(7, 3, 8, 1)];
const S2PIE: &[Field] = &[Field(7, 3, 12, 1)];
const S1POE: &[Field] = &[Field(7, 3, 16, 1)];
const S2POE: &[Field] = &[Field(7, 3, 20, 1)];
const AIE: &[Field] = &[Field(7, 3, 24, 1)];
const FGT: &[Field] = &[Field(7, 0, 56, 1)];
const FGT2: &[Field] = &[Field(7, 0, 56, 2)];
const ECV: &[Field] = &[Field(7, 0, 60, 1)];
const ECV2: &[Field] = &[Field(7, 0, 60, 2)];
const GIC: &[Field] = &[Field(4, 0, 24, 1)];
const RAS: &[Field] = &[Field(4, 0, 28, 1)];
const SVE: &[Field] = &[Field(4, 0, 32, 1)];
const MPAM: &[Field] = &[Field(4, 0, 40, 1), Field(4, 1, 16, 1)];
const AMU: &[Field] = &[Field(4, 0, 44, 1)];
const DIT: &[Field] = &[Field(4, 0, 48, 1)];
const SCXTNUM: &[Field] = &[Field(4, 0, 56, 2), Field(4, 1, 32, 2)];
const SSBS: &[Field] = &[Field(4, 1, 4, 2)];
const MTE: &[Field] = &[Field(4, 1, 8, 1)];
const MTE2: &[Field] = &[Field(4, 1, 8, 2)];
const SME: &[Field] = &[Field(4, 1, 24, 1)];
const NMI: &[Field] = &[Field(4, 1, 36, 1)];
const GCS: &[Field] = &[Field(4, 1, 44, 1)];
const THE: &[Field] = &[Field(4, 1, 48, 1)];
const PFAR: &[Field] = &[Field(4, 1, 60, 1)];
const FPMR: &[Field] = &[Field(4, 2, 32, 1)];
const TRACE: &[Field] = &[Field(5, 0, 4, 1), Field(5, 0, 40, 1), Field(5, 0, 52, 1)];
const PMU: &[Field] = &[Field(5, 0, 8, 1)];
const SPE: &[Field] = &[Field(5, 0, 32, 1)];
const TRBE: &[Field] = &[Field(5, 0, 44, 1)];
const TLBI_OUTER: &[Field] = &[Field(6, 0, 56, 1)];
const TLBI_RANGE: &[Field] = &[Field(6, 0, 56, 2)];
const RNDR: &[Field] = &[Field(6, 0, 60, 1)];
const DPB: &[Field] = &[Field(6, 1, 0, 1)];
const DPB2: &[Field] = &[Field(6, 1, 0, 2)];
const SPECRES: &[Field] = &[Field(6, 1, 40, 1)];
const SPECRES2: &[Field] = &[Field(6, 1, 40, 2)];
const XS: &[Field] = &[Field(6, 1, 56, 1)];
const ACCDATA: &[Field] = &[Field(6, 1, 60, 3)];
const ATS1A: &[Field] = &[Field(6, 2, 60, 1)];
const PAUTH: &[Field] = &[
    Field(6, 1, 4, 1),
    Field(6, 1, 8, 1),
    Field(6, 1, 24, 1),
    Field(6, 1, 28, 1),
    Field(6, 2, 8, 1),
    Field(6, 2, 12, 1),
];

/// The instructions: caches, address translation, prediction.
const MAINTENANCE: &[Row] = &[
    sys(0, 7, 1, 0b1),
    sys(0, 7, 5, 0b1),
    sys(0, 7, 6, 0b110),
    sys(0, 7, 6, 0b111_1000).when(MTE2).open(),
    sys(0, 7, 7, 0b111_0000).when(GCS),
    sys(0, 7, 8, 0b1111),
    sys(0, 7, 9, 0b11).when(PAN2),
    sys(0, 7, 9, 0b100).when(ATS1A),
    sys(0, 7, 10, 0b100),
    sys(0, 7, 10, 0b101_0000).when(MTE2).open(),
    sys(0, 7, 14, 0b100),
    sys(0, 7, 14, 0b101_0000).when(MTE2).open(),
    sys(1, 7, 2, 0b11_0000).perhaps(TRACE),
    sys(3, 7, 2, 0b1000_0000).perhaps(TRACE),
    sys(3, 7, 3, 0b1011_0000).when(SPECRES).open(),
    sys(3, 7, 3, 0b100_0000).when(SPECRES2).open(),
    sys(3, 7, 4, 0b10),
    sys(3, 7, 4, 0b1_1000).when(MTE).open(),
    sys(3, 7, 5, 0b10),
    Row::new(1, 3, 7, 7, 0b1010, 0b101).when(GCS),
    sys(3, 7, 10, 0b10),
    sys(3, 7, 10, 0b10_1000).when(MTE).open(),
    sys(3, 7, 11, 0b10),
    sys(3, 7, 12, 0b10).when(DPB),
    sys(3, 7, 12, 0b10_1000).when(MTE).open(),
    sys(3, 7, 13, 0b10).when(DPB2),
    sys(3, 7, 13, 0b10_1000).when(MTE).open(),
    sys(3, 7, 14, 0b10),
    sys(3, 7, 14, 0b10_1000).when(MTE).open(),
    sys(4, 7, 8, 0b1111_0011),
    sys(4, 7, 9, 0b100).when(ATS1A),
];

/// TLB maintenance; with CRn 9 (FEAT_XS) all of it once more.
const TLBI: &[Row] = &[
    sys(0, 8, 1, 0b1010_1111).when(TLBI_OUTER),
    sys(0, 8, 2, 0b1010_1010).when(TLBI_RANGE),
    sys(0, 8, 3, 0b1010_1111),
    sys(0, 8, 5, 0b1010_1010).when(TLBI_RANGE),
    sys(0, 8, 6, 0b1010_1010).when(TLBI_RANGE),
    sys(0, 8, 7, 0b1010_1111),
    sys(4, 8, 0, 0b10_0010),
    sys(4, 8, 0, 0b100_0100).when(TLBI_RANGE),
    sys(4, 8, 1, 0b111_0011).when(TLBI_OUTER),
    sys(4, 8, 2, 0b10_0010).when(TLBI_RANGE),
    sys(4, 8, 3, 0b111_0011),
    sys(4, 8, 4, 0b10_0010),
    sys(4, 8, 4, 0b1_0001).when(TLBI_OUTER),
    sys(4, 8, 4, 0b1100_1100).when(TLBI_RANGE),
    sys(4, 8, 5, 0b10_0010).when(TLBI_RANGE),
    sys(4, 8, 6, 0b10_0010).when(TLBI_RANGE),
    sys(4, 8, 7, 0b111_0011),
];

/// Debug registers, but for breakpoints and watchpoints, of which ID_AA64DFR0_EL1 says how many there are.
const DEBUG: &[Row] = &[
    Row::new(2, 0, 0, 0, 0b100, 0b100),
    Row::new(2, 0, 0, 2, 0b101, 0b101),
    Row::new(2, 0, 0, 3, 0b100, 0b100),
    Row::new(2, 0, 0, 6, 0b100, 0b100),
    Row::new(2, 0, 1, 0, 0b1, 0b1_0000),
    Row::new(2, 0, 1, 1, 0b1_0000, 0),
    Row::new(2, 0, 1, 3, 0b1_0000, 0b1_0000),
    Row::new(2, 0, 1, 4, 0b1_0000, 0b1_0000).only(When::Free),
    Row::new(2, 0, 7, 8, 0b100_0000, 0b100_0000),
    Row::new(2, 0, 7, 9, 0b100_0000, 0b100_0000),
    Row::new(2, 0, 7, 14, 0b100_0000, 0).only(When::Free),
    Row::new(2, 3, 0, 1, 0b1, 0),
    Row::new(2, 3, 0, 4, 0b1, 0b1).only(When::Free),
    Row::new(2, 3, 0, 5, 0b1, 0b1),
    Row::new(2, 4, 0, 7, 0b1, 0b1).only(When::Free),
    Row::new(2, 5, 9, 0, 0b1, 0b1).perhaps(TRACE),
];

/// Registers of EL1 and EL0.
const EL1: &[Row] = &[
    ro(0, 0, 0, 0b110_0001),
    ro(0, 0, 1, 0xff),
    ro(0, 0, 2, 0xff),
    ro(0, 0, 3, 0xff),
    ro(0, 0, 4, 0xff),
    ro(0, 0, 5, 0xff),
    ro(0, 0, 6, 0xff),
    ro(0, 0, 7, 0xff),
    rw(0, 1, 0, 0b111),
    rw(0, 1, 0, 0b1000).when(SCTLR2),
    rw(0, 1, 0, 0b110_0000).when(MTE2),
    rw(0, 1, 2, 0b1).when(SVE),
    rw(0, 1, 2, 0b1010).perhaps(TRACE),
    rw(0, 1, 2, 0b101_0000).when(SME),
    rw(0, 2, 0, 0b111),
    rw(0, 2, 0, 0b1000).when(TCR2),
    rw(0, 2, 1, 0b1111).when(PAUTH),
    rw(0, 2, 2, 0b1111).when(PAUTH),
    rw(0, 2, 3, 0b11).when(PAUTH),
    rw(0, 2, 5, 0b111).when(GCS),
    rw(0, 4, 0, 0b11),
    rw(0, 4, 1, 0b1),
    Row::new(3, 0, 4, 2, 0b101, 0b1),
    rw(0, 4, 2, 0b1000).when(PAN),
    rw(0, 4, 2, 0b1_0000).when(UAO),
    rw(0, 4, 3, 0b1).when(NMI).open(),
    rw(0, 4, 6, 0b1).when(GIC),
    rw(0, 5, 1, 0b11),
    rw(0, 5, 2, 0b1),
    ro(0, 5, 3, 0b1).when(RAS),
    rw(0, 5, 3, 0b10).perhaps(RAS),
    rw(0, 5, 4, 0xff).perhaps(RAS),
    rw(0, 5, 5, 0xff).perhaps(RAS),
    rw(0, 5, 6, 0b11).when(MTE2),
    rw(0, 6, 0, 0b1),
    rw(0, 6, 0, 0b10_0000).when(PFAR),
    rw(0, 7, 4, 0b1),
    rw(0, 9, 9, 0xff).perhaps(SPE),
    rw(0, 9, 10, 0xff).perhaps(SPE),
    rw(0, 9, 11, 0xff).perhaps(TRBE),
    rw(0, 9, 14, 0b110).when(PMU),
    ro(0, 9, 14, 0b100_0000).perhaps(PMU),
    rw(0, 10, 2, 0b1),
    rw(0, 10, 2, 0b10).when(AIE),
    rw(0, 10, 2, 0b1100).when(S1PIE),
    rw(0, 10, 2, 0b1_0000).when(S1POE),
    rw(0, 10, 2, 0b10_0000).when(S2POE),
    rw(0, 10, 3, 0b1),
    rw(0, 10, 3, 0b10).when(AIE),
    rw(0, 10, 4, 0b1111).when(LOR),
    ro(0, 10, 4, 0b1000_0000).when(LOR),
    rw(0, 10, 4, 0b1_0000).perhaps(MPAM),
    rw(0, 10, 5, 0b1011).perhaps(MPAM),
    rw(0, 12, 0, 0b1),
    rw(0, 12, 0, 0b110).only(When::Free),
    ro(0, 12, 1, 0b1),
    rw(0, 12, 1, 0b10).when(RAS).open(),
    Row::new(3, 0, 12, 8, 0b1_1101, 0b1_1010).when(GIC),
    rw(0, 12, 8, 0b1110_0000).perhaps(GIC),
    rw(0, 12, 9, 0b1).when(GIC),
    rw(0, 12, 9, 0b1110).perhaps(GIC),
    ro(0, 12, 9, 0b10_0000).perhaps(NMI).open(),
    Row::new(3, 0, 12, 11, 0b1000, 0b1110_0010).when(GIC),
    Row::new(3, 0, 12, 12, 0b1111_1101, 0b1111_1010).when(GIC),
    rw(0, 13, 0, 0b1_0010),
    rw(0, 13, 0, 0b100_1000).when(THE),
    rw(0, 13, 0, 0b10_0000).when(ACCDATA),
    rw(0, 13, 0, 0b1000_0000).when(SCXTNUM),
    rw(0, 14, 1, 0b1),
    ro(1, 0, 0, 0b1000_0011),
    ro(1, 0, 0, 0b100).perhaps(CCIDX),
    ro(1, 0, 0, 0b1_0000).when(MTE2),
    ro(1, 0, 0, 0b100_0000).when(SME).open(),
    rw(2, 0, 0, 0b1),
    ro(3, 0, 0, 0b1000_0010),
    ro(3, 2, 4, 0b11).when(RNDR).open(),
    rw(3, 2, 5, 0b10).when(GCS),
    rw(3, 4, 2, 0b11),
    rw(3, 4, 2, 0b100).when(SME),
    rw(3, 4, 2, 0b10_0000).when(DIT).open(),
    rw(3, 4, 2, 0b100_0000).when(SSBS).open(),
    rw(3, 4, 2, 0b1000_0000).when(MTE).open(),
    rw(3, 4, 4, 0b11),
    rw(3, 4, 4, 0b100).when(FPMR),
    Row::new(3, 3, 9, 12, 0b1110_1111, 0b11_1111).when(PMU),
    rw(3, 9, 13, 0b111).when(PMU),
    rw(3, 9, 14, 0b1001).when(PMU),
    rw(3, 10, 2, 0b1_0000).when(S1POE),
    rw(3, 13, 0, 0b1100),
    rw(3, 13, 0, 0b10_0000).when(SME),
    rw(3, 13, 0, 0b1000_0000).when(SCXTNUM),
    Row::new(3, 3, 14, 0, 0b111, 0),
    Row::new(3, 3, 14, 0, 0, 0b1).only(When::Free),
    ro(3, 14, 0, 0b110_0000).when(ECV).open(),
    rw(3, 14, 2, 0b111),
    rw(3, 14, 3, 0b111),
];

/// Registers of EL2, and EL1's and EL0's by other names for an EL2 with E2H.
const EL2: &[Row] = &[
    rw(4, 0, 0, 0b10_0001),
    rw(4, 1, 0, 0b11),
    rw(4, 1, 0, 0b1000).when(SCTLR2).open(),
    rw(4, 1, 1, 0b1000_1111),
    rw(4, 1, 1, 0b111_0000).when(FGT).open(),
    rw(4, 1, 2, 0b1).when(SVE),
    rw(4, 1, 2, 0b10).perhaps(TRACE),
    rw(4, 1, 2, 0b100).when(HCX).open(),
    rw(4, 1, 2, 0b10_0000).when(SME).open(),
    rw(4, 1, 2, 0b100_0000).when(SME),
    rw(4, 2, 0, 0b101),
    rw(4, 2, 0, 0b10).when(VHE),
    rw(4, 2, 0, 0b1000).when(TCR2).open(),
    rw(4, 2, 1, 0b101),
    rw(4, 2, 2, 0b1).when(NV2),
    rw(4, 2, 5, 0b11).when(GCS),
    rw(4, 3, 0, 0b1).only(When::Free),
    rw(4, 3, 1, 0b11_0000).when(FGT).open(),
    rw(4, 3, 1, 0b100_0000).perhaps(FGT).open(),
    rw(4, 3, 1, 0b1000_1111).perhaps(FGT2).open(),
    rw(4, 4, 0, 0b11),
    rw(4, 4, 1, 0b1),
    rw(4, 4, 3, 0b1111).only(When::Free),
    rw(4, 5, 0, 0b10).only(When::Free),
    rw(4, 5, 1, 0b11),
    rw(4, 5, 2, 0b1),
    rw(4, 5, 2, 0b1000).when(RAS).open(),
    rw(4, 5, 3, 0b1).only(When::Free),
    rw(4, 5, 6, 0b1).when(MTE2).open(),
    rw(4, 6, 0, 0b1_0001),
    rw(4, 6, 0, 0b10_0000).when(PFAR).open(),
    rw(4, 9, 9, 0b1).perhaps(SPE),
    rw(4, 10, 1, 0b10).when(AIE),
    rw(4, 10, 2, 0b1),
    rw(4, 10, 2, 0b1100).when(S1PIE),
    rw(4, 10, 2, 0b1_0000).when(S1POE),
    rw(4, 10, 2, 0b10_0000).when(S2PIE).open(),
    rw(4, 10, 3, 0b1),
    rw(4, 10, 3, 0b10).when(AIE),
    rw(4, 10, 4, 0xff).perhaps(MPAM),
    rw(4, 10, 5, 0xff).perhaps(MPAM),
    rw(4, 10, 6, 0xff).perhaps(MPAM),
    rw(4, 12, 0, 0b1),
    Row::new(3, 4, 12, 0, 0b110, 0b100).only(When::Free),
    rw(4, 12, 1, 0b10).when(RAS).open(),
    rw(4, 12, 8, 0b1).when(GIC),
    rw(4, 12, 8, 0b1110).perhaps(GIC).open(),
    rw(4, 12, 9, 0b10_0001).when(GIC),
    rw(4, 12, 9, 0b1110).perhaps(GIC).open(),
    Row::new(3, 4, 12, 11, 0b1010_1111, 0b1000_0001).when(GIC),
    rw(4, 12, 12, 0b1).when(GIC),
    rw(4, 12, 12, 0b1111_1110).perhaps(GIC).open(),
    rw(4, 12, 13, 0xff).perhaps(GIC).open(),
    rw(4, 13, 0, 0b100),
    rw(4, 13, 0, 0b10).when(VHE),
    rw(4, 13, 0, 0b1000_0000).when(SCXTNUM),
    rw(4, 14, 0, 0b1000),
    rw(4, 14, 0, 0b100_0000).when(ECV2).open(),
    rw(4, 14, 1, 0b1),
    rw(4, 14, 2, 0b111),
    rw(4, 14, 3, 0b111).when(VHE),
    rw(5, 1, 0, 0b101),
    rw(5, 1, 0, 0b1000).when(SCTLR2).open(),
    rw(5, 1, 2, 0b1).when(SVE).open(),
    rw(5, 1, 2, 0b10).perhaps(TRACE).open(),
    rw(5, 1, 2, 0b100_0000).when(SME).open(),
    rw(5, 2, 0, 0b111),
    rw(5, 2, 0, 0b1000).when(TCR2).open(),
    rw(5, 2, 5, 0b11).when(GCS).open(),
    rw(5, 4, 0, 0b11),
    rw(5, 5, 1, 0b11),
    rw(5, 5, 2, 0b1),
    rw(5, 5, 6, 0b1).when(MTE2).open(),
    rw(5, 6, 0, 0b1),
    rw(5, 6, 0, 0b10_0000).when(PFAR).open(),
    rw(5, 9, 9, 0b1).perhaps(SPE).open(),
    rw(5, 10, 2, 0b1),
    rw(5, 10, 2, 0b10).when(AIE).open(),
    rw(5, 10, 2, 0b1100).when(S1PIE).open(),
    rw(5, 10, 2, 0b1_0000).when(S1POE).open(),
    rw(5, 10, 3, 0b1),
    rw(5, 10, 3, 0b10).when(AIE).open(),
    rw(5, 10, 5, 0b1).perhaps(MPAM).open(),
    rw(5, 12, 0, 0b1),
    rw(5, 13, 0, 0b10),
    rw(5, 13, 0, 0b1000_0000).when(SCXTNUM).open(),
    rw(5, 14, 1, 0b1),
    rw(5, 14, 2, 0b111),
    rw(5, 14, 3, 0b111),
];

/// The rows that could speak of an encoding.
pub(crate) fn rows(encoding: Encoding) -> impl Iterator<Item = Row> {
    let (op0, op1, crn, crm, _) = encoding.fields();
    let of = match (op0, op1) {
        (1, _) => MAINTENANCE,
        (2, _) => DEBUG,
        (_, 0..4) => EL1,
        _ => EL2,
    };
    let tlbi = if op0 == 1 { TLBI } else { &[] };
    let again = move |row: &Row| Row { at: (1, row.at.1, 9, row.at.3), ..*row };
    let xs = tlbi.iter().filter(move |row| crn == 9 && announces(row.when)).map(again).map(|row| row.when(XS).open());
    let whole = wholes(op0, op1, crn, crm);
    of.iter().chain(tlbi).copied().chain(xs).chain(whole)
}

/// What is of one kind over many encodings: trace and branch records, event counters, activity monitors, and what is
/// IMPLEMENTATION DEFINED (C5.3.1, C5.4.1).
fn wholes(op0: u32, op1: u32, crn: u32, crm: u32) -> Option<Row> {
    let row = Row::new(op0, op1, crn, crm, 0xff, 0xff);
    match (op0, op1, crn, crm) {
        (1 | 3, _, 11 | 15, _) => Some(row.only(When::Free)),
        (2, 1, ..) => Some(row.perhaps(TRACE)),
        (3, 3, 14, 8..) => Some(row.perhaps(PMU)),
        (3, 3 | 4, 13, 2..) => Some(row.perhaps(AMU)),
        _ => None,
    }
}

/// Whether the ID registers announce it.
pub(crate) fn announces(when: When) -> bool {
    match when {
        When::Always | When::Free => true,
        When::If(fields) | When::Perhaps(fields) => fields.iter().any(|Field(crm, op2, shift, from)| {
            let field = super::id(*crm, *op2) >> shift & 15;
            // ID_AA64DFR0_EL1.PMUVer: 15 is a PMU that is not the architecture's.
            field >= *from && !((*crm, *op2, *shift) == (5, 0, 8) && field == 15)
        }),
    }
}
