//! What the hardware traps of a guest, for its hypervisor's sake: EL2's control registers while it runs.

use crate::arm::el1::El1;
use crate::arm::el2::Traps;
use crate::arm::trap::{cnthctl, cptr, hcr, mdcr};
use crate::machine::Machine;
use crate::vcpu::nested::{Guest, Nested, Own, page};

/// What of a hypervisor's HCR_EL2 is in force while its guest runs: traps, virtual aborts and interrupts, and what changes
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

/// EL2's control registers while the `guest` of `nested` runs.
pub fn traps<M: Machine>(m: &M, nested: &Nested, guest: &Guest) -> Traps {
    let hcr = nested.hcr(m);
    // Without a page to be had its accesses trap, and are its hypervisor's.
    let recursive = if guest.page.is_some() { NESTED } else { NESTED & !hcr::NV2 };
    Traps {
        hcr: hcr & (PASSED | recursive),
        vpidr: nested.read(m, page::VPIDR),
        vncr: guest.page.map_or(0, |page| page.bits()),
        mdcr: nested.own(m, Own::Mdcr) & mdcr::ALL,
        fp: traps_fp(m, nested),
        cpacr: cptr_el2(m, nested) & cptr::TCPAC != 0,
        counter: cnthctl(m, nested) & cnthctl::EL1PCTEN == 0,
    }
}

/// CPTR_EL2, which with E2H is in [`Nested::hypervisor_el1`].
pub fn cptr_el2<M: Machine>(m: &M, nested: &Nested) -> u64 {
    if nested.vhe { nested.hypervisor_el1.get(El1::Cpacr) } else { nested.own(m, Own::Cptr) }
}

/// Whether the guest's use of FP traps.
pub fn traps_fp<M: Machine>(m: &M, nested: &Nested) -> bool {
    let cptr = cptr_el2(m, nested);
    if nested.vhe { cptr & cptr::FPEN != cptr::FPEN } else { cptr & cptr::TFP != 0 }
}

/// CNTHCTL_EL2 as the hypervisor has it, its bits where they are without E2H. They are in [`Nested::hypervisor_el1`] then, as its guest runs.
pub fn cnthctl<M: Machine>(m: &M, nested: &Nested) -> u64 {
    if nested.vhe { nested.hypervisor_el1.get(El1::Cntkctl) >> cnthctl::SHIFT_E2H } else { nested.own(m, Own::Cnthctl) }
}
