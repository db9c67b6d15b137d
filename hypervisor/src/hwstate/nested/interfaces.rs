//! Who has the CPU's virtual interrupt interface: the hypervisor, whose lists [`crate::vgic`] fills, or its guest ([`super::lists`]).

use super::{lists, timers};
use crate::host::Here;
use crate::hwstate::sync::{self, mask, mask_of};
use crate::machine::Machine;
use crate::next::Kicks;
use crate::vcpu::Common;
use crate::vcpu::nested::{Nested, World};
use crate::vgic::Vgic;
use crate::vm::request;
use core::sync::atomic::Ordering;

/// Takes what both interfaces' list registers say back into `vgic`, and the timers' levels: [`crate::hwstate::lists::refresh`] for a
/// vCPU that has an EL2.
pub fn refresh<M: Machine>(vgic: &mut Vgic, vcpu: &mut Common, nested: &mut Nested, m: &M) -> Kicks {
    // First what the guest's lists say: the hypervisor's maintenance interrupt follows from it.
    let mut kicks = lists::sync(vgic, vcpu.id, nested, m);
    timers::refresh(vgic, vcpu, nested, m);
    if !nested.lends_interface() {
        // Else its own lists were folded when its guest got the interface.
        kicks |= sync::fold(vgic, vcpu, m);
    }
    kicks.without(vcpu.id)
}

/// Whether an interrupt waits for the hypervisor, which runs: what it masks by PSTATE counts, too. Its lists have to be filled after that.
pub fn is_due<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Common, nested: &mut Nested) -> bool {
    let mut vgic = here.vm.vgic.lock();
    let kicks = refresh(&mut vgic, vcpu, nested, m);
    let is_due = vgic.deliverable(vcpu.id, mask(&vgic, m));
    drop(vgic);
    here.slot.requests.fetch_or(request::REFILL, Ordering::Relaxed);
    here.host.queue.kick(m, here.vm, kicks);
    is_due
}

/// Takes the hypervisor's interface off the CPU. Says whether an interrupt waits for the hypervisor.
pub fn put_own_away<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Common, nested: &mut Nested) -> bool {
    let mut vgic = here.vm.vgic.lock();
    let kicks = refresh(&mut vgic, vcpu, nested, m);
    let is_due = vgic.deliverable(vcpu.id, mask(&vgic, m));
    drop(vgic);
    let in_hardware = core::mem::take(&mut vcpu.in_hardware);
    m.save_interface(&mut vcpu.interface, in_hardware);
    here.host.queue.kick(m, here.vm, kicks);
    is_due
}

/// Takes the guest's interface off the CPU and puts the hypervisor's back, whose lists have to be filled.
pub fn take_back<M: Machine>(here: Here<'_>, m: &M, vcpu: &Common, nested: &mut Nested) {
    let kicks = lists::sync(&mut here.vm.vgic.lock(), vcpu.id, nested, m).without(vcpu.id);
    here.host.queue.kick(m, here.vm, kicks);
    lists::put_guests_away(m, nested);
    if let World::Guest(guest) = &mut nested.world
        && core::mem::take(&mut guest.lends_interface)
    {
        m.load_interface(&vcpu.interface);
    }
}

/// Whether an interrupt waits for a hypervisor whose guest has the CPU's interface.
pub fn is_due_beside_guest(vgic: &Vgic, vcpu: &Common) -> bool {
    vgic.deliverable(vcpu.id, mask_of(vgic, vcpu.interface.vmcr))
}
