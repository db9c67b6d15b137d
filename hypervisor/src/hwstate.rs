//! What of the loaded vCPU is in the CPU, kept in step with what we know of it (KVM: flush and sync of hwstate).
//!
//! [`lists`] are the list registers, [`timers`] and [`debug`] what their names say. A vCPU with an EL2 of its own has more of each:
//! [`nested`] has that, and what changes hands as it goes between its hypervisor and the guest of that.
//! Here the run loop and the exits meet: both call it, it calls neither.

pub mod debug;
pub mod lists;
pub mod nested;
pub mod sync;
pub mod timers;

use crate::arm::exception::Kind;
use crate::host::Here;
use crate::machine::Machine;
use crate::vcpu::nested::page;
use crate::vcpu::{Vcpu, VcpuKind};

/// Brings the list registers up to date.
pub fn refill<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu) {
    let mut vgic = here.vm.vgic.lock();
    let mut kicks = lists::refresh(&mut vgic, vcpu, m);
    let Vcpu { common: vcpu, kind } = vcpu;
    if let VcpuKind::Nested(nested) = kind
        && nested.lends_interface()
    {
        if !nested::interfaces::is_due_beside_guest(&vgic, vcpu) {
            drop(vgic);
            here.host.queue.kick(m, here.vm, kicks);
            return;
        }
        // What comes for the hypervisor ends the guest's world.
        drop(vgic);
        nested::transition::exception(here, m, vcpu, nested, Kind::Irq, None);
        vgic = here.vm.vgic.lock();
        kicks |= nested::interfaces::refresh(&mut vgic, vcpu, nested, m);
    }
    let mask = sync::mask(&vgic, m);
    vgic.fill(vcpu.id, &mut vcpu.lists, mask);
    drop(vgic);
    let used = usize::from(vcpu.lists.used);
    let n = used.max(vcpu.in_hardware);
    vcpu.in_hardware = used;
    m.write_lists(vcpu.lists.lr.get(..n).unwrap_or(&[]), vcpu.lists.hcr);
    if let VcpuKind::Nested(nested) = kind {
        nested.write(m, page::IS_PENDING, used as u64);
    }
    if !kicks.is_empty() {
        here.host.queue.kick(m, here.vm, kicks);
    }
}
