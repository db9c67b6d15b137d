//! Which traps of a guest are its hypervisor's, and what the hardware traps for it.

use crate::arm::el1::El1;
use crate::arm::esr::ec;
use crate::arm::role::Traps;
use crate::arm::sysreg::Encoding;
use crate::machine::Machine;
use crate::vcpu::Vcpu;
use crate::vcpu::nested::{Nested, Own, hcr, page};

/// What of a hypervisor's HCR_EL2 is in force while its guest plays: traps, virtual aborts and interrupts, and what changes
/// the guest's view. TGE among it, with which the guest is at EL0 and has no EL1.
const PASSED: u64 = hcr::PTW
    | 1 << 6
    | 1 << 7
    | hcr::VSE
    | 1 << 12
    | 0x7f << 13
    | 0x1f << 20
    | hcr::TTLB
    | hcr::TVM
    | hcr::TGE
    | 1 << 28
    | hcr::TRVM
    | 1 << 32
    | 1 << 33;

/// CPTR_EL2.TCPAC.
const TCPAC: u64 = 1 << 31;

/// What of it makes the guest's EL1 an EL2 of its own (recursion).
const NESTED: u64 = hcr::NV | hcr::NV1 | hcr::AT | hcr::NV2;

/// EL2's control registers while the guest of `nested` plays.
pub fn traps<M: Machine>(m: &M, nested: &Nested) -> Traps {
    let hcr = nested.hcr(m);
    let cptr = cptr(nested);
    let fp = if nested.vhe { cptr >> 20 & 3 != 3 } else { cptr >> 10 & 1 != 0 };
    // Without a page to be had its accesses trap, and are its hypervisor's.
    let recursive = if nested.guests_page.is_some() { NESTED } else { NESTED & !hcr::NV2 };
    Traps {
        hcr: hcr & (PASSED | recursive),
        vpidr: nested.read(m, page::VPIDR),
        vncr: nested.guests_page.map_or(0, |page| page.bits()),
        mdcr: nested.kept.get(Own::Mdcr) & 0xf << 8,
        fp,
        cpacr: cptr & TCPAC != 0,
        counter: !counter(nested),
    }
}

/// CPTR_EL2, which with E2H is away with the hypervisor's other registers.
fn cptr(nested: &Nested) -> u64 {
    if nested.vhe { nested.away.get(El1::Cpacr) } else { nested.kept.get(Own::Cptr) }
}

/// Whether the exit of the guest that plays is its hypervisor's to handle.
pub fn belongs<M: Machine>(m: &M, vcpu: &Vcpu) -> bool {
    let Some(nested) = &vcpu.nested else { return false };
    let hcr = nested.hcr(m);
    let syndrome = vcpu.registers.syndrome();
    if hcr & hcr::TGE != 0 && !has_own_reason(syndrome.ec(), syndrome.iss()) {
        return true;
    }
    match syndrome.ec() {
        ec::HVC64 => hcr & hcr::HCD == 0,
        ec::SMC64 => hcr & 1 << 19 != 0,
        ec::WFX => hcr & if syndrome.iss() & 1 == 0 { hcr::TWI } else { 1 << 14 } != 0,
        ec::FP => traps(m, nested).fp,
        ec::ERET => hcr & hcr::NV != 0,
        // Debug exceptions, while they go to EL2 (MDCR_EL2.TDE).
        0x30..=0x3c => nested.kept.get(Own::Mdcr) >> 8 & 1 != 0,
        ec::SYSREG => sysreg(m, nested, syndrome.iss()),
        _ => false,
    }
}

/// Whether an exception of EL0 comes to EL2 for another reason than HCR_EL2.TGE: it would where there is an EL1, too.
fn has_own_reason(class: u64, iss: u64) -> bool {
    match class {
        ec::WFX | ec::FP => true,
        // Counters and timers.
        ec::SYSREG => matches!(Encoding::from_iss(iss).parts(), [3, 3, 14, ..]),
        _ => false,
    }
}

