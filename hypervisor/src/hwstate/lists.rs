//! Between the virtual interrupt controller and the list registers of the CPU a vCPU is loaded on.

use super::nested;
use crate::arm::gic::{Mask, Version};
use crate::devices::VIRTUAL_TIMER_INTID;
use crate::host::Here;
use crate::machine::Machine;
use crate::next::Kicks;
use crate::vcpu::{Counter, Vcpu, timer};
use crate::vgic::{Line, Vgic};

/// Takes what the list registers say back into `vgic`, and the level of the virtual timer with it. The lists are empty
/// then and have to be filled before the vCPU runs: see [`refill`](super::refill).
pub fn refresh<M: Machine>(vgic: &mut Vgic, vcpu: &mut Vcpu, m: &M) -> Kicks {
    let mut kicks = Kicks::NONE;
    if vcpu.nested.is_some() {
        // First what the guest's lists say: the hypervisor's maintenance interrupt follows from it.
        kicks |= nested::lists::sync(vgic, vcpu, m);
        nested::timers::refresh(vgic, vcpu, m);
        if vcpu.lends_interface() {
            // Its own lists were folded when its guest got the interface.
            return kicks.without(vcpu.id);
        }
    }
    let used = usize::from(vcpu.lists.used);
    if let Some(lr) = vcpu.lists.lr.get_mut(..used) {
        vcpu.lists.hcr = m.read_lists(lr);
    }
    vcpu.in_hardware = vcpu.in_hardware.max(used);
    kicks |= vgic.fold(vcpu.id, &mut vcpu.lists);
    if vcpu.timer_active && vcpu.nested.is_none() {
        let timer = VIRTUAL_TIMER_INTID;
        if !timer::is_firing_on_cpu(m) {
            kicks |= vgic.set_line(vcpu.id, timer, Line::Low);
        }
        release_timer(vgic, vcpu, m);
    }
    kicks.without(vcpu.id)
}

/// Lets the physical timer interrupt come again, once its virtual one is neither pending nor active: the guest ended it
/// (then the hardware did so already), or turned the timer off without taking it.
fn release_timer<M: Machine>(vgic: &Vgic, vcpu: &mut Vcpu, m: &M) {
    if !vgic.hw_active(vcpu.id, VIRTUAL_TIMER_INTID) {
        m.release(VIRTUAL_TIMER_INTID);
        vcpu.timer_active = false;
    }
}

/// The virtual timer's physical interrupt arrived and stays active: its virtual one is pending until the guest ends it.
///
/// The lists are not folded here: that would compare the active state of the last time with what they say.
pub fn timer(here: Here<'_>, vcpu: &mut Vcpu) {
    here.slot.count(Counter::Timer);
    vcpu.timer_active = true;
    if vcpu.nested.is_some() {
        // Which of its timers that is, is found out when its lists are filled.
        return;
    }
    // The kick is for this vCPU, which looks before it runs.
    let _ = here.vm.vgic.lock().set_line(vcpu.id, VIRTUAL_TIMER_INTID, Line::High);
}

/// Whether something would end the vCPU's WFI.
pub fn wakes<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu) -> bool {
    let mut vgic = here.vm.vgic.lock();
    let kicks = refresh(&mut vgic, vcpu, m);
    let wakes = if vcpu.lends_interface() {
        is_due_beside_guest(&vgic, vcpu)
            || vcpu.nested.as_ref().is_some_and(|nested| nested::lists::is_pending(nested, m))
    } else {
        vgic.deliverable(vcpu.id, mask(&vgic, m))
    };
    drop(vgic);
    // What it ended may have come again for a vCPU that it is routed to by now.
    here.host.queue.kick(m, here.vm, kicks);
    wakes
}

/// Whether an interrupt waits for a hypervisor whose guest has the CPU's interface.
pub fn is_due_beside_guest(vgic: &Vgic, vcpu: &Vcpu) -> bool {
    vgic.deliverable(vcpu.id, Mask::from_ich_vmcr(vcpu.interface.vmcr))
}

/// What the loaded vCPU's interface lets through.
pub fn mask<M: Machine>(vgic: &Vgic, m: &M) -> Mask {
    match vgic.version() {
        Version::V3 => Mask::from_ich_vmcr(m.interface()),
        // GICH_VMCR has 32 bits.
        Version::V2 => Mask::from_gich_vmcr(m.interface() as u32),
    }
}

/// Takes the hypervisor's interface off the CPU. Says whether an interrupt waits for the hypervisor.
pub fn put_own_away<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu) -> bool {
    let mut vgic = here.vm.vgic.lock();
    let kicks = refresh(&mut vgic, vcpu, m);
    let is_due = vgic.deliverable(vcpu.id, Mask::from_ich_vmcr(m.interface()));
    drop(vgic);
    let lists = core::mem::take(&mut vcpu.in_hardware);
    m.save_interface(&mut vcpu.interface, lists);
    here.host.queue.kick(m, here.vm, kicks);
    is_due
}

/// Takes the guest's interface off the CPU and puts the hypervisor's back, whose lists have to be filled.
pub fn take_back<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu) {
    let kicks = nested::lists::sync(&mut here.vm.vgic.lock(), vcpu, m).without(vcpu.id);
    here.host.queue.kick(m, here.vm, kicks);
    nested::lists::put_guests_away(m, vcpu);
    let Some(nested) = vcpu.nested.as_mut().filter(|nested| nested.lends_interface) else { return };
    nested.lends_interface = false;
    m.load_interface(&vcpu.interface);
}
