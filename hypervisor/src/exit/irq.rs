//! Between the virtual interrupt controller and the list registers of the CPU a vCPU is loaded on.

use super::Here;
use super::nested::{self, timers};
use crate::arm::el1::El1;
use crate::arm::exception::Kind;
use crate::arm::gic::{Mask, Version};
use crate::devices::VIRTUAL_TIMER_INTID;
use crate::machine::Machine;
use crate::next::Kicks;
use crate::vcpu::{Counter, Vcpu, timer};
use crate::vgic::{Line, Vgic};

/// Takes what the list registers say back into `vgic`, and the level of the virtual timer with it. The lists are empty
/// then and have to be filled before the vCPU runs: see [`refill`].
pub fn refresh<M: Machine>(vgic: &mut Vgic, vcpu: &mut Vcpu, m: &M) -> Kicks {
    let mut kicks = Kicks::NONE;
    if vcpu.nested.is_some() {
        // First what the guest's lists say: the hypervisor's maintenance interrupt follows from it.
        kicks |= nested::lists::sync(vgic, vcpu, m);
        timers::refresh(vgic, vcpu, m);
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
        if !is_timer_firing(m) {
            kicks |= vgic.set_line(vcpu.id, timer, Line::Low);
        }
        release_timer(vgic, vcpu, m);
    }
    kicks.without(vcpu.id)
}

/// Whether the CPU's virtual timer raises its line.
pub fn is_timer_firing<M: Machine>(m: &M) -> bool {
    timer::is_up(m.get(El1::CntvCtl))
}

/// Lets the physical timer interrupt come again, once its virtual one is neither pending nor active: the guest ended it
/// (then the hardware did so already), or turned the timer off without taking it.
fn release_timer<M: Machine>(vgic: &Vgic, vcpu: &mut Vcpu, m: &M) {
    if !vgic.hw_active(vcpu.id, VIRTUAL_TIMER_INTID) {
        m.release(VIRTUAL_TIMER_INTID);
        vcpu.timer_active = false;
    }
}

/// Brings the list registers up to date.
pub fn refill<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu) {
    let mut vgic = here.vm.vgic.lock();
    let mut kicks = refresh(&mut vgic, vcpu, m);
    if vcpu.lends_interface() {
        if !is_due_beside_guest(&vgic, vcpu) {
            drop(vgic);
            here.host.kick(m, here.vm, kicks);
            return;
        }
        // What comes for the hypervisor ends its guest's part.
        drop(vgic);
        nested::enter::exception(here, m, vcpu, Kind::Irq, None);
        vgic = here.vm.vgic.lock();
        kicks |= refresh(&mut vgic, vcpu, m);
    }
    let mask = mask(&vgic, m);
    vgic.fill(vcpu.id, &mut vcpu.lists, mask);
    drop(vgic);
    let used = usize::from(vcpu.lists.used);
    let n = used.max(vcpu.in_hardware);
    vcpu.in_hardware = used;
    m.write_lists(vcpu.lists.lr.get(..n).unwrap_or(&[]), vcpu.lists.hcr);
    if !kicks.is_empty() {
        here.host.kick(m, here.vm, kicks);
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
    here.host.kick(m, here.vm, kicks);
    wakes
}

/// Whether an interrupt waits for a hypervisor whose guest has the CPU's interface.
fn is_due_beside_guest(vgic: &Vgic, vcpu: &Vcpu) -> bool {
    vgic.deliverable(vcpu.id, Mask::from_ich_vmcr(vcpu.interface.vmcr))
}

/// What the loaded vCPU's interface lets through.
fn mask<M: Machine>(vgic: &Vgic, m: &M) -> Mask {
    match vgic.version() {
        Version::V3 => Mask::from_ich_vmcr(m.interface()),
        // GICH_VMCR has 32 bits.
        Version::V2 => Mask::from_gich_vmcr(m.interface() as u32),
    }
}
