//! EL2's own control registers: what traps, what is hidden, on each CPU (Arm ARM D24.2, D24.3).

use super::sysreg::{PMCR_EL0, isb, read, write};
use super::{context, power};
use aarch64_cpu::registers::MDCR_EL2;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use flatland::arm::idreg::field;
use flatland::arm::speculation::{self, Speculation};
use flatland::arm::trap::{hcr, mdcr};

/// HCR_EL2. SWIO: invalidation by set and way also cleans. PTW: no walks into device memory. FMO and IMO also make the ICC_*
/// registers virtual.
const HCR: u64 = hcr::VM
    | hcr::SWIO
    | hcr::PTW
    | hcr::FMO
    | hcr::IMO
    | hcr::AMO
    | hcr::FB
    | hcr::BSU_INNER
    | hcr::TWI
    | hcr::TID3
    | hcr::TSC
    | hcr::TIDCP
    | hcr::TACR
    | hcr::TSW
    | hcr::RW;
/// Traps of features that only some CPUs have: TLOR, TERR (RAS), TID5 (MTE).
const HCR_TLOR: u64 = 1 << 35;
const HCR_TERR: u64 = 1 << 36;
const HCR_TID5: u64 = 1 << 58;

/// HCR_EL2 and MDCR_EL2 as they are for every guest.
static BASE: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// HCR_EL2 as it is for every guest.
pub(crate) fn hcr() -> u64 {
    BASE[0].load(Ordering::Relaxed)
}

/// Whether the CPUs have FEAT_RAS, which no guest is shown.
pub(crate) fn has_ras() -> bool {
    hcr() & HCR_TERR != 0
}

/// MDCR_EL2 as it is for every guest.
pub(crate) fn mdcr() -> u64 {
    BASE[1].load(Ordering::Relaxed)
}

/// Sets EL2's registers up on this CPU.
pub(crate) fn init() {
    unsafe extern "C" {
        static vectors: u8;
    }
    write!("vbar_el2", (&raw const vectors) as u64);
    isb();
    let pfr0 = read!("id_aa64pfr0_el1");
    let pfr1 = read!("id_aa64pfr1_el1");
    let dfr0 = read!("id_aa64dfr0_el1");
    let mmfr0 = read!("id_aa64mmfr0_el1");
    let mmfr1 = read!("id_aa64mmfr1_el1");
    let mut hcr = HCR;
    if field::read(mmfr1, field::mmfr1::LO) != 0 {
        hcr |= HCR_TLOR;
    }
    if field::read(pfr0, field::pfr0::RAS) != 0 {
        hcr |= HCR_TERR;
    }
    if field::read(pfr1, field::pfr1::MTE) > 1 {
        hcr |= HCR_TID5;
    }
    // VTTBR_EL2 is UNKNOWN out of reset, and from HCR_EL2.VM on a speculative AT may walk from it (Cortex-A72 erratum
    // 1319367): nobody's number, and no walks.
    context::no_walks();
    write!("vttbr_el2", 0);
    write!("vtcr_el2", 1 << 31);
    isb();
    write!("hcr_el2", hcr);
    // The same on all CPUs.
    BASE[0].store(hcr, Ordering::Relaxed);
    // Debug registers, and the PMU, if any; the host's count of event counters stays.
    let mut mdcr = mdcr::TDRA | mdcr::TDOSA | mdcr::TDA;
    if !matches!(field::read(dfr0, field::dfr0::PMUVER), 0 | 0xf) {
        let traps = MDCR_EL2::TPM::SET + MDCR_EL2::TPMCR::SET;
        mdcr |= (traps + MDCR_EL2::HPMN.val(PMCR_EL0::N.read(read!("pmcr_el0")))).value;
    }
    if field::read(dfr0, field::dfr0::PMSVER) != 0 {
        mdcr |= MDCR_EL2::TPMS::SET.value;
    }
    if field::read(dfr0, field::dfr0::TRACEFILT) != 0 {
        mdcr |= MDCR_EL2::TTRF::SET.value;
    }
    write!("mdcr_el2", mdcr);
    BASE[1].store(mdcr, Ordering::Relaxed);
    write!("hstr_el2", 0);
    super::debug::init(dfr0);
    write!("vpidr_el2", midr());
    // EL1PCTEN: the physical counter is read freely; EL1PCEN clear: the physical timer traps.
    write!("cnthctl_el2", 1);
    write!("cntvoff_el2", 0);
    write!("cntv_ctl_el0", 0);
    write!("cntp_ctl_el0", 0);
    write!("cnthp_ctl_el2", 0);
    // FEAT_FGT's traps and FEAT_HCX's enables: none. They are UNKNOWN out of reset.
    if field::read(mmfr0, field::mmfr0::FGT) != 0 {
        write!("S3_4_C1_C1_4", 0);
        write!("S3_4_C1_C1_5", 0);
        write!("S3_4_C1_C1_6", 0);
        write!("S3_4_C3_C1_4", 0);
        write!("S3_4_C3_C1_5", 0);
    }
    if field::read(mmfr1, field::mmfr1::HCX) != 0 {
        write!("S3_4_C1_C2_2", 0);
    }
    if has_ras() {
        // VSESR_EL2: the syndrome of virtual SErrors, which are a guest hypervisor's; UNKNOWN out of reset.
        write!("S3_4_C5_C2_3", 0);
    }
    isb();
    // What an earlier life of the board may have left in the TLBs.
    // SAFETY: invalidation only costs time; no guest runs yet.
    unsafe { asm!("tlbi alle1", "ic iallu", "dsb nsh", "isb", options(nostack, preserves_flags)) };
}

