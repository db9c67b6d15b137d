//! Which traps of a guest are its hypervisor's, and what the hardware traps for it.

use crate::arm::el1::El1;
use crate::arm::esr::ec;
use crate::arm::role::Traps;
use crate::arm::sysreg::Encoding;
use crate::arm::trap::{self, Control, cnthctl, cptr, hcr, ich, mdcr};
use crate::machine::Machine;
use crate::vcpu::Vcpu;
use crate::vcpu::nested::{Nested, Own, page};

/// What of a hypervisor's HCR_EL2 is in force while its guest plays: traps, virtual aborts and interrupts, and what changes
/// the guest's view. TGE among it, with which the guest is at EL0 and has no EL1.
const PASSED: u64 = hcr::PTW
    | hcr::VF
    | hcr::VI
    | hcr::VSE
    | hcr::DC
    | hcr::TWI
    | hcr::TWE
    | hcr::TID0
    | hcr::TID1
    | hcr::TID2
    | hcr::TID3
    | hcr::TSC
    | hcr::TIDCP
    | hcr::TACR
    | hcr::TSW
    | hcr::TPCP
    | hcr::TPU
    | hcr::TTLB
    | hcr::TVM
    | hcr::TGE
    | hcr::TDZ
    | hcr::TRVM
    | hcr::CD
    | hcr::ID;

/// What of it makes the guest's EL1 an EL2 of its own (recursion).
const NESTED: u64 = hcr::NV | hcr::NV1 | hcr::AT | hcr::NV2;

/// EL2's control registers while the guest of `nested` plays.
pub fn traps<M: Machine>(m: &M, nested: &Nested) -> Traps {
    let hcr = nested.hcr(m);
    // Without a page to be had its accesses trap, and are its hypervisor's.
    let recursive = if nested.guests_page.is_some() { NESTED } else { NESTED & !hcr::NV2 };
    Traps {
        hcr: hcr & (PASSED | recursive),
        vpidr: nested.read(m, page::VPIDR),
        vncr: nested.guests_page.map_or(0, |page| page.bits()),
        mdcr: nested.kept.get(Own::Mdcr) & mdcr::ALL,
        fp: traps_fp(nested),
        cpacr: cptr_el2(nested) & cptr::TCPAC != 0,
        counter: cnthctl(nested) & cnthctl::EL1PCTEN == 0,
    }
}

/// CPTR_EL2, which with E2H is away with the hypervisor's other registers.
fn cptr_el2(nested: &Nested) -> u64 {
    if nested.vhe { nested.away.get(El1::Cpacr) } else { nested.kept.get(Own::Cptr) }
}

/// Whether the guest's use of FP traps.
fn traps_fp(nested: &Nested) -> bool {
    let cptr = cptr_el2(nested);
    if nested.vhe { cptr & cptr::FPEN != cptr::FPEN } else { cptr & cptr::TFP != 0 }
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
        ec::SMC64 => hcr & hcr::TSC != 0,
        ec::WFX => hcr & if syndrome.iss() & 1 == 0 { hcr::TWI } else { hcr::TWE } != 0,
        ec::FP => traps_fp(nested),
        ec::ERET => hcr & hcr::NV != 0,
        // Debug exceptions, while they go to EL2.
        0x30..=0x3c => nested.kept.get(Own::Mdcr) & mdcr::TDE != 0,
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
    let is_read = iss & 1 != 0;
    let (value, mask) = match trap::control(Encoding::from_iss(iss)) {
        None => return false,
        Some(Control::Hcr(bit)) => (nested.hcr(m), 1 << bit),
        Some(Control::Memory) => (nested.hcr(m), if is_read { hcr::TRVM } else { hcr::TVM }),
        Some(Control::Sgi) => (nested.hcr(m), hcr::IMO | hcr::FMO),
        Some(Control::Mdcr(bit)) => (nested.kept.get(Own::Mdcr), 1 << bit | mdcr::TDE),
        Some(Control::Tcpac) => (cptr_el2(nested), cptr::TCPAC),
        Some(Control::Ich(bit)) => (nested.read(m, page::ICH_HCR), 1 << bit),
        Some(Control::Dir) => (nested.read(m, page::ICH_HCR), u64::from(ich::TDIR | ich::TC)),
        Some(Control::CnthctlClear(bit)) => (!cnthctl(nested), 1 << bit),
    };
    value & mask != 0
}

/// CNTHCTL_EL2 as the hypervisor has it, its bits where they are without E2H. While its guest plays, its registers are away.
fn cnthctl(nested: &Nested) -> u64 {
    if nested.vhe { nested.away.get(El1::Cntkctl) >> cnthctl::SHIFT_E2H } else { nested.kept.get(Own::Cnthctl) }
}
