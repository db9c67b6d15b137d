//! Reading the list registers back that [`Vgic`] filled (KVM: `vgic_v3_sync_hwstate`).

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
    }
    vcpu.in_hardware = vcpu.in_hardware.max(used);
    vgic.fold(vcpu.id, &mut vcpu.lists)
}