/// How it stands with this CPU and attacks by speculation. Where the firmware can keep loads from passing stores, it is
/// told to, for good.
pub(crate) fn speculation() -> Speculation {
    let found = Speculation::assess(midr(), id_register, power::arch_features);
    if found.v4 == speculation::Mitigation::Mitigated {
        power::forbid_store_bypass();
    }
    found
}

/// MIDR_EL1.
pub(crate) fn midr() -> u64 {
    read!("midr_el1")
}

/// The raw ID register op0 3, op1 0, CRn 0, `crm`, `op2`.
pub(crate) fn id_register(crm: u64, op2: u64) -> u64 {
    macro_rules! ids {
        ($($crm:literal $op2:literal $name:literal),* $(,)?) => {
            match (crm, op2) { $(($crm, $op2) => read!($name),)* _ => 0 }
        };
    }
    ids! {
        1 0 "S3_0_C0_C1_0", 1 1 "S3_0_C0_C1_1", 1 2 "S3_0_C0_C1_2", 1 3 "S3_0_C0_C1_3",
        1 4 "S3_0_C0_C1_4", 1 5 "S3_0_C0_C1_5", 1 6 "S3_0_C0_C1_6", 1 7 "S3_0_C0_C1_7",
        2 0 "S3_0_C0_C2_0", 2 1 "S3_0_C0_C2_1", 2 2 "S3_0_C0_C2_2", 2 3 "S3_0_C0_C2_3",
        2 4 "S3_0_C0_C2_4", 2 5 "S3_0_C0_C2_5", 2 6 "S3_0_C0_C2_6", 2 7 "S3_0_C0_C2_7",
        3 0 "S3_0_C0_C3_0", 3 1 "S3_0_C0_C3_1", 3 2 "S3_0_C0_C3_2", 3 4 "S3_0_C0_C3_4", 3 6 "S3_0_C0_C3_6",
        4 0 "S3_0_C0_C4_0", 4 1 "S3_0_C0_C4_1", 5 0 "S3_0_C0_C5_0", 5 1 "S3_0_C0_C5_1",
        6 0 "S3_0_C0_C6_0", 6 1 "S3_0_C0_C6_1", 6 2 "S3_0_C0_C6_2",
        7 0 "S3_0_C0_C7_0", 7 1 "S3_0_C0_C7_1", 7 2 "S3_0_C0_C7_2",
    }
}