/// Whether a trapped access, by its syndrome, is one that the hypervisor traps.
fn sysreg<M: Machine>(m: &M, nested: &Nested, iss: u64) -> bool {
    let hcr = nested.hcr(m);
    let [op0, op1, crn, crm, op2] = Encoding::from_iss(iss).parts();
    let is_read = iss & 1 != 0;
    let hcr_has = |bit: u32| hcr >> bit & 1 != 0;
    let mdcr_has = |bit: u32| nested.kept.get(Own::Mdcr) >> bit & 1 != 0;
    let ich_has = |bit: u32| nested.read(m, page::ICH_HCR) >> bit & 1 != 0;
    match (op0, op1, crn, crm, op2) {
        // An EL2 of the guest's own: its registers, its TLBI and AT.
        (3, 4 | 5, ..) | (1, 4, ..) => hcr & hcr::NV != 0,
        (1, 0, 7, 8 | 9, _) => hcr & hcr::AT != 0,
        // DC ZVA.
        (1, 3, 7, 4, 1) => hcr_has(28),
        // Caches: by set and way, to the point of coherency, of unification.
        (1, 0, 7, 6 | 10 | 14, 2) => hcr_has(22),
        (1, 0, 7, 6, 1) | (1, 3, 7, 6 | 10 | 12 | 13 | 14, 1) => hcr_has(23),
        (1, 0, 7, 1 | 5, 0) | (1, 3, 7, 5 | 11, 1) => hcr_has(24),
        (1, 0, 8 | 9, ..) => hcr_has(25),
        // Debug: OS lock and power, ROM address, all else.
        // TDE counts as each of them.
        (2, 0, 1, _, 4) => mdcr_has(10) || mdcr_has(8),
        (2, 0, 1, 0, 0) => mdcr_has(11) || mdcr_has(8),
        (2, ..) => mdcr_has(9) || mdcr_has(8),
        (3, 0, 0, 0, 6 | 7) | (3, 1, 0, 0, 7) => hcr_has(16),
        (3, 1 | 2, 0, 0, _) | (3, 3, 0, 0, 1) => hcr_has(17),
        (3, 0, 0, ..) => hcr_has(18),
        (3, 0, 1, 0, 1) => hcr_has(21),
        (3, 0, 1, 0, 2) => cptr(nested) & TCPAC != 0,
        (3, 0, 1 | 2 | 5 | 6 | 10 | 13, ..) if is_read => hcr_has(30),
        (3, 0, 1 | 2 | 5 | 6 | 10 | 13, ..) => hcr_has(26),
        (3, _, 11 | 15, ..) => hcr_has(20),
        // Interrupts: SGIs, DIR, what both groups have, Group 0, Group 1.
        (3, 0, 12, 11, 5..=7) => hcr & (hcr::IMO | hcr::FMO) != 0,
        (3, 0, 12, 11, 1) => ich_has(14) || ich_has(10),
        (3, 0, 4, 6, 0) | (3, 0, 12, 11, 3) | (3, 0, 12, 12, 4) => ich_has(10),
        (3, 0, 12, 8, _) | (3, 0, 12, 12, 6) => ich_has(11),
        (3, 0, 12, 9 | 12, _) => ich_has(12),
        // The physical counter and timer: CNTHCTL_EL2, whose bits lie elsewhere with E2H.
        (3, 3, 14, 0, 1) => !counter(nested),
        (3, 3, 14, 2, _) => !timer(nested),
        _ => false,
    }
}

/// CNTHCTL_EL2 as the hypervisor has it: while its guest plays, its registers are away.
fn cnthctl(nested: &Nested) -> u64 {
    if nested.vhe { nested.away.get(El1::Cntkctl) } else { nested.kept.get(Own::Cnthctl) }
}

/// EL1PCTEN.
fn counter(nested: &Nested) -> bool {
    cnthctl(nested) >> if nested.vhe { 10 } else { 0 } & 1 != 0
}

/// EL1PTEN, or EL1PCEN.
fn timer(nested: &Nested) -> bool {
    cnthctl(nested) >> if nested.vhe { 11 } else { 1 } & 1 != 0
}
