//! EL2's registers for a vCPU, with an EL2 of its own or without.

use super::traps;
use crate::addr::CpuId;
use crate::host::Here;
use crate::machine::Machine;
use crate::memory::Root;
use crate::vcpu::nested::{World, hcr, page};
use crate::vcpu::{El2Registers, Traps, Vcpu};
use core::sync::atomic::Ordering;

/// EL2's registers for `vcpu` in the world it is in, on the CPU it is loaded on.
pub fn el2_registers<M: Machine>(here: Here<'_>, m: &M, vcpu: &Vcpu, cpu: CpuId) -> El2Registers {
    let of = |root: &Root| (root.vttbr(m, &here.host.vmids, cpu), root.vtcr());
    let Some(nested) = &vcpu.nested else {
        let (vttbr, vtcr) = of(&here.vm.root);
        let cntvoff = here.vm.offset.load(Ordering::Relaxed);
        return El2Registers { vttbr, vtcr, vmpidr: vcpu.mpidr, cntvoff, nested: None };
    };
    let own = hcr::PTW | hcr::NV | hcr::NV2 | hcr::AT | hcr::TTLB;
    match nested.world {
        World::Hypervisor => {
            let (vttbr, vtcr) = of(&here.vm.root);
            // Without E2H, EL1's registers are its guest's, which are in the page; and until it has one, its writes of them
            // may be the first we see of it having set E2H.
            let plain = if nested.settled { hcr::NV1 } else { hcr::NV1 | hcr::TVM | hcr::TRVM };
            // Virtual time has no offset at EL2 with E2H.
            let cntvoff = if nested.vhe { 0 } else { nested.read(m, page::CNTVOFF) };
            let traps = Traps {
                hcr: if nested.vhe { own } else { own | plain },
                vpidr: here.host.facts.midr,
                vncr: nested.page.0.bits(),
                mdcr: 0,
                fp: false,
                cpacr: false,
                counter: false,
            };
            El2Registers { vttbr, vtcr, vmpidr: vcpu.mpidr, cntvoff, nested: Some(traps) }
        }
        World::Guest => {
            let (vttbr, vtcr) = of(nested.shadow.as_ref().unwrap_or(&here.vm.root));
            let traps = traps::traps(m, nested);
            let (vmpidr, cntvoff) = (nested.read(m, page::VMPIDR), nested.read(m, page::CNTVOFF));
            El2Registers { vttbr, vtcr, vmpidr, cntvoff, nested: Some(traps) }
        }
    }
}

/// The CPU that the vCPU is loaded on.
pub fn cpu_of(here: Here<'_>) -> CpuId {
    // A CPU number: it was stored from one before the vCPU ran.
    CpuId(here.slot.running.load(Ordering::Relaxed) as u16)
}

/// Takes a virtual SError out of the hypervisor's HCR_EL2 once the guest, which is on this CPU, has taken it (Arm ARM
/// D1.3.6: VSE is cleared then).
pub fn keep_abort<M: Machine>(m: &M, vcpu: &Vcpu) {
    let Some(nested) = vcpu.nested.as_ref().filter(|nested| nested.world == World::Guest) else { return };
    let hcr = nested.hcr(m);
    if hcr & hcr::VSE != 0 && !m.has_abort() {
        nested.write(m, page::HCR, hcr & !hcr::VSE);
    }
}
