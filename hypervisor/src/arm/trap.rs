//! What an EL2 can have trap of its guest's system registers and instructions: encodings, and the control bit that decides.
//!
//! One table, in the order of encodings, as KVM's `encoding_to_cgt`: from HCR_EL2 (Arm ARM D24.2.48), MDCR_EL2 (D24.3.18), CPTR_EL2
//! (D24.2.32), CNTHCTL_EL2 (D24.10.2) and ICH_HCR_EL2 (IHI 0069H 12.4.4). Controls of features that no guest is shown (pointer
//! authentication, RAS, MTE, FEAT_EVT, FEAT_FGT, PMU, trace) are not in it: what they would trap is UNDEFINED there.

pub use super::gic::hcr as ich;
use super::sysreg::Encoding;

/// Bits of HCR_EL2.
#[allow(missing_docs)]
pub mod hcr {
    pub const VM: u64 = 1;
    pub const SWIO: u64 = 1 << 1;
    pub const PTW: u64 = 1 << 2;
    pub const FMO: u64 = 1 << 3;
    pub const IMO: u64 = 1 << 4;
    pub const AMO: u64 = 1 << 5;
    pub const VF: u64 = 1 << 6;
    pub const VI: u64 = 1 << 7;
    pub const VSE: u64 = 1 << 8;
    pub const FB: u64 = 1 << 9;
    pub const BSU_INNER: u64 = 1 << 10;
    pub const DC: u64 = 1 << 12;
    pub const TWI: u64 = 1 << 13;
    pub const TWE: u64 = 1 << 14;
    pub const TID0: u64 = 1 << 15;
    pub const TID1: u64 = 1 << 16;
    pub const TID2: u64 = 1 << 17;
    pub const TID3: u64 = 1 << 18;
    pub const TSC: u64 = 1 << 19;
    pub const TIDCP: u64 = 1 << 20;
    pub const TACR: u64 = 1 << 21;
    pub const TSW: u64 = 1 << 22;
    pub const TPCP: u64 = 1 << 23;
    pub const TPU: u64 = 1 << 24;
    pub const TTLB: u64 = 1 << 25;
    pub const TVM: u64 = 1 << 26;
    pub const TGE: u64 = 1 << 27;
    pub const TDZ: u64 = 1 << 28;
    pub const HCD: u64 = 1 << 29;
    pub const TRVM: u64 = 1 << 30;
    pub const RW: u64 = 1 << 31;
    pub const CD: u64 = 1 << 32;
    pub const ID: u64 = 1 << 33;
    pub const E2H: u64 = 1 << 34;
    pub const NV: u64 = 1 << 42;
    pub const NV1: u64 = 1 << 43;
    pub const AT: u64 = 1 << 44;
    pub const NV2: u64 = 1 << 45;
}

/// Bits of MDCR_EL2.
#[allow(missing_docs)]
pub mod mdcr {
    pub const TDE: u64 = 1 << 8;
    pub const TDA: u64 = 1 << 9;
    pub const TDOSA: u64 = 1 << 10;
    pub const TDRA: u64 = 1 << 11;
    /// All that is about debug registers and exceptions.
    pub const ALL: u64 = TDE | TDA | TDOSA | TDRA;
}

/// Bits of CPTR_EL2.
#[allow(missing_docs)]
pub mod cptr {
    /// Without E2H.
    pub const TFP: u64 = 1 << 10;
    /// With E2H: 0b11 is for no trap, 0b01 for one of EL0 under TGE.
    pub const FPEN: u64 = 0b11 << 20;
    pub const TCPAC: u64 = 1 << 31;
}

/// Bits of CNTHCTL_EL2 as it is without E2H; with it, they lie [`cnthctl::SHIFT_E2H`] higher.
#[allow(missing_docs)]
pub mod cnthctl {
    pub const EL1PCTEN: u64 = 1;
    pub const EL1PCEN: u64 = 1 << 1;
    pub const SHIFT_E2H: u32 = 10;
}

