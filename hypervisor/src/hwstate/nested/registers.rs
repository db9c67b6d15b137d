//! EL2's registers for a vCPU, with an EL2 of its own or without.

use super::traps;
use crate::addr::CpuId;
use crate::host::Here;
use crate::machine::Machine;
use crate::memory::Root;
use crate::vcpu::nested::{Nested, World, hcr, page};
use crate::vcpu::{Common, El2Registers, Vcpu, VcpuKind};
use core::sync::atomic::Ordering;

/// EL2's registers for `vcpu`, which is loaded on `cpu`.
pub fn el2_registers<M: Machine>(here: Here<'_>, m: &M, vcpu: &Vcpu, cpu: CpuId) -> El2Registers {
    match &vcpu.kind {
        VcpuKind::Plain => {
            let root = &here.vm.root;
            let (vttbr, vtcr) = (root.vttbr(m, &here.host.vmids, cpu), root.vtcr());
            let cntvoff = here.vm.offset.load(Ordering::Relaxed);
            El2Registers { vttbr, vtcr, vmpidr: vcpu.mpidr, cntvoff, nested: None }
        }
        VcpuKind::Nested(nested) => nested_el2_registers(here, m, vcpu, nested, cpu),
    }
}

/// The same for one with an EL2 of its own, in the world it is in.
#[inline(never)]
pub fn nested_el2_registers<M: Machine>(
    here: Here<'_>,
    m: &M,
    vcpu: &Common,
    nested: &Nested,
    cpu: CpuId,
) -> El2Registers {
    let of = |root: &Root| (root.vttbr(m, &here.host.vmids, cpu), root.vtcr());
    match &nested.world {
        World::Hypervisor => {
            let (vttbr, vtcr) = of(&here.vm.root);
            let traps = nested.traps_of_hypervisor(here.host.facts.midr);
            let cntvoff = nested.offset_of_hypervisor(m);
            El2Registers { vttbr, vtcr, vmpidr: vcpu.mpidr, cntvoff, nested: Some(traps) }
        }
        World::Guest(guest) => {
            let (vttbr, vtcr) = of(guest.shadow.as_ref().unwrap_or(&here.vm.root));
            let traps = traps::traps(m, nested, guest);
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
pub fn keep_abort<M: Machine>(m: &M, nested: &Nested) {
    if nested.guest().is_none() {
        return;
    }
    let hcr = nested.hcr(m);
    if hcr & hcr::VSE != 0 && !m.has_abort() {
        nested.write(m, page::HCR, hcr & !hcr::VSE);
    }
}
