//! The timers of the loaded vCPU: EL1's virtual one is the CPU's, its physical one is emulated. What the CPU does not watch
//! has a deadline, which ours watches.

use super::nested;
use crate::arm::el1::El1;
use crate::devices;
use crate::host::Here;
use crate::machine::Machine;
use crate::sched::earliest;
use crate::vcpu::{Timer, Vcpu, VcpuKind};
use crate::vgic::Line;
use crate::vm::{Vm, request};
use core::sync::atomic::Ordering;

/// Sets the line of the emulated physical timer to what its registers say now, and returns when it will fire, if it is
/// going to.
pub fn poll<M: Machine>(here: Here<'_>, m: &M, vcpu: &mut Vcpu) -> Option<u64> {
    let Vcpu { common: vcpu, kind } = vcpu;
    if let VcpuKind::Nested(nested) = kind {
        nested::timers::refresh(&mut here.vm.vgic.lock(), vcpu, nested, m);
        here.slot.requests.fetch_or(request::REFILL, Ordering::Relaxed);
        let deadline = nested::timers::deadline(vcpu, nested, m, m.now());
        nested.watched = deadline.unwrap_or(u64::MAX);
        return deadline;
    }
    if vcpu.cntp.ctl == 0 && !vcpu.cntp_line {
        return None;
    }
    let armed = vcpu.cntp.is_armed();
    let high = vcpu.cntp.is_firing(m.now());
    if high != vcpu.cntp_line {
        vcpu.cntp_line = high;
        let line = if high { Line::High } else { Line::Low };
        here.host.private_line(m, here, vcpu.id, devices::PHYSICAL_TIMER_INTID, line);
    }
    (armed && !high).then_some(vcpu.cntp.cval)
}

/// When a vCPU that waits has to be woken because one of its timers fires, now that the hardware does not watch them.
pub fn sleep_deadline<M: Machine>(vm: &Vm, vcpu: &Vcpu, m: &M) -> Option<u64> {
    let now = m.now();
    if let VcpuKind::Nested(nested) = &vcpu.kind {
        let own = nested::timers::saved_deadline(vcpu, nested, m);
        return earliest([own, nested::timers::deadline(vcpu, nested, m, now)]);
    }
    let timer = Timer::new(vcpu.saved.get(El1::CntvCtl), vcpu.saved.get(El1::CntvCval));
    // An interrupt that is active already fires no more.
    let own =
        (timer.is_armed() && !vcpu.timer_active).then(|| timer.cval.wrapping_add(vm.offset.load(Ordering::Relaxed)));
    let emulated = (vcpu.cntp.is_armed() && vcpu.cntp.cval > now).then_some(vcpu.cntp.cval);
    earliest([own, emulated])
}