/// What decides whether an access traps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    /// This bit of HCR_EL2.
    Hcr(u8),
    /// HCR_EL2.TVM for writes, TRVM for reads.
    Memory,
    /// HCR_EL2.IMO or FMO: who generates SGIs has a virtual interface.
    Sgi,
    /// This bit of MDCR_EL2, or TDE.
    Mdcr(u8),
    /// CPTR_EL2.TCPAC.
    Tcpac,
    /// This bit of ICH_HCR_EL2.
    Ich(u8),
    /// ICH_HCR_EL2.TDIR or TC.
    Dir,
    /// This bit of CNTHCTL_EL2, where it is clear.
    CnthctlClear(u8),
}

/// Encodings that trap by one control.
#[derive(Clone, Copy, Debug)]
pub struct Trap {
    first: u16,
    last: u16,
    /// What decides.
    pub control: Control,
}

/// op0, op1, CRn, CRm, op2.
type Parts = [u16; 5];

const fn bits([op0, op1, crn, crm, op2]: Parts) -> u16 {
    Encoding::new(op0, op1, crn, crm, op2).bits()
}

const fn span(first: Parts, last: Parts, control: Control) -> Trap {
    Trap { first: bits(first), last: bits(last), control }
}

const fn one(parts: Parts, control: Control) -> Trap {
    span(parts, parts, control)
}

/// All of one CRn.
const fn crn(op0: u16, op1: u16, crn: u16, control: Control) -> Trap {
    span([op0, op1, crn, 0, 0], [op0, op1, crn, 15, 7], control)
}

const fn by_hcr(bit: u64) -> Control {
    Control::Hcr(bit.trailing_zeros() as u8)
}

const fn by_mdcr(bit: u64) -> Control {
    Control::Mdcr(bit.trailing_zeros() as u8)
}

const fn by_ich(bit: u32) -> Control {
    Control::Ich(bit.trailing_zeros() as u8)
}

const fn by_cnthctl(bit: u64) -> Control {
    Control::CnthctlClear(bit.trailing_zeros() as u8)
}

const AT: Control = by_hcr(hcr::AT);
const NV: Control = by_hcr(hcr::NV);
const TID1: Control = by_hcr(hcr::TID1);
const TID2: Control = by_hcr(hcr::TID2);
const TID3: Control = by_hcr(hcr::TID3);
const TIDCP: Control = by_hcr(hcr::TIDCP);
const TACR: Control = by_hcr(hcr::TACR);
const TSW: Control = by_hcr(hcr::TSW);
const TPCP: Control = by_hcr(hcr::TPCP);
const TPU: Control = by_hcr(hcr::TPU);
const TTLB: Control = by_hcr(hcr::TTLB);
const TDZ: Control = by_hcr(hcr::TDZ);
const TDA: Control = by_mdcr(mdcr::TDA);
const TDOSA: Control = by_mdcr(mdcr::TDOSA);
const TDRA: Control = by_mdcr(mdcr::TDRA);
const TC: Control = by_ich(ich::TC);
const TALL0: Control = by_ich(ich::TALL0);
const TALL1: Control = by_ich(ich::TALL1);

