//! Between the virtual interrupt controller and the list registers of the CPU a vCPU is loaded on.

use super::{nested, sync};
use crate::devices::VIRTUAL_TIMER_INTID;
use crate::host::Here;
use crate::machine::Machine;
use crate::next::Kicks;
use crate::vcpu::{Common, Counter, Vcpu, VcpuKind, timer};
use crate::vgic::{Line, Vgic};

/// Takes what the list registers say back into `vgic`, and the level of the virtual timer with it. The lists are empty
/// then and have to be filled before the vCPU runs: see [`refill`](super::refill).
pub fn refresh<M: Machine>(vgic: &mut Vgic, vcpu: &mut Vcpu, m: &M) -> Kicks {
    let Vcpu { common: vcpu, kind } = vcpu;
    if let VcpuKind::Nested(nested) = kind {
        return nested::interfaces::refresh(vgic, vcpu, nested, m);
    }
    let mut kicks = sync::fold(vgic, vcpu, m);
    if vcpu.timer_active {
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
fn release_timer<M: Machine>(vgic: &Vgic, vcpu: &mut Common, m: &M) {
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
    match vcpu.kind {
        VcpuKind::Plain => {
            // The kick is for this vCPU, which looks before it runs.
            let _ = here.vm.vgic.lock().set_line(vcpu.id, VIRTUAL_TIMER_INTID, Line::High);
        }
        // Which of its timers that is, is found out when its lists are filled.
        VcpuKind::Nested(_) => {}
    }
}

/// Whether something would end the vCPU's WFI.
pub fn wakes<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu) -> bool {
    let mut vgic = here.vm.vgic.lock();
    let kicks = refresh(&mut vgic, vcpu, m);
    let wakes = match &vcpu.kind {
        VcpuKind::Nested(nested) if nested.lends_interface() => {
            nested::interfaces::is_due_beside_guest(&vgic, vcpu) || nested::lists::is_pending(nested, m)
        }
        _ => vgic.deliverable(vcpu.id, sync::mask(&vgic, m)),
    };
    drop(vgic);
    // What it ended may have come again for a vCPU that it is routed to by now.
    here.host.queue.kick(m, here.vm, kicks);
    wakes
}
