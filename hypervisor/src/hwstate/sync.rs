//! Reading the list registers back that [`Vgic`] filled (KVM: `vgic_v3_sync_hwstate`), and what the interface lets through.

use crate::arm::gic::{Mask, Version, hcr};
use crate::machine::Machine;
use crate::next::Kicks;
use crate::vcpu::Common;
use crate::vgic::Vgic;

/// Takes what the list registers that [`Vgic`] filled say back into it.
#[inline(always)]
pub fn fold<M: Machine>(vgic: &mut Vgic, vcpu: &mut Common, m: &M) -> Kicks {
    let used = usize::from(vcpu.lists.used);
    if let Some(lr) = vcpu.lists.lr.get_mut(..used) {
        vcpu.lists.hcr = m.read_lists(lr);
        if vcpu.lists.hcr & !hcr::EN != 0 {
            // Ends are counted once. And what it asks for is met as the lists are filled: until then its maintenance interrupt would
            // come again and again, and keep a CPU from sleeping (IHI 0069H 12.4.7).
            m.write_lists(&[], hcr::EN);
        }
    }
    vcpu.in_hardware = vcpu.in_hardware.max(used);
    vgic.fold(vcpu.id, &mut vcpu.lists)
}

/// What the loaded vCPU's interface lets through.
pub fn mask<M: Machine>(vgic: &Vgic, m: &M) -> Mask {
    mask_of(vgic, m.interface())
}

/// What an interface with this ICH_VMCR_EL2 or GICH_VMCR lets through.
pub fn mask_of(vgic: &Vgic, vmcr: u64) -> Mask {
    match vgic.version() {
        Version::V3 => Mask::from_ich_vmcr(vmcr),
        // GICH_VMCR has 32 bits.
        Version::V2 => Mask::from_gich_vmcr(vmcr as u32),
    }
}