/// In the order of encodings.
#[rustfmt::skip]
pub const TRAPS: &[Trap] = &[
    // Instructions (SYS and SYSL).
    one([1, 0, 7, 1, 0], TPU),                       // IC IALLUIS
    one([1, 0, 7, 5, 0], TPU),                       // IC IALLU
    one([1, 0, 7, 6, 1], TPCP),                      // DC IVAC
    one([1, 0, 7, 6, 2], TSW),                       // DC ISW
    span([1, 0, 7, 8, 0], [1, 0, 7, 9, 7], AT),      // AT S1E1R, S1E1W, S1E0R, S1E0W, S1E1RP, S1E1WP
    one([1, 0, 7, 10, 2], TSW),                      // DC CSW
    one([1, 0, 7, 14, 2], TSW),                      // DC CISW
    span([1, 0, 8, 0, 0], [1, 0, 9, 15, 7], TTLB),   // TLBI of EL1
    crn(1, 0, 11, TIDCP),
    crn(1, 0, 15, TIDCP),
    crn(1, 1, 11, TIDCP),
    crn(1, 1, 15, TIDCP),
    crn(1, 2, 11, TIDCP),
    crn(1, 2, 15, TIDCP),
    one([1, 3, 7, 4, 1], TDZ),                       // DC ZVA
    one([1, 3, 7, 5, 1], TPU),                       // IC IVAU
    one([1, 3, 7, 10, 1], TPCP),                     // DC CVAC
    one([1, 3, 7, 11, 1], TPU),                      // DC CVAU
    one([1, 3, 7, 12, 1], TPCP),                     // DC CVAP
    one([1, 3, 7, 13, 1], TPCP),                     // DC CVADP
    one([1, 3, 7, 14, 1], TPCP),                     // DC CIVAC
    crn(1, 3, 11, TIDCP),
    crn(1, 3, 15, TIDCP),
    span([1, 4, 7, 0, 0], [1, 4, 9, 15, 7], NV),     // AT and TLBI of EL2
    crn(1, 4, 11, TIDCP),
    crn(1, 4, 15, TIDCP),
    crn(1, 5, 11, TIDCP),
    crn(1, 5, 15, TIDCP),
    crn(1, 6, 11, TIDCP),
    crn(1, 6, 15, TIDCP),
    crn(1, 7, 11, TIDCP),
    crn(1, 7, 15, TIDCP),
    // Debug.
    span([2, 0, 0, 0, 0], [2, 0, 0, 15, 7], TDA),    // DBGBVR<n>_EL1 and its kind, MDSCR_EL1, MDCCINT_EL1, OSDTR, OSECCR_EL1
    one([2, 0, 1, 0, 0], TDRA),                      // MDRAR_EL1
    one([2, 0, 1, 0, 4], TDOSA),                     // OSLAR_EL1
    one([2, 0, 1, 1, 4], TDOSA),                     // OSLSR_EL1
    one([2, 0, 1, 3, 4], TDOSA),                     // OSDLR_EL1
    one([2, 0, 1, 4, 4], TDOSA),                     // DBGPRCR_EL1
    one([2, 0, 7, 8, 6], TDA),                       // DBGCLAIMSET_EL1
    one([2, 0, 7, 9, 6], TDA),                       // DBGCLAIMCLR_EL1
    one([2, 0, 7, 14, 6], TDA),                      // DBGAUTHSTATUS_EL1
    one([2, 3, 0, 1, 0], TDA),                       // MDCCSR_EL0
    span([2, 3, 0, 4, 0], [2, 3, 0, 5, 0], TDA),     // DBGDTR_EL0, DBGDTRRX_EL0, DBGDTRTX_EL0
    // Registers.
    one([3, 0, 0, 0, 6], TID1),                      // REVIDR_EL1
    span([3, 0, 0, 1, 0], [3, 0, 0, 7, 7], TID3),    // ID_*_EL1, MVFR<n>_EL1
    one([3, 0, 1, 0, 0], Control::Memory),           // SCTLR_EL1
    one([3, 0, 1, 0, 1], TACR),                      // ACTLR_EL1
    one([3, 0, 1, 0, 2], Control::Tcpac),            // CPACR_EL1
    span([3, 0, 2, 0, 0], [3, 0, 2, 0, 2], Control::Memory), // TTBR0_EL1, TTBR1_EL1, TCR_EL1
    one([3, 0, 4, 6, 0], TC),                        // ICC_PMR_EL1
    span([3, 0, 5, 1, 0], [3, 0, 5, 1, 1], Control::Memory), // AFSR0_EL1, AFSR1_EL1
    one([3, 0, 5, 2, 0], Control::Memory),           // ESR_EL1
    one([3, 0, 6, 0, 0], Control::Memory),           // FAR_EL1
    one([3, 0, 10, 2, 0], Control::Memory),          // MAIR_EL1
    one([3, 0, 10, 3, 0], Control::Memory),          // AMAIR_EL1
    crn(3, 0, 11, TIDCP),
    span([3, 0, 12, 8, 0], [3, 0, 12, 8, 7], TALL0), // ICC_IAR0_EL1, EOIR0, HPPIR0, BPR0, AP0R<n>
    span([3, 0, 12, 9, 0], [3, 0, 12, 9, 3], TALL1), // ICC_AP1R<n>_EL1
    one([3, 0, 12, 11, 1], Control::Dir),            // ICC_DIR_EL1
    one([3, 0, 12, 11, 3], TC),                      // ICC_RPR_EL1
    span([3, 0, 12, 11, 5], [3, 0, 12, 11, 7], Control::Sgi), // ICC_SGI1R_EL1, ASGI1R, SGI0R
    span([3, 0, 12, 12, 0], [3, 0, 12, 12, 3], TALL1), // ICC_IAR1_EL1, EOIR1, HPPIR1, BPR1
    one([3, 0, 12, 12, 4], TC),                      // ICC_CTLR_EL1
    one([3, 0, 12, 12, 6], TALL0),                   // ICC_IGRPEN0_EL1
    one([3, 0, 12, 12, 7], TALL1),                   // ICC_IGRPEN1_EL1
    one([3, 0, 13, 0, 1], Control::Memory),          // CONTEXTIDR_EL1
    crn(3, 0, 15, TIDCP),
    span([3, 1, 0, 0, 0], [3, 1, 0, 0, 2], TID2),    // CCSIDR_EL1, CLIDR_EL1, CCSIDR2_EL1
    one([3, 1, 0, 0, 7], TID1),                      // AIDR_EL1
    crn(3, 1, 11, TIDCP),
    crn(3, 1, 15, TIDCP),
    one([3, 2, 0, 0, 0], TID2),                      // CSSELR_EL1
    crn(3, 2, 11, TIDCP),
    crn(3, 2, 15, TIDCP),
    one([3, 3, 0, 0, 1], TID2),                      // CTR_EL0
    crn(3, 3, 11, TIDCP),
    one([3, 3, 14, 0, 1], by_cnthctl(cnthctl::EL1PCTEN)), // CNTPCT_EL0
    span([3, 3, 14, 2, 0], [3, 3, 14, 2, 2], by_cnthctl(cnthctl::EL1PCEN)), // CNTP_TVAL_EL0, CNTP_CTL_EL0, CNTP_CVAL_EL0
    crn(3, 3, 15, TIDCP),
    span([3, 4, 0, 0, 0], [3, 5, 15, 15, 7], NV),    // *_EL2, *_EL12, *_EL02
    crn(3, 6, 11, TIDCP),
    crn(3, 6, 15, TIDCP),
    crn(3, 7, 11, TIDCP),
    crn(3, 7, 15, TIDCP),
];

// In order, and no encoding in two rows.
const _: () = {
    let mut n = 0;
    while n < TRAPS.len() {
        assert!(TRAPS[n].first <= TRAPS[n].last);
        assert!(n == 0 || TRAPS[n - 1].last < TRAPS[n].first);
        n += 1;
    }
};

/// What decides whether an access to `encoding` traps; nothing if nothing makes it.
pub fn control(encoding: Encoding) -> Option<Control> {
    let bits = encoding.bits();
    let at = TRAPS.partition_point(|trap| trap.last < bits);
    TRAPS.get(at).filter(|trap| trap.first <= bits).map(|trap| trap.control)
}
